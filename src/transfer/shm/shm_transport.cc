#include "transfer/shm/shm_transport.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "transfer/checksum.h"
#include "transfer/transfer.h"

namespace baton::transfer {

Result<PeerPool> PeerPool::map(const Fd& fd, uint64_t pool_bytes) {
  struct stat st{};
  int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return fail(Code::kPermissionDenied, "the peer's pool could shrink under us");
  if (::fstat(fd.get(), &st) != 0 || pool_bytes == 0 || static_cast<uint64_t>(st.st_size) < pool_bytes)
    return fail(Code::kOutOfRange, "the peer's pool is smaller than it says");
  PeerPool out;
  BATON_TRY(const std::span<std::byte> mapped, map_pool(fd.get(), pool_bytes, PROT_READ));
  out.data_ = mapped.data();
  out.size_ = pool_bytes;
  return out;
}

PeerPool::~PeerPool() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

namespace {

class ShmProducer final : public Transport {
 public:
  ShmProducer(BlockArray pool, Path path) : pool_(pool), path_(path) {}
  Path path() const override { return path_; }
  bool reader_touches_pool() const override { return true; }
  void send(Conn& conn, ChunkHead head, std::span<const int32_t> blocks, const Cut& cut) override {
    Checksum sum;
    for (auto b : blocks) cut.for_each([&](size_t at, size_t length) { sum.update(pool_[b].subspan(at, length)); });
    head.checksum = sum.value();
    auto numbers = std::string(reinterpret_cast<const char*>(blocks.data()), blocks.size_bytes());
    conn.send(encode_chunk(head, numbers.size()) + numbers);
  }
  Result<Landing> landing(const Target&, size_t) override { return fail(Code::kInternal, "a producer receives nothing"); }
  Result<Received> receive(std::span<const std::byte>, const Target&) override {
    return fail(Code::kInternal, "a producer receives nothing");
  }

 private:
  BlockArray pool_;
  Path path_;
};

class ShmConsumer final : public Transport {
 public:
  ShmConsumer(BlockArray pool, PeerPool peer, size_t peer_block_bytes)
      : pool_(pool), peer_(std::move(peer)), peer_block_bytes_(peer_block_bytes) {}
  Path path() const override { return Path::kShm; }
  bool reader_touches_pool() const override { return true; }
  void send(Conn&, ChunkHead, std::span<const int32_t>, const Cut&) override {
    BATON_CHECK(false);
  }  // a consumer sends no blocks

  Result<Landing> landing(const Target& target, size_t payload_bytes) override {
    if (payload_bytes != target.n_blocks * sizeof(uint32_t) || target.n_blocks * target.cut.bytes() > target.payload_max)
      return fail(Code::kOutOfRange, "chunk of ", target.n_blocks, " blocks has ", payload_bytes, " bytes");
    return Landing{.kind = Landing::Kind::kCollect, .parts = {}};
  }

  Result<Received> receive(std::span<const std::byte> collected, const Target& target) override {
    Checksum sum;
    staged_.clear();
    for (size_t i = 0; i < target.n_blocks; ++i) {
      uint32_t from = 0;
      std::memcpy(&from, collected.data() + i * sizeof from, sizeof from);
      if ((from + size_t{1}) * peer_block_bytes_ > peer_.bytes().size())
        return fail(Code::kOutOfRange, "the peer named block ", from, ", which its pool does not have");
      auto block = peer_.bytes().subspan(from * peer_block_bytes_, peer_block_bytes_);
      auto* to = target.to.empty() ? nullptr : pool_[target.to[i]].data();
      target.cut.for_each([&](size_t at, size_t length) {
        auto piece = block.subspan(at, length);
        if (to == nullptr) return (void)staged_.insert(staged_.end(), piece.begin(), piece.end());
        sum.copy(to, piece);
        to += length;
      });
    }
    return Received{sum.value(), staged_};
  }

 private:
  BlockArray pool_;
  PeerPool peer_;
  size_t peer_block_bytes_;
  std::vector<std::byte> staged_;
};

}  // namespace

std::unique_ptr<Transport> make_shm_producer(BlockArray pool, Path path) { return std::make_unique<ShmProducer>(pool, path); }
std::unique_ptr<Transport> make_shm_consumer(BlockArray pool, PeerPool peer, size_t peer_block_bytes) {
  return std::make_unique<ShmConsumer>(pool, std::move(peer), peer_block_bytes);
}

}  // namespace baton::transfer
