#pragma once
// Scheduler::Core: a scheduler's state, for scheduler.cc (requests and their blocks) and plan.cc (steps) alone. Values and books
// of one step thread; what the members promise stands at Scheduler.
#include <algorithm>
#include <compare>
#include <map>
#include <unordered_map>

#include "sched/scheduler.h"

namespace baton::sched {

// Place in the queue, best first. FCFS uses serial alone: rising for new requests, falling for preempted ones, which go to the
// front.
struct Order {
  int64_t priority = 0;
  int64_t arrival = 0;
  int64_t serial = 0;
  auto operator<=>(const Order&) const = default;
};

struct Request {
  RequestId id = 0;
  State state = State::kWaiting;
  Order order;
  std::string cache_salt;
  std::shared_ptr<const kv::Adapter> adapter;
  uint64_t adapter_wait_step = 0;  // the plan that first passed it over for its adapter; 0: none
  bool skip_prefix_lookup = false;
  bool retain_on_finish = false;
  bool pinned = false;           // a peer may read its blocks: they must not be freed
  bool remote_pending = false;   // its KV is at a peer and nobody has asked for it yet
  bool fetch_in_flight = false;  // a peer may write into blocks: they must not be freed
  bool admitted_before = false;
  int32_t remote_tokens = 0;
  int32_t chunk_tokens = 0;
  bool remote_computing = false;
  int32_t num_prompt = 0;
  int32_t limit = 0;         // prompt + output tokens at most; the last of them is never computed
  int32_t num_computed = 0;  // includes what plans in flight compute, drafts too
  int32_t num_cached = 0, num_external = 0, num_preemptions = 0;
  uint64_t admitted_step = 0;   // plans before this one speak of blocks the request has lost
  std::vector<int32_t> tokens;  // prompt + output
  std::vector<int32_t> drafts;  // what may follow tokens; told by propose(), for the next step alone
  std::vector<kv::BlockId>
      blocks;  // covers at least all known tokens when admitted, so a prefill never stops half way for blocks
  std::vector<kv::BlockHash> hashes;  // of the leading full blocks, as far as anyone needed them
  size_t hashed_blocks = 0;           // leading blocks the pool knows by hash

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  // 0 also while the next token is being computed, or when the last one is out and finish() is due.
  int32_t remaining() const { return num_tokens() < limit ? std::max(0, num_tokens() - num_computed) : 0; }
};

// What admitting a request would take.
struct Admission {
  std::vector<kv::BlockId> hits;
  int32_t fresh = 0;  // blocks to allocate
  int32_t fetch = 0;  // tokens to fetch from the peer
  bool fits = false;
};

struct Scheduler::Core {
  Core(SchedulerConfig c, kv::BlockPool p, kv::BlockHash r) : config(c), pool(std::move(p)), root(r) {}

  // Queries.
  int32_t blocks_for(int32_t tokens) const { return (tokens + config.block_tokens - 1) / config.block_tokens; }
  bool never_fits(int32_t tokens) const { return blocks_for(tokens) > pool.total(); }
  bool slot_free() const { return static_cast<int32_t>(running.size()) + num_remote < config.max_num_seqs; }
  Request* find(RequestId id);
  bool has_work();

  // Steps.
  void plan_running(StepPlan& plan, int32_t& budget);
  void plan_waiting(StepPlan& plan, int32_t& budget);
  void plan_drafts(StepPlan& plan, int32_t budget);
  int32_t chunk(const Request& r, int32_t remaining, int32_t budget) const;
  Request* victim_behind(const Request& r) const;
  bool passed_over(const Request& r, const Admission& a) const;
  bool adapter_waits(const Request& r) const;
  bool impatient(const Request& r, uint64_t at_step) const;
  void count_adapter(const Request& r, int32_t waiting, int32_t active);
  int32_t grow(Request& r, int32_t n, StepPlan& plan);
  void schedule(Request& r, int32_t n, StepPlan& plan, int32_t& budget);
  Admission admission(Request& r);
  void admit(Request& r, const Admission& a, StepPlan& plan);
  void run(Request& r);
  void preempt(Request& victim, StepPlan& plan);
  void take(const ScheduledSeq& seq, uint64_t planned_step, std::span<const int32_t> tokens);

  // Blocks and endings.
  void extend_hashes(Request& r, size_t count);
  void cache_full_blocks(Request& r, int32_t computed);
  void free_blocks(Request& r);
  void free_beyond(Request& r, int32_t tokens);
  void end(Request& r, bool retain);

  const SchedulerConfig config;
  kv::BlockPool pool;
  const kv::BlockHash root;
  std::unordered_map<RequestId, std::unique_ptr<Request>> requests;
  std::map<Order, Request*> waiting;  // kWaiting and kPreempted
  std::vector<Request*> running;      // FCFS: by admission; priority policy: by Order. The last is the first to be preempted.
  int32_t num_remote = 0;  // kWaitingRemote: holds blocks and a place among max_num_seqs, so it can run once it is done
  int32_t remote_computing_blocks = 0;  // held by fetches of prompts that a peer computes
  int32_t retained_blocks = 0;
  std::map<int32_t, AdapterUse> adapters;
  int32_t adapters_active = 0;  // of these, with a request that is
  int64_t next_back = 0, next_front = -1;
  uint64_t step = 0;
  bool drafts_wait = false;  // somebody has proposed drafts since the last plan
  bool cut = false;          // the plan being made has cut a prompt to its chunk_tokens
  uint64_t prefix_queries = 0, prefix_hits = 0, preemptions = 0;
};

}  // namespace baton::sched
