#include "transfer/shm/shm_transport.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "transfer/checksum.h"

namespace baton::transfer {

Result<PeerPool> PeerPool::map(const Fd& fd, uint64_t pool_bytes) {
  struct stat st{};
  int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return fail(Code::kPermissionDenied, "the peer's pool could shrink under us");
  if (::fstat(fd.get(), &st) != 0 || pool_bytes == 0 || static_cast<uint64_t>(st.st_size) < pool_bytes)
    return fail(Code::kOutOfRange, "the peer's pool is smaller than it says");
  PeerPool out;
  void* p = ::mmap(nullptr, pool_bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (p == MAP_FAILED) return fail(Code::kResourceExhausted, "map the peer's pool: ", std::strerror(errno));
  out.data_ = static_cast<const std::byte*>(p);
  out.size_ = pool_bytes;
  return out;
}

PeerPool::~PeerPool() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

namespace {

class ShmProducer final : public Transport {
 public:
  explicit ShmProducer(BlockArray pool) : pool_(pool) {}
  Path path() const override { return Path::kShm; }
  bool reader_touches_pool() const override { return true; }
  void send(Conn& conn, ChunkHead head, std::span<const int32_t> blocks) override {
    Checksum sum;
    for (auto b : blocks) sum.update(pool_[b]);
    head.checksum = sum.value();
    auto numbers = std::string(reinterpret_cast<const char*>(blocks.data()), blocks.size_bytes());
    conn.send(encode_chunk(head, numbers.size()) + numbers);
  }
  Result<Landing> landing(std::span<const int32_t>, size_t) override {
    return fail(Code::kInternal, "a producer receives nothing");
  }
  Result<uint64_t> receive(std::span<const std::byte>, std::span<const int32_t>) override {
    return fail(Code::kInternal, "a producer receives nothing");
  }

 private:
  BlockArray pool_;
};

class ShmConsumer final : public Transport {
 public:
  ShmConsumer(BlockArray pool, PeerPool peer) : pool_(pool), peer_(std::move(peer)) {}
  Path path() const override { return Path::kShm; }
  bool reader_touches_pool() const override { return true; }
  void send(Conn&, ChunkHead, std::span<const int32_t>) override { BATON_CHECK(false); }  // a consumer sends no blocks

  Result<Landing> landing(std::span<const int32_t> to, size_t payload_bytes) override {
    if (payload_bytes != to.size_bytes())
      return fail(Code::kOutOfRange, "chunk of ", to.size(), " blocks has ", payload_bytes, " bytes");
    return Landing{.kind = Landing::Kind::kCollect, .parts = {}};
  }

  Result<uint64_t> receive(std::span<const std::byte> collected, std::span<const int32_t> to) override {
    Checksum sum;
    for (size_t i = 0; i < to.size(); ++i) {
      uint32_t from = 0;
      std::memcpy(&from, collected.data() + i * sizeof from, sizeof from);
      if ((from + size_t{1}) * pool_.block_bytes > peer_.bytes().size())
        return fail(Code::kOutOfRange, "the peer named block ", from, ", which its pool does not have");
      sum.copy(pool_[to[i]].data(), peer_.bytes().subspan(from * pool_.block_bytes, pool_.block_bytes));
    }
    return sum.value();
  }

 private:
  BlockArray pool_;
  PeerPool peer_;
};

}  // namespace

std::unique_ptr<Transport> make_shm_producer(BlockArray pool) { return std::make_unique<ShmProducer>(pool); }
std::unique_ptr<Transport> make_shm_consumer(BlockArray pool, PeerPool peer) {
  return std::make_unique<ShmConsumer>(pool, std::move(peer));
}

}  // namespace baton::transfer
