#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <thread>

#include "base/log.h"
#include "transfer/transfer.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace baton::transfer {
namespace {

constexpr size_t kHugePage = 2u << 20;

// Shared memory gets huge pages of itself only where /sys/kernel/mm/transparent_hugepage/shmem_enabled says so, and it mostly says
// never. Collapsing what has at least one page needs nobody's leave.
bool make_huge(std::byte* at, size_t bytes) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  for (size_t i = 0; i < bytes; i += kHugePage) ::madvise(at + i, page, MADV_POPULATE_WRITE);
  return ::madvise(at, bytes, MADV_COLLAPSE) == 0;
}

}  // namespace

Result<std::span<std::byte>> map_pool(int fd, size_t bytes, int rights) {
  const auto refused = [&] { return fail(Code::kResourceExhausted, "map a KV pool of ", bytes, " bytes: ", std::strerror(errno)); };
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  if (bytes > SIZE_MAX / 2) return fail(Code::kResourceExhausted, "a KV pool of ", bytes, " bytes");
  const size_t size = (bytes + page - 1) / page * page;
  void* const room = ::mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return refused();
  const auto start = reinterpret_cast<uintptr_t>(room), at = (start + kHugePage - 1) / kHugePage * kHugePage;
  auto* const data = reinterpret_cast<std::byte*>(at);
  const int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
  if (::mmap(data, size, rights, kind | MAP_FIXED, fd, 0) == MAP_FAILED) {
    const auto out = refused();
    ::munmap(room, size + kHugePage);
    return out;
  }
  if (at > start) ::munmap(room, at - start);
  if (start + kHugePage > at) ::munmap(data + size, start + kHugePage - at);
  ::madvise(data, size, MADV_HUGEPAGE);
  return std::span(data, bytes);
}

// Pages are made in order, a slice at a time, by as many threads as the machine has cores. SCHED_IDLE: they run only where
// nothing else wants to.
class PoolMemory::Toucher {
 public:
  explicit Toucher(std::span<std::byte> memory) : memory_(memory) {
    auto n = std::clamp<unsigned>(std::thread::hardware_concurrency(), 1, kThreadsMax);
    left_ = static_cast<int>(n);
    for (unsigned i = 0; i < n; ++i) threads_.emplace_back([this] { run(); });
  }
  ~Toucher() {
    stop_ = true;
    await();
  }
  void await() {
    for (auto& t : threads_)
      if (t.joinable()) t.join();
  }

 private:
  static constexpr unsigned kThreadsMax = 16;
  static constexpr size_t kSliceBytes = 8u << 20;  // some milliseconds
  static constexpr double kLeaveFree = 0.25;       // of the machine's memory: below it, pages wait until somebody needs them

  void run() {
    sched_param idle{};
    ::pthread_setschedparam(::pthread_self(), SCHED_IDLE, &idle);
    ::pthread_setname_np(::pthread_self(), "kv-touch");
    while (!stop_) {
      auto at = next_.fetch_add(kSliceBytes);
      if (at >= memory_.size()) break;
      auto n = std::min(kSliceBytes, memory_.size() - at);
      const bool room = memory_to_spare();
      const size_t whole = n / kHugePage * kHugePage;
      if (room && whole > 0 && make_huge(memory_.data() + at, whole)) huge_ += whole;
      if (!room || ::madvise(memory_.data() + at, n, MADV_POPULATE_WRITE) != 0) {
        stop_ = true;
      } else {
        done_ += n;
      }
    }
    if (--left_ == 0)
      log_debug("kv pool touched", "mib={} in_huge_pages={} of_mib={} seconds={:.2f}", done_ >> 20, huge_ >> 20, memory_.size() >> 20,
                std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count());
  }
  static bool memory_to_spare() {
    std::ifstream in("/proc/meminfo");
    double total = 0, available = 0, kib = 0;
    for (std::string key, unit; in >> key >> kib && std::getline(in, unit);) {
      if (key == "MemTotal:") total = kib;
      if (key == "MemAvailable:") available = kib;
    }
    return available > total * kLeaveFree;
  }

  std::span<std::byte> memory_;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::atomic<size_t> next_{0}, done_{0}, huge_{0};
  std::atomic<int> left_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

void PoolMemory::touch_in_background() {
  // No more than an eighth of the machine's memory: several engines share a small machine, and the rest comes as it is needed.
  auto share = static_cast<size_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(::sysconf(_SC_PAGESIZE)) / 8;
  if (!toucher_) toucher_ = std::make_unique<Toucher>(bytes().first(std::min(size_, share)));
}

void PoolMemory::await_touched() {
  if (toucher_) toucher_->await();
}

Result<PoolMemory> PoolMemory::create(size_t bytes, const std::string& name, Sharing sharing) {
  if (bytes == 0) return fail(Code::kInvalidArgument, "an empty KV pool");
  PoolMemory out;
  if (sharing != Sharing::kNobody) {
    out.fd_ = ::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (out.fd_ < 0) return fail(Code::kResourceExhausted, "memfd_create: ", std::strerror(errno));
    if (::ftruncate(out.fd_, static_cast<off_t>(bytes)) != 0)
      return fail(Code::kResourceExhausted, "KV pool of ", bytes, " bytes: ", std::strerror(errno));
  }
  BATON_TRY(const std::span<std::byte> mapped, map_pool(out.fd_, bytes, PROT_READ | PROT_WRITE));
  out.data_ = mapped.data();
  out.size_ = bytes;
  if (sharing == Sharing::kReaders) BATON_OK(out.seal());
  return out;
}

// A peer that maps this can neither write it (present mappings keep their right) nor be killed by SIGBUS because it shrank.
Result<> PoolMemory::seal() {
  if (::fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) != 0)
    return fail(Code::kInternal, "seal the KV pool: ", std::strerror(errno));
  return {};
}

PoolMemory::PoolMemory(PoolMemory&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)),
      size_(std::exchange(o.size_, 0)),
      fd_(std::exchange(o.fd_, -1)),
      toucher_(std::move(o.toucher_)) {}

PoolMemory& PoolMemory::operator=(PoolMemory&& o) noexcept {
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  std::swap(fd_, o.fd_);
  std::swap(toucher_, o.toucher_);
  return *this;
}

PoolMemory::~PoolMemory() {
  toucher_.reset();
  if (data_ != nullptr) ::munmap(data_, size_);
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace baton::transfer
