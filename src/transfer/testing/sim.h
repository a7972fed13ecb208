#pragma once
// Sim: a few transfer nodes, the network between them (sim_net.h) and a model of what their engines do, on virtual time in one
// thread, all from one seed. A step is one random operation (the rows of sim_ops_test.cc), some milliseconds, and one turn of
// every node. Checked all the time:
//   - every fetch and every grant ends exactly once; a fetch no later than its time-out after the last sign of the producer, a
//   grant
//     that nobody claims within its lease and grace; nothing ends before its time without a reason
//   - a block reported valid holds what the producer wrote for that prompt; refused are other prompts, forged, stale and foreign
//   grants
//   - blocks of an ended grant are overwritten at once: a reader that still takes them, or bytes still on their way, are noticed
//   - a destination is not touched after its event
//   - what nothing disturbed succeeds: faults between two nodes never touch a third
//   - at the end, once faults stop, all pairs connect again and nothing is left
// A failure is its seed (BATON_SIM_SEED=n replays it, BATON_SIM_TRACE=1 prints what happened).
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transfer/driven.h"
#include "transfer/testing/sim_net.h"

namespace baton::transfer::testing {

constexpr int kSimLeaseMs = 600, kSimFetchTimeoutMs = 400, kSimHoldMsMax = 1500;
constexpr int32_t kSimBlocks = 96;  // of a pool: the first half are offered, the second half fetched into

// Blocks of one prompt at a producer, shared by its grants as a prefix cache would.
struct SimPrompt {
  Digest digest{};
  uint64_t seed = 0;  // of the bytes
  std::vector<int32_t> blocks;
  int32_t n_tokens = 0;
  int grants = 0;
};

struct SimGrant {
  uint64_t request = 0;
  int producer = 0;
  Grant grant;
  std::shared_ptr<SimPrompt> prompt;
  int64_t offered_ms = 0, claimed_ms = 0;  // when somebody last had a reason to keep it alive
  int held_by = -1;
  int64_t held_ms = 0;
  bool hold_sure = false;  // made over a good connection, well within the lease
  int consumer = -1;       // the first that came for it, by hold or fetch
  bool shared = false;     // another, or the same once more, came too
  bool declined = false, released = false, ended = false;
  int fetched = 0, opened = 0;
};

struct SimFetch {
  uint64_t request = 0, op = 0;
  int consumer = 0;
  std::shared_ptr<SimGrant> grant;
  std::vector<int32_t> blocks;
  int32_t first_token = 0, n_tokens = 0;
  int64_t started_ms = 0, progress_ms = 0;
  bool must_fail = false, must_succeed = false, cancelled = false, delivered = true, opened = false, shm = false;
};

struct SimNode {
  int number = 0;
  std::unique_ptr<PoolMemory> pool;
  std::unique_ptr<Metrics> metrics;
  std::unique_ptr<DrivenNode> node;  // null: not running
  bool frozen = false, draining = false;
  int64_t woken_ms = 0;  // start, end of a freeze, or jump of time
  std::vector<int32_t> offered_free, target_free;
  std::map<uint64_t, std::shared_ptr<SimGrant>> grants;
  std::map<uint64_t, SimFetch> fetches;
  std::vector<std::shared_ptr<SimPrompt>> prompts;
};

class Sim final : public SimObserver {
 public:
  Sim(uint64_t seed, bool trace);
  ~Sim() override;
  void run(int steps);
  const std::string& failure() const { return failure_; }  // "" = none
  std::string story() const;                               // the last operations

  // For operations.
  Prng prng;
  SimNode* random_up();
  SimNode* other_up(int than);
  std::shared_ptr<SimGrant> random_grant();
  SimFetch* random_fetch();
  void offer(SimNode& at);
  void hold(SimGrant& grant, SimNode& by);
  void decline(SimGrant& grant, SimNode& by);
  SimFetch* fetch(std::shared_ptr<SimGrant> grant, SimNode& by, void (*twist)(Fetch&, Sim&) = nullptr);
  void cancel(SimFetch& fetch);
  void release(SimGrant& grant);
  void start(SimNode& node);
  void kill(SimNode& node);
  void freeze(SimNode& node, bool frozen);
  void advance(int64_t ms);
  void jump(int64_t ms);
  void quiet_turn();  // some milliseconds without anything new
  void disturb_node(int number);
  std::vector<std::string> addresses(int but);
  void note(std::string what);
  SimNet& net() { return net_; }
  std::vector<SimNode>& nodes() { return nodes_; }
  int64_t now_ms() const { return clock_.now_ms(); }

  struct Counts {
    uint64_t offers = 0, fetches = 0, complete = 0, sure = 0, partial = 0, failed = 0, refused = 0, expired = 0, released = 0,
             faults = 0;
    void operator+=(const Counts& other);
    std::string text() const;
  } counts;

  void sent(int consumer, int producer, FrameType type, std::span<const std::byte> body) override;
  void delivered(int consumer, int producer, uint64_t op) override;
  void disturbed(int consumer, int producer) override;

 private:
  void turn(SimNode& node);
  void turn_all();
  void on_fetched(SimNode& node, const Event& e);
  void on_grant_ended(SimNode& node, const Event& e);
  void check_time(SimNode& node);
  void check_poison(SimNode& node);
  void claim(SimGrant& grant, int by);
  SimFetch build_fetch(std::shared_ptr<SimGrant> grant, const SimNode& by);
  void expect(SimFetch& fetch, bool twisted);
  void finish();
  bool all_quiet();
  void hand_over_everywhere();
  Result<Fd> dial(int consumer, const Address& to);
  std::span<std::byte> block(const SimNode& node, int32_t b) const;
  void write_prompt(SimNode& node, const SimPrompt& prompt);
  bool holds_prompt(const SimNode& node, int32_t block, const SimPrompt& prompt, int32_t index) const;
  void forget_prompt(SimNode& node, const std::shared_ptr<SimPrompt>& prompt);
  bool connected(const SimNode& from, int to);
  bool calm(int consumer, int producer, int64_t since_ms) const;  // nothing disturbed the pair since, nor a while before
  void violation(std::string what);

  ManualClock clock_;
  kv::KvLayout layout_{.layers = 1, .kv_heads = 1, .head_dim = 16, .block_tokens = 16};
  bool trace_;
  std::string transport_;
  std::vector<SimNode> nodes_;
  SimNet net_;
  std::vector<std::vector<int64_t>> disturbed_ms_;  // [consumer][producer]
  uint64_t next_request_ = 1;
  int step_ = 0;
  std::deque<std::string> story_;
  std::string failure_;
};

struct SimOperation {
  const char* name;
  int weight;
  void (*run)(Sim&);
};
std::span<const SimOperation> sim_operations();

}  // namespace baton::transfer::testing
