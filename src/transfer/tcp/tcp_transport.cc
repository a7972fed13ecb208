#include "transfer/tcp/tcp_transport.h"

#include "transfer/checksum.h"

namespace baton::transfer {
namespace {

class TcpTransport final : public Transport {
 public:
  explicit TcpTransport(BlockArray pool) : pool_(pool) {}
  Path path() const override { return Path::kTcp; }
  bool reader_touches_pool() const override { return false; }

  void send(Conn& conn, ChunkHead head, std::span<const int32_t> blocks) override {
    head.checksum = hash(blocks);
    conn.send_chunk(encode_chunk(head, blocks.size() * pool_.block_bytes), parts(blocks), head.op);
  }

  Result<Landing> landing(std::span<const int32_t> to, size_t payload_bytes) override {
    if (payload_bytes != to.size() * pool_.block_bytes)
      return fail(Code::kOutOfRange, "chunk of ", to.size(), " blocks has ", payload_bytes, " bytes");
    return Landing{.kind = Landing::Kind::kScatter, .parts = parts(to)};
  }

  Result<uint64_t> receive(std::span<const std::byte>, std::span<const int32_t> to) override { return hash(to); }

 private:
  uint64_t hash(std::span<const int32_t> blocks) const {
    Checksum sum;
    for (auto b : blocks) sum.update(pool_[b]);
    return sum.value();
  }
  // Neighbours in the pool become one part.
  std::vector<iovec> parts(std::span<const int32_t> blocks) const {
    std::vector<iovec> out;
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (i > 0 && blocks[i] == blocks[i - 1] + 1) {
        out.back().iov_len += pool_.block_bytes;
      } else {
        out.push_back({pool_[blocks[i]].data(), pool_.block_bytes});
      }
    }
    return out;
  }
  BlockArray pool_;
};

}  // namespace

std::unique_ptr<Transport> make_tcp_transport(BlockArray pool) { return std::make_unique<TcpTransport>(pool); }

}  // namespace baton::transfer
