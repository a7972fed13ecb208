#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "transfer/transfer.h"

namespace baton::transfer {

Result<PoolMemory> PoolMemory::create(size_t bytes, const std::string& name) {
  if (bytes == 0) return fail(Code::kInvalidArgument, "an empty KV pool");
  PoolMemory out;
  out.fd_ = ::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (out.fd_ < 0) return fail(Code::kResourceExhausted, "memfd_create: ", std::strerror(errno));
  if (::ftruncate(out.fd_, static_cast<off_t>(bytes)) != 0)
    return fail(Code::kResourceExhausted, "KV pool of ", bytes, " bytes: ", std::strerror(errno));
  void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, out.fd_, 0);
  if (p == MAP_FAILED) return fail(Code::kResourceExhausted, "map a KV pool of ", bytes, " bytes: ", std::strerror(errno));
  out.data_ = static_cast<std::byte*>(p);
  out.size_ = bytes;
  ::madvise(p, bytes, MADV_HUGEPAGE);  // advice: fewer TLB misses where the kernel has huge pages for shared memory
  // A peer that maps this can neither write it (the present mapping keeps its right) nor be killed by SIGBUS because it shrank.
  if (::fcntl(out.fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) != 0)
    return fail(Code::kInternal, "seal the KV pool: ", std::strerror(errno));
  return out;
}

PoolMemory::PoolMemory(PoolMemory&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)), fd_(std::exchange(o.fd_, -1)) {}

PoolMemory& PoolMemory::operator=(PoolMemory&& o) noexcept {
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  std::swap(fd_, o.fd_);
  return *this;
}

PoolMemory::~PoolMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace baton::transfer
