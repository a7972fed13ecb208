// What a process pays for UCX that does not use it: nothing. Each case runs in a process of its own (gtest's re-executed child),
// because other tests of this program do load it.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>

#include "base/log.h"
#include "transfer/testing/cluster.h"
#include "transfer/ucx/fabric.h"

#if __has_feature(address_sanitizer)
// UCX 1.13 leaves two of its own allocations behind when a program that loaded it ends.
extern "C" const char* __lsan_default_suppressions() { return "leak:libucs.so"; }
#elif __has_feature(thread_sanitizer)
// It sends what its reader no longer wants from blocks that may be written again meanwhile: the checksum is there for that
// (ucx_transport.cc: UcxSender).
extern "C" const char* __tsan_default_suppressions() { return "race:libucs.so\nrace:libuct.so\nrace:libucp.so"; }
#endif

namespace baton::transfer {
namespace {

using testing::Cluster;
using testing::TestNode;

bool ucx_is_mapped() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/libuc") != line.npos) return true;
  }
  return false;
}

// The first instructions of what UCX puts its hooks under, as libc has them.
std::string code_of_libc() {
  std::string out;
  void* libc = ::dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  for (const char* name : {"mmap", "munmap", "mremap", "brk", "sbrk", "madvise", "shmat", "shmdt"})
    out.append(static_cast<const char*>(::dlsym(libc, name)), 16);
  return out;
}

bool handled(int signal) {
  struct sigaction action{};
  ::sigaction(signal, nullptr, &action);
  return action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN;
}

[[noreturn]] void verdict(const std::string& wrong) {
  std::fprintf(stderr, "%s\n", wrong.c_str());
  std::exit(wrong.empty() ? 0 : 1);
}

Result<std::unique_ptr<TransferNode>> start(const std::string& transport, PoolMemory& pool, Metrics& metrics) {
  NodeOptions options;
  options.engine_id = "engine";
  options.transport = transport;
  return TransferNode::start(options, {.layers = 1, .kv_heads = 1, .head_dim = 16, .block_tokens = 16}, pool, metrics);
}

class UcxLibrary : public ::testing::Test {
 protected:
  UcxLibrary() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

void hand_over_without_ucx(const std::string& transport) {
  Prng prng(1);
  Cluster cluster{{.transport = transport}};
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  auto offered = p.offer_random(prng, 1);
  d.node->fetch(d.fetch_for(prng, offered, 0, offered.n_tokens));
  auto event = d.next(Event::Kind::kFetched);
  verdict(event.error ? event.error->message : ucx_is_mapped() ? "libuc* is mapped" : "");
}

TEST_F(UcxLibrary, IsNotMappedWhereKvGoesAnotherWay) {
  EXPECT_EXIT(hand_over_without_ucx("shm"), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(hand_over_without_ucx("tcp"), ::testing::ExitedWithCode(0), "");
  if (ucx::rdma_device_present()) return;
  EXPECT_EXIT(hand_over_without_ucx("auto"), ::testing::ExitedWithCode(0), "");
}

void use_ucx() {
  constexpr int kSignals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
  std::vector<bool> before;
  for (int s : kSignals) before.push_back(handled(s));
  auto code = code_of_libc();
  Metrics metrics;
  auto pool = PoolMemory::create(1u << 20, "baton-test-kv");
  auto node = start("ucx", *pool, metrics);
  if (!node) verdict(node.error().message);
  if (!ucx_is_mapped()) verdict("libuc* is not mapped");
  for (size_t i = 0; i < before.size(); ++i) {
    if (handled(kSignals[i]) != before[i]) verdict(cat("signal ", kSignals[i], " is handled by somebody else now"));
  }
  verdict(code == code_of_libc() ? "" : "libc's memory functions were patched");
}

TEST_F(UcxLibrary, IsLoadedOnceItIsAskedForAndLeavesSignalsAndMemoryFunctionsAlone) {
  if (testing::all_paths().size() < 4) GTEST_SKIP() << "no UCX in this build";
  ::unsetenv("UCX_MEM_MMAP_HOOK_MODE"), ::unsetenv("UCX_MEM_EVENTS"), ::unsetenv("UCX_ERROR_SIGNALS");
  EXPECT_EXIT(use_ucx(), ::testing::ExitedWithCode(0), "");
}

// A folder with a file of the library's name that is no library. The child makes one too on its way, and does not use it.
std::string make_decoy() {
  char folder[] = "/tmp/baton-ucx-XXXXXX";
  BATON_CHECK(::mkdtemp(folder) != nullptr);
  std::ofstream(cat(folder, "/libucp.so.0")) << "no library";
  return folder;
}
void remove_decoy(const std::string& folder) {
  ::unlink(cat(folder, "/libucp.so.0").c_str());
  ::rmdir(folder.c_str());
}

void ask_for_ucx() {
  Metrics metrics;
  auto pool = PoolMemory::create(1u << 20, "baton-test-kv");
  for (const char* other : {"shm", "tcp"}) {
    if (auto node = start(other, *pool, metrics); !node) verdict(cat(other, ": ", node.error().message));
  }
  auto node = start("ucx", *pool, metrics);
  std::fprintf(stderr, "%s\n", node ? "it started" : node.error().message.c_str());
  std::exit(0);
}

// The linker finds the decoy first.
TEST_F(UcxLibrary, WhereItCannotBeLoadedOnlyAskingForItByNameFails) {
  if (!ucx::built_in()) {
    EXPECT_EXIT(ask_for_ucx(), ::testing::ExitedWithCode(0), "built without UCX");
    return;
  }
  auto folder = make_decoy();
  const char* path = ::getenv("LD_LIBRARY_PATH");
  auto before = path == nullptr ? std::string() : std::string(path);
  ::setenv("LD_LIBRARY_PATH", folder.c_str(), 1);
  EXPECT_EXIT((remove_decoy(folder), ask_for_ucx()), ::testing::ExitedWithCode(0), "UCX cannot be loaded: .*libucp.so.0");
  path == nullptr ? ::unsetenv("LD_LIBRARY_PATH") : ::setenv("LD_LIBRARY_PATH", before.c_str(), 1);
  remove_decoy(folder);
}

}  // namespace
}  // namespace baton::transfer
