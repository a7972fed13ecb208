#include "transfer/ucx/ucx_transport.h"

#include "transfer/checksum.h"

namespace baton::transfer::ucx {
namespace {

class UcxSender final : public Transport {
 public:
  UcxSender(BlockArray pool, Channel& channel) : pool_(pool), channel_(channel) {}
  Path path() const override { return Path::kUcx; }
  // UCX reads the pool until its message is through; what the reader no longer wants may change meanwhile, but while it wants it
  // the blocks must stay.
  bool reader_touches_pool() const override { return true; }

  // Neighbours in the pool are one message, which needs no list of pieces.
  void send(Conn&, ChunkHead head, std::span<const int32_t> blocks, const Cut& cut) override {
    for (size_t begin = 0, end = 0; begin < blocks.size(); begin = end) {
      Checksum sum;
      std::vector<iovec> parts;
      for (end = begin; end < blocks.size() && (end == begin || blocks[end] == blocks[end - 1] + 1); ++end)
        cut.for_each([&](size_t at, size_t length) { add(parts, pool_[blocks[end]].subspan(at, length)); });
      for (const auto& p : parts) sum.update({static_cast<const std::byte*>(p.iov_base), p.iov_len});
      auto one = head;
      one.first_block += static_cast<uint32_t>(begin);
      one.n_blocks = static_cast<uint32_t>(end - begin);
      one.block_bytes = one.n_blocks * cut.bytes();
      one.checksum = sum.value();
      channel_.send(one, std::move(parts));
    }
  }
  Result<Landing> landing(const Target&, size_t) override { return fail(Code::kInternal, "a producer receives nothing"); }
  Result<Received> receive(std::span<const std::byte>, const Target&) override {
    return fail(Code::kInternal, "a producer receives nothing");
  }

 private:
  static void add(std::vector<iovec>& parts, std::span<std::byte> piece) {
    if (!parts.empty() && static_cast<std::byte*>(parts.back().iov_base) + parts.back().iov_len == piece.data()) {
      parts.back().iov_len += piece.size();
    } else {
      parts.push_back({piece.data(), piece.size()});
    }
  }
  BlockArray pool_;
  Channel& channel_;
};

class UcxReceiver final : public Transport {
 public:
  UcxReceiver(Path path, Channel& channel, const RemotePool& peer) : path_(path), channel_(channel), peer_(peer) {}
  Path path() const override { return path_; }
  bool reader_touches_pool() const override { return true; }
  void send(Conn&, ChunkHead, std::span<const int32_t>, const Cut&) override {
    BATON_CHECK(false);
  }  // a consumer sends no blocks

  Result<Landing> landing(const Target& target, size_t payload_bytes) override {
    if (path_ != Path::kUcxGet) return fail(Code::kFailedPrecondition, "blocks on the control connection of a ucx pair");
    if (payload_bytes != target.n_blocks * sizeof(uint32_t) || target.n_blocks * target.cut.bytes() > target.payload_max)
      return fail(Code::kOutOfRange, "chunk of ", target.n_blocks, " blocks has ", payload_bytes, " bytes");
    return Landing{.kind = Landing::Kind::kCollect, .parts = {}};
  }

  Result<Received> receive(std::span<const std::byte> collected, const Target& target) override {
    std::vector<RemotePiece> pieces;
    for (size_t i = 0; i < target.n_blocks; ++i) {
      uint32_t from = 0;
      std::memcpy(&from, collected.data() + i * sizeof from, sizeof from);
      if ((from + uint64_t{1}) * peer_.block_bytes > peer_.bytes)
        return fail(Code::kOutOfRange, "the peer named block ", from, ", which its pool does not have");
      target.cut.for_each([&](size_t at, size_t length) {
        auto address = peer_.base + from * peer_.block_bytes + at;
        if (!pieces.empty() && pieces.back().address + pieces.back().length == address) {
          pieces.back().length += length;
        } else {
          pieces.push_back({address, length});
        }
      });
    }
    channel_.read(target.head, std::move(pieces));
    return Received{.staged = {}, .later = true};
  }

 private:
  Path path_;
  Channel& channel_;
  RemotePool peer_;
};

}  // namespace

std::unique_ptr<Transport> make_ucx_sender(BlockArray pool, Channel& channel) {
  return std::make_unique<UcxSender>(pool, channel);
}
std::unique_ptr<Transport> make_ucx_receiver(Path path, Channel& channel, const RemotePool& peer) {
  return std::make_unique<UcxReceiver>(path, channel, peer);
}

}  // namespace baton::transfer::ucx
