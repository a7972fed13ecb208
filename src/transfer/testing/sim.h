#pragma once
// Sim: a few transfer nodes, the network between them (sim_net.h) and a model of what their engines do, on virtual time in one
// thread, all from one seed. A step is one random operation (the rows of sim_ops_test.cc), some milliseconds, and one turn of
// every node. Checked all the time:
//   - every fetch and every grant ends exactly once; a fetch no later than its time-out after the last sign of the producer, a
//     grant that nobody claims within its lease and grace; nothing ends before its time without a reason
//   - a block reported valid holds what the producer wrote for that prompt; refused are other prompts, forged, stale and foreign
//     grants
//   - blocks of an ended grant are overwritten at once: every block that leaves a producer must be what it wrote, whatever its
//     reader makes of it; no grant ends while the connection of a reader that maps its blocks is open and has not said CLOSE; no
//     reader takes blocks after the lease has ended. Each of these alone: the others, and checksums, would hide its loss
//   - a promise sends nothing before it is computed, and its reader learns the first token once, when it is there; a promise that
//     was refused before, or whose token was used, is never opened
//   - a destination is not touched after its event
//   - what nothing disturbed succeeds: faults between two nodes never touch a third
//   - at the end, once faults stop, all pairs connect again and nothing is left
// A failure is its seed (BATON_SIM_SEED=n replays it, BATON_SIM_TRACE=1 prints what happened).
#include <deque>
#include <map>
#include <memory>
#include <set>
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
  // How far a push is. kPlanned: its two legs know the token, and nothing more.
  enum class Push : uint8_t { kNo, kPlanned, kComputing, kComplete } push = Push::kNo;
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
  int64_t expired_ms = -1;
  int fetched = 0, opened = 0;
  // Of a push.
  Grant promised;  // as the producer named it
  int64_t promised_ms = 0, completed_ms = 0;
  int32_t ready = 0;  // tokens
  int32_t first_token = 0;
  uint64_t refused_by = 0;  // incarnation of the producer
  bool dead = false;        // promised after that: must end at once
};

struct SimFetch {
  uint64_t request = 0, wire = 0, op = 0;  // op 0: not sent yet
  int consumer = 0;
  Token token{};
  std::shared_ptr<SimGrant> grant;
  std::vector<int32_t> blocks;
  int32_t first_token = 0, n_tokens = 0;
  int64_t started_ms = 0, progress_ms = 0;
  bool must_fail = false, must_succeed = false, cancelled = false, delivered = true;
  bool push = false, completed = false;
};

// A FETCH or AWAIT, as the network saw it: what the producer may be serving.
struct SimReading {
  std::shared_ptr<SimGrant> grant;
  int32_t first_token = 0;
  Path path{};
  bool opened = false, closed = false;
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
  std::vector<Event> late;  // of grants, not looked at yet: the engine is in a step
  int64_t late_since_ms = 0;
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
  std::shared_ptr<SimGrant> random_plan();     // of an engine that is up
  std::shared_ptr<SimGrant> random_promise();  // that is computed and may go on
  void offer(SimNode& at);
  void hold(SimGrant& grant, SimNode& by);
  void decline(SimGrant& grant, SimNode& by);
  SimFetch* fetch(std::shared_ptr<SimGrant> grant, SimNode& by, void (*twist)(Fetch&, Sim&) = nullptr);
  void cancel(SimFetch& fetch);
  void release(SimGrant& grant);
  std::shared_ptr<SimGrant> plan(SimNode& producer);
  void promise(const std::shared_ptr<SimGrant>& plan);
  void refuse(SimGrant& plan);
  bool compute(SimGrant& promise, int32_t tokens);  // false: no blocks free
  void complete(SimGrant& promise);
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
             faults = 0, promises = 0, pushed = 0, push_sure = 0, dead = 0, gone = 0;
    void operator+=(const Counts& other);
    std::string text() const;
  } counts;

  void sent(const SimWire& wire, FrameType type, std::span<const std::byte> body) override;
  void delivered(const SimWire& wire, std::span<const uint64_t> ops) override;
  void closed(const SimWire& wire, uint64_t op) override;
  void disturbed(int consumer, int producer) override;
  void damaged(const SimWire& wire) override { damaged_.insert(wire.number); }

 private:
  void turn(SimNode& node);
  void turn_all();
  void poll(SimNode& node);
  void on_event(SimNode& node, const Event& e);
  void on_fetched(SimNode& node, const Event& e);
  void on_completion(SimNode& node, const Event& e);
  void on_grant_ended(SimNode& node, const Event& e);
  void on_asked(const SimWire& wire, const FetchMsg& message);
  void on_opened(SimReading& reading);
  SimReading* reading(const SimWire& wire, uint64_t op);
  void check_chunk(const SimReading& reading, std::span<const std::byte> body);
  void check_taken(const SimWire& wire, uint64_t op);
  void check_readers(const SimGrant& ended);
  void check_time(SimNode& node);
  void check_poison(SimNode& node);
  void claim(SimGrant& grant, int by);
  SimFetch build_fetch(std::shared_ptr<SimGrant> grant, const SimNode& by);
  void expect(SimFetch& fetch, bool twisted);
  bool alive(const SimGrant& grant, bool held) const;
  void finish();
  void finish_promises(SimNode& node);
  bool all_quiet();
  void hand_over_everywhere(bool push);
  Result<Fd> dial(int consumer, const Address& to);
  std::span<std::byte> block(const SimNode& node, int32_t b) const;
  std::vector<int32_t> take_blocks(SimNode& node, size_t count);
  std::shared_ptr<SimPrompt> new_prompt(size_t blocks);
  size_t blocks_of(int32_t tokens) const {
    return static_cast<size_t>((tokens + layout_.block_tokens - 1) / layout_.block_tokens);
  }
  void write_prompt(SimNode& node, const SimPrompt& prompt, size_t from, size_t to);
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
  std::map<Token, std::shared_ptr<SimGrant>> tokens_;
  std::map<std::pair<uint64_t, uint64_t>, SimReading> readings_;  // by wire and operation
  std::set<uint64_t> damaged_;                                    // wires
  std::vector<std::shared_ptr<SimGrant>> planned_;
  int64_t turned_ms_ = 0, before_ms_ = 0;  // when the nodes had their last turn, and the one before
  uint64_t next_request_ = 1;
  int step_ = 0;
  std::deque<std::string> story_;
  std::string failure_;
};

// What was written for a prompt, word by word.
uint64_t sim_word(uint64_t seed, int32_t index, size_t word);
bool is_block_of(std::span<const std::byte> bytes, const SimPrompt& prompt, int32_t index);

struct SimOperation {
  const char* name;
  int weight;
  void (*run)(Sim&);
};
std::span<const SimOperation> sim_operations();

}  // namespace baton::transfer::testing
