// What the two paths move between two nodes of this machine, beside what the machine can do at all: one memcpy for shm, one raw
// socket stream for tcp, measured in the same run. Prints value, unit, reference, ratio.
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "base/prng.h"
#include "transfer/socket.h"
#include "transfer/transfer.h"

namespace baton::transfer {
namespace {

constexpr size_t kBytes = 96u << 20;  // a 4,000 token prompt of SmolLM2-135M; beyond the L2 caches
constexpr int kRuns = 9;
const kv::KvLayout kLayout{.layers = 30, .kv_heads = 3, .head_dim = 64, .block_tokens = 16};  // SmolLM2-135M: 360 KiB a block

double seconds_of(auto&& fn) {
  auto begin = std::chrono::steady_clock::now();
  fn();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Best of several: on a shared machine the others are noise.
double best_of(auto&& fn) {
  double best = 1e9;
  for (int i = 0; i < kRuns; ++i) best = std::min(best, seconds_of(fn));
  return best;
}

struct Side {
  Side(const std::string& transport, std::string id, std::vector<std::string> peers, size_t chunk_bytes)
      : pool(*PoolMemory::create(kBytes + kLayout.block_bytes(), "bench")) {
    std::memset(pool.bytes().data(), 1, pool.bytes().size());
    NodeOptions o{.engine_id = id, .peers = peers, .transport = transport, .chunk_bytes = chunk_bytes};
    node = *TransferNode::start(o, kLayout, pool, metrics);
    node->set_wakeup([this] {
      std::scoped_lock lock(mutex);
      woken = true;
      news.notify_one();
    });
  }
  Event next() {
    std::unique_lock lock(mutex);
    while (true) {
      for (auto& e : node->poll()) return e;
      news.wait(lock, [this] { return std::exchange(woken, false); });
    }
  }
  PoolMemory pool;
  Metrics metrics;
  std::unique_ptr<TransferNode> node;
  std::mutex mutex;
  std::condition_variable news;
  bool woken = false;
};

double fetch_seconds(const std::string& transport, int32_t blocks, size_t chunk_bytes) {
  Side p(transport, "p", {}, chunk_bytes);
  Side d(transport, "d", {cat("127.0.0.1:", p.node->port())}, chunk_bytes);
  while (d.node->peers().empty() || d.node->peers()[0].state != "connected") std::this_thread::yield();
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < blocks; ++i) ids.push_back(i);
  auto tokens = blocks * kLayout.block_tokens;
  uint64_t request = 0;
  return best_of([&] {
    auto grant = p.node->offer({++request, ids, tokens, {}});
    d.node->fetch({.request = request, .grant = grant, .n_tokens = tokens, .blocks = ids});
    auto event = d.next();
    BATON_CHECK(!event.error);
    p.next();
  });
}

double memcpy_seconds() {
  auto from = *PoolMemory::create(kBytes, "from"), to = *PoolMemory::create(kBytes, "to");  // the same kind of pages
  std::memset(from.bytes().data(), 1, kBytes);
  std::memset(to.bytes().data(), 1, kBytes);
  return best_of([&] {
    std::memcpy(to.bytes().data(), from.bytes().data(), kBytes);
    asm volatile("" : : "r"(to.bytes().data()) : "memory");
  });
}

// One thread writes, one reads, 1 MiB at a time: what the kernel's loopback gives without any protocol.
double socket_seconds() {
  auto listener = *tcp_listen({"127.0.0.1", 0});
  auto out = *tcp_connect((*resolve({"127.0.0.1", *local_port(listener)}, true))[0]);
  pollfd w{listener.get(), POLLIN, 0};
  ::poll(&w, 1, -1);
  auto in = accept_on(listener);
  std::vector<std::byte> from(kBytes, std::byte{1}), to(kBytes);
  auto move_all = [](const Fd& fd, std::byte* at, short event, auto call) {
    for (size_t done = 0; done < kBytes;) {
      pollfd p{fd.get(), event, 0};
      ::poll(&p, 1, -1);
      auto n = call(fd.get(), at + done, std::min<size_t>(kBytes - done, 1u << 20));
      if (n > 0) done += static_cast<size_t>(n);
    }
  };
  return best_of([&] {
    std::thread writer(
        [&] { move_all(out, from.data(), POLLOUT, [](int fd, void* b, size_t n) { return ::send(fd, b, n, 0); }); });
    move_all(in, to.data(), POLLIN, [](int fd, void* b, size_t n) { return ::recv(fd, b, n, 0); });
    writer.join();
  });
}

void line(const char* what, double value, const char* unit, const char* reference, double ref) {
  std::printf("%-34s %8.2f %-5s  %-22s %8.2f  ratio %.2f\n", what, value, unit, reference, ref, value / ref);
}

void report() {
  auto blocks = static_cast<int32_t>(kBytes / kLayout.block_bytes());
  auto bytes = static_cast<double>(blocks) * static_cast<double>(kLayout.block_bytes());
  auto copy = kBytes / memcpy_seconds() * 1e-9, stream = kBytes / socket_seconds() * 1e-9;
  for (size_t chunk : {1u << 20, 4u << 20}) {
    auto label = [&](const char* path) { return cat(path, " ", bytes / 1e6, " MB, chunks of ", chunk >> 20, " MiB"); };
    line(label("shm").c_str(), bytes / fetch_seconds("shm", blocks, chunk) * 1e-9, "GB/s", "memcpy GB/s", copy);
    line(label("tcp").c_str(), bytes / fetch_seconds("tcp", blocks, chunk) * 1e-9, "GB/s", "raw socket GB/s", stream);
  }
  // A short prompt is all latency: offer, FETCH, one chunk, events.
  auto one = static_cast<double>(kLayout.block_bytes());
  line("shm one block", fetch_seconds("shm", 1, 4u << 20) * 1e6, "us", "memcpy us", one / copy * 1e-3);
  line("tcp one block", fetch_seconds("tcp", 1, 4u << 20) * 1e6, "us", "raw socket us", one / stream * 1e-3);
}

}  // namespace
}  // namespace baton::transfer

int main() {
  baton::log_setup("transfer_bench", baton::LogLevel::kError);
  baton::transfer::report();
}
