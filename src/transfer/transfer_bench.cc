// What the paths move between two nodes of this machine, beside what the machine can do at all, measured in the same run: one
// memcpy for shm, one raw socket stream for tcp, ucx_perftest's active messages for ucx (package ucx-utils, where it is
// installed). Then a mesh: what a pair of peers costs. Prints value, unit, reference, ratio.
#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "base/prng.h"
#include "transfer/socket.h"
#include "transfer/transfer.h"
#include "transfer/ucx/fabric.h"

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

// As an engine has them a moment after its start: made ahead, in huge pages where there are some.
PoolMemory made_ahead(size_t bytes) {
  auto pool = *PoolMemory::create(bytes, "bench");
  std::memset(pool.bytes().data(), 1, bytes);
  pool.touch_in_background();
  pool.await_touched();
  return pool;
}

struct Side {
  Side(const std::string& transport, std::string id, std::vector<std::string> peers, size_t chunk_bytes)
      : pool(made_ahead(kBytes + kLayout.block_bytes())) {
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
  auto from = made_ahead(kBytes), to = made_ahead(kBytes);  // the same kind of pages
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

// ucx_perftest over loopback TCP with the settings that our worker has: GB/s, 0 where it is not installed.
double perftest_gigabytes_per_s() {
  constexpr const char* kRun =
      "command -v ucx_perftest >/dev/null || exit 1; export UCX_TCP_TX_SEG_SIZE=256k UCX_TCP_RX_SEG_SIZE=256k; "
      "ucx_perftest -p 13399 >/dev/null 2>&1 & server=$!; sleep 0.3; "
      "ucx_perftest 127.0.0.1 -p 13399 -t ucp_am_bw -s 1048576 -n 600 -w 50 -e -f 2>/dev/null; kill $server 2>/dev/null; wait";
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    auto* pipe = ::popen(kRun, "r");
    if (pipe == nullptr) return 0;
    char text[512];
    while (std::fgets(text, sizeof text, pipe) != nullptr) {
      double v[7] = {};  // iterations, percentile, average and overall latency, average and overall MB/s, ...
      if (std::sscanf(text, "%lf %lf %lf %lf %lf %lf %lf", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6) == 7)
        best = std::max(best, v[5] * 1048576e-9);
    }
    ::pclose(pipe);
  }
  return best;
}

size_t open_descriptors() {
  size_t n = 0;
  auto* dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) ++n;
  ::closedir(dir);
  return n;
}

double resident_kib() {
  std::ifstream in("/proc/self/status");
  double kib = 0;
  for (std::string word; in >> word;) {
    if (word == "VmRSS:") in >> kib;
  }
  return kib;
}

// One decode engine and so many prefill engines, all in this process, so a pair's cost is that of both its ends.
void mesh(const std::string& transport, int peers) {
  Metrics metrics;
  std::vector<PoolMemory> pools;
  std::vector<std::unique_ptr<TransferNode>> nodes;
  std::vector<std::string> addresses;
  auto add = [&](const std::string& id) {
    pools.push_back(*PoolMemory::create(32 * kLayout.block_bytes(), "mesh"));
    nodes.push_back(*TransferNode::start({.engine_id = id, .transport = transport}, kLayout, pools.back(), metrics));
  };
  for (int i = 0; i < peers; ++i) {
    add(cat("p", i));
    addresses.push_back(cat("127.0.0.1:", nodes.back()->port()));
  }
  add("d");
  auto descriptors = open_descriptors();
  auto memory = resident_kib();
  auto connected = [&] {
    auto all = nodes.back()->peers();
    return std::count_if(all.begin(), all.end(), [](const auto& p) { return p.state == "connected"; }) == peers;
  };
  auto seconds = seconds_of([&] {
    nodes.back()->set_peers(addresses);
    while (!connected()) ::poll(nullptr, 0, 1);
  });
  std::printf("mesh of %d peers over %-4s %6.2f ms a pair, %5.1f KiB and %.1f descriptors a pair (both ends), all after %.2f s\n",
              peers, transport.c_str(), seconds * 1e3 / peers, (resident_kib() - memory) / peers,
              static_cast<double>(open_descriptors() - descriptors) / peers, seconds);
}

void line(const char* what, double value, const char* unit, const char* reference, double ref) {
  std::printf("%-34s %8.2f %-5s  %-22s %8.2f  ratio %.2f\n", what, value, unit, reference, ref, value / ref);
}

void report() {
  auto blocks = static_cast<int32_t>(kBytes / kLayout.block_bytes());
  auto bytes = static_cast<double>(blocks) * static_cast<double>(kLayout.block_bytes());
  auto one = static_cast<double>(kLayout.block_bytes());
  auto copy = kBytes / memcpy_seconds() * 1e-9, stream = kBytes / socket_seconds() * 1e-9;
  for (size_t chunk : {1u << 20, 4u << 20}) {
    auto label = [&](const char* path) { return cat(path, " ", bytes / 1e6, " MB, chunks of ", chunk >> 20, " MiB"); };
    line(label("shm").c_str(), bytes / fetch_seconds("shm", blocks, chunk) * 1e-9, "GB/s", "memcpy GB/s", copy);
    line(label("tcp").c_str(), bytes / fetch_seconds("tcp", blocks, chunk) * 1e-9, "GB/s", "raw socket GB/s", stream);
  }
  if (ucx::built_in()) {
    auto perftest = perftest_gigabytes_per_s();
    line("ucx, chunks of 1 MiB", bytes / fetch_seconds("ucx", blocks, 1u << 20) * 1e-9, "GB/s", "ucx_perftest am GB/s", perftest);
    line("ucx one block", fetch_seconds("ucx", 1, 4u << 20) * 1e6, "us", "perftest's rate us", one / perftest * 1e-3);
  }
  // A short prompt is all latency: offer, FETCH, one chunk, events.
  line("shm one block", fetch_seconds("shm", 1, 4u << 20) * 1e6, "us", "memcpy us", one / copy * 1e-3);
  line("tcp one block", fetch_seconds("tcp", 1, 4u << 20) * 1e6, "us", "raw socket us", one / stream * 1e-3);
}

}  // namespace
}  // namespace baton::transfer

int main() {
  baton::log_setup("transfer_bench", baton::LogLevel::kError);
  baton::transfer::report();
  for (const auto* transport : {"shm", "tcp"}) baton::transfer::mesh(transport, 200);
}
