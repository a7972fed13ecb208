#include "transfer/tcp/tcp_transport.h"

#include "transfer/checksum.h"

namespace baton::transfer {
namespace {

class TcpTransport final : public Transport {
 public:
  explicit TcpTransport(BlockArray pool) : pool_(pool) {}
  Path path() const override { return Path::kTcp; }
  bool reader_touches_pool() const override { return false; }

  void send(Conn& conn, ChunkHead head, std::span<const int32_t> blocks, const Cut& cut) override {
    auto pieces = parts(blocks, cut);
    head.checksum = hash(pieces);
    conn.send_chunk(encode_chunk(head, blocks.size() * cut.bytes()), std::move(pieces), head.op);
  }

  Result<Landing> landing(const Target& target, size_t payload_bytes) override {
    if (payload_bytes != target.n_blocks * target.cut.bytes() || payload_bytes > target.payload_max)
      return fail(Code::kOutOfRange, "chunk of ", target.n_blocks, " blocks has ", payload_bytes, " bytes");
    if (target.to.empty()) return Landing{.kind = Landing::Kind::kCollect, .collect_max = payload_bytes, .parts = {}};
    return Landing{.kind = Landing::Kind::kScatter, .parts = parts(target.to, whole_block(pool_.block_bytes))};
  }

  Result<Received> receive(std::span<const std::byte> collected, const Target& target) override {
    if (target.to.empty()) return Received{.staged = collected};
    return Received{.checksum = hash(parts(target.to, whole_block(pool_.block_bytes))), .staged = {}};
  }

 private:
  static uint64_t hash(std::span<const iovec> pieces) {
    Checksum sum;
    for (const auto& p : pieces) sum.update({static_cast<const std::byte*>(p.iov_base), p.iov_len});
    return sum.value();
  }
  // What lies together in the pool is one part.
  std::vector<iovec> parts(std::span<const int32_t> blocks, const Cut& cut) const {
    std::vector<iovec> out;
    for (auto b : blocks) {
      cut.for_each([&](size_t at, size_t length) {
        auto* begin = pool_[b].data() + at;
        if (!out.empty() && static_cast<std::byte*>(out.back().iov_base) + out.back().iov_len == begin) {
          out.back().iov_len += length;
        } else {
          out.push_back({begin, length});
        }
      });
    }
    return out;
  }
  BlockArray pool_;
};

}  // namespace

std::unique_ptr<Transport> make_tcp_transport(BlockArray pool) { return std::make_unique<TcpTransport>(pool); }

}  // namespace baton::transfer
