#pragma once
// Test fixture: nodes in one process on loopback, with pools of recognisable bytes. No sleeps: everything waits for an event,
// with a deadline that only a hang reaches.
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/prng.h"
#include "transfer/transfer.h"

namespace baton::transfer::testing {

// Every way that blocks can travel here; "ucx_get" is ucx with one-sided reads, which no device needs to help with to be right.
std::vector<std::string> all_paths();

struct NodeSetup {
  std::string transport = "auto";  // or one of all_paths()
  int lease_ms = 30'000;
  int fetch_timeout_ms = 30'000;
  size_t chunk_bytes = 64u << 10;
  std::string fingerprint = "model-a";
  std::string secret = "s3cret";
  kv::KvLayout layout{.layers = 3, .kv_heads = 2, .head_dim = 32, .block_tokens = 16};  // 12 KiB a block
  int32_t blocks = 256;
  int port = 0;
  std::string engine_id = {};           // "" = one of its own
  std::vector<kv::KvShard> ranks = {};  // of the engine; layout is then that of `rank`
  int rank = 0;
};

struct Offered {
  uint64_t request = 0;
  std::vector<int32_t> blocks;
  int32_t n_tokens = 0;
  Digest digest{};
  Grant grant;
};

class TestNode {
 public:
  TestNode(const NodeSetup& setup, int number, std::vector<std::string> peers);
  ~TestNode();

  std::string address() const { return cat("127.0.0.1:", node->port()); }
  Offered offer_random(Prng& prng, uint64_t request, int32_t blocks_max = 24);
  // A promise under a token of its own; announce() then says how far it is computed.
  Offered promise_random(Prng& prng, uint64_t request, int32_t blocks_max = 24);
  void announce(const Offered& promised, int32_t ready_tokens) {
    node->progress(promised.request, promised.blocks, ready_tokens);
  }
  // A fetch of [first, first + n) into random blocks, which are filled with other bytes before.
  Fetch fetch_for(Prng& prng, const Offered& offered, int32_t first, int32_t n);
  Fetch fetch_into(const Offered& offered, int32_t first, int32_t n, std::vector<int32_t> blocks);
  ::testing::AssertionResult holds(const Fetch& fetch, const Offered& offered, const TestNode& producer,
                                   int32_t valid_tokens) const;
  std::span<std::byte> block(int32_t b) const {
    return pool.bytes().subspan(static_cast<size_t>(b) * layout.block_bytes(), layout.block_bytes());
  }

  Event next(Event::Kind kind);  // the next event of that kind; others are kept
  std::optional<Event> next_of(uint64_t request, Event::Kind kind, int timeout_ms = 60'000);
  size_t kept(Event::Kind kind);  // events not taken yet
  bool wait_peer(const std::string& address, const std::string& state);
  PeerStatus peer(const std::string& address) const;

  kv::KvLayout layout;
  PoolMemory pool;
  Metrics metrics;
  std::unique_ptr<TransferNode> node;

 private:
  Offered random_offer(Prng& prng, uint64_t request, int32_t blocks_max);
  void collect();
  std::mutex mutex_;
  std::condition_variable news_;
  bool woken_ = false;  // guarded by mutex_
  std::deque<Event> events_;
};

class Cluster {
 public:
  explicit Cluster(NodeSetup setup = {}) : setup_(std::move(setup)) {}
  TestNode& add(const std::vector<TestNode*>& peers = {});  // returns when it is connected to them
  TestNode& add(const NodeSetup& setup, const std::vector<std::string>& peers);
  // All ranks of an engine whose shapes are `ranks`, each connected to every one of `peers`.
  std::vector<TestNode*> add_engine(const std::string& engine_id, const std::vector<kv::KvShard>& ranks,
                                    const std::vector<TestNode*>& peers = {});
  void kill(TestNode& node);
  std::vector<std::unique_ptr<TestNode>> nodes;

 private:
  NodeSetup setup_;
};

}  // namespace baton::transfer::testing
