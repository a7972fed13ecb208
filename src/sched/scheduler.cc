#include "sched/scheduler.h"

#include <algorithm>
#include <compare>
#include <map>
#include <unordered_map>
#include <utility>

namespace baton::sched {
namespace {

using kv::BlockHash;
using kv::BlockId;

// Admissions leave 1/100 of the pool to the growth of those already admitted: without it a fresh prompt is soon preempted again.
constexpr int32_t kWatermarkDivisor = 100;

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
  int32_t num_computed = 0;  // includes what plans in flight compute
  int32_t num_cached = 0, num_external = 0, num_preemptions = 0;
  uint64_t admitted_step = 0;     // plans before this one speak of blocks the request has lost
  std::vector<int32_t> tokens;    // prompt + output
  std::vector<BlockId> blocks;    // covers at least all known tokens when admitted, so a prefill never stops half way for blocks
  std::vector<BlockHash> hashes;  // of the leading full blocks, as far as anyone needed them
  size_t hashed_blocks = 0;       // leading blocks the pool knows by hash

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  // 0 also while the next token is being computed, or when the last one is out and finish() is due.
  int32_t remaining() const { return num_tokens() < limit ? num_tokens() - num_computed : 0; }
};

// What admitting a request would take.
struct Admission {
  std::vector<BlockId> hits;
  int32_t fresh = 0;  // blocks to allocate
  int32_t fetch = 0;  // tokens to fetch from the peer
  bool fits = false;
};

}  // namespace

struct Scheduler::Core {
  Core(SchedulerConfig c, kv::BlockPool p, BlockHash r) : config(c), pool(std::move(p)), root(r) {}

  // Queries.
  int32_t blocks_for(int32_t tokens) const { return (tokens + config.block_tokens - 1) / config.block_tokens; }
  bool never_fits(int32_t tokens) const { return blocks_for(tokens) > pool.total(); }
  bool slot_free() const { return static_cast<int32_t>(running.size()) + num_remote < config.max_num_seqs; }
  Request* find(RequestId id);
  bool has_work();

  // Steps.
  void plan_running(StepPlan& plan, int32_t& budget);
  void plan_waiting(StepPlan& plan, int32_t& budget);
  int32_t chunk(const Request& r, int32_t remaining, int32_t budget) const;
  Request* victim_behind(const Request& r) const;
  bool passed_over(const Request& r, const Admission& a) const;
  int32_t grow(Request& r, int32_t n, StepPlan& plan);
  void schedule(Request& r, int32_t n, StepPlan& plan, int32_t& budget);
  Admission admission(Request& r);
  void admit(Request& r, const Admission& a, StepPlan& plan);
  void run(Request& r);
  void preempt(Request& victim, StepPlan& plan);

  // Blocks and endings.
  void extend_hashes(Request& r, size_t count);
  void cache_full_blocks(Request& r, int32_t computed);
  void free_blocks(Request& r);
  void end(Request& r, bool retain);

  const SchedulerConfig config;
  kv::BlockPool pool;
  const BlockHash root;
  std::unordered_map<RequestId, std::unique_ptr<Request>> requests;
  std::map<Order, Request*> waiting;  // kWaiting and kPreempted
  std::vector<Request*> running;      // FCFS: by admission; priority policy: by Order. The last is the first to be preempted.
  int32_t num_remote = 0;  // kWaitingRemote: holds blocks and a place among max_num_seqs, so it can run once it is done
  int32_t remote_computing_blocks = 0;  // held by fetches of prompts that a peer computes
  int32_t retained_blocks = 0;
  int64_t next_back = 0, next_front = -1;
  uint64_t step = 0;
  bool cut = false;  // the plan being made has cut a prompt to its chunk_tokens
  uint64_t prefix_queries = 0, prefix_hits = 0, preemptions = 0;
};

Request* Scheduler::Core::find(RequestId id) {
  auto it = requests.find(id);
  return it == requests.end() ? nullptr : it->second.get();
}

// The conditions of plan(): when true, the next plan is not empty; when false, only an add(), commit() or freed blocks change
// that.
bool Scheduler::Core::has_work() {
  bool starved = false;
  for (const Request* r : running) {
    if (r->remaining() == 0) continue;
    bool covered = blocks_for(r->num_computed + 1) <= static_cast<int32_t>(r->blocks.size());
    if (covered || pool.available() > 0 || never_fits(r->num_tokens())) return true;
    if (victim_behind(*r) != nullptr) return true;
    starved = true;  // it waits for retained, pinned or fetched blocks to come back; whoever is pinned behind it may still run
  }
  if (starved) return false;
  if (!slot_free()) return false;
  for (auto& [order, r] : waiting) {
    if (r->num_tokens() >= r->limit) continue;
    if (never_fits(r->num_tokens())) return true;
    Admission a = admission(*r);
    if (!passed_over(*r, a)) return a.fits;
  }
  return false;
}

int32_t Scheduler::Core::chunk(const Request& r, int32_t remaining, int32_t budget) const {
  int32_t n = std::min(remaining, budget);
  if (r.chunk_tokens > 0) n = std::min(n, r.chunk_tokens);
  return config.long_prefill_token_threshold > 0 ? std::min(n, config.long_prefill_token_threshold) : n;
}

void Scheduler::Core::plan_running(StepPlan& plan, int32_t& budget) {
  // A prefill leaves one token of the budget to each decode behind it, so a long prompt never pauses an answer being written.
  auto decodes_behind = static_cast<int32_t>(std::ranges::count_if(running, [](Request* r) { return r->remaining() == 1; }));
  for (size_t i = 0; i < running.size() && budget > 0; ++i) {
    Request& r = *running[i];
    int32_t remaining = r.remaining();
    if (remaining == 0 || (remaining > 1 && cut)) continue;
    if (remaining == 1) --decodes_behind;
    int32_t n = chunk(r, remaining, std::max(1, budget - decodes_behind));
    if (never_fits(r.num_computed + n)) {
      plan.exhausted.push_back(r.id);
      continue;
    }
    n = grow(r, n, plan);
    if (n > 0) schedule(r, n, plan, budget);
    cut = cut || (r.chunk_tokens > 0 && n > 0 && r.remaining() > 0);
  }
}

// The last of the running list that may be preempted, if it is behind r. Taking a pinned one would free nothing now.
Request* Scheduler::Core::victim_behind(const Request& r) const {
  for (auto it = running.rbegin(); it != running.rend() && *it != &r; ++it) {
    if (!(*it)->pinned) return *it;
  }
  return nullptr;
}

// Makes room for n more tokens, preempting from the end of the running list, and returns for how many there is room. If nobody is
// behind r, it keeps its blocks and waits: those before it and the retained, pinned and fetched blocks come back by themselves.
int32_t Scheduler::Core::grow(Request& r, int32_t n, StepPlan& plan) {
  int32_t need = blocks_for(r.num_computed + n) - static_cast<int32_t>(r.blocks.size());
  if (need <= 0) return n;
  for (Request* victim = nullptr; pool.available() < need && (victim = victim_behind(r)) != nullptr;) preempt(*victim, plan);
  if (auto got = pool.allocate(need)) {
    r.blocks.insert(r.blocks.end(), got->begin(), got->end());
    return n;
  }
  return std::clamp(static_cast<int32_t>(r.blocks.size()) * config.block_tokens - r.num_computed, 0, n);
}

void Scheduler::Core::schedule(Request& r, int32_t n, StepPlan& plan, int32_t& budget) {
  bool samples = r.num_computed + n == r.num_tokens();
  plan.seqs.push_back({.id = r.id, .first_position = r.num_computed, .n_tokens = n, .samples = samples, .blocks = r.blocks});
  plan.n_tokens += n;
  r.num_computed += n;
  budget -= n;
}

void Scheduler::Core::plan_waiting(StepPlan& plan, int32_t& budget) {
  for (auto it = waiting.begin(); it != waiting.end() && slot_free();) {
    Request& r = *it->second;
    if (r.num_tokens() >= r.limit) {
      ++it;
      continue;
    }
    // Who was admitted fits, and who outgrew the pool held all of it, so nobody preempted it; were that ever false, the queue
    // would hang.
    if (never_fits(r.num_tokens())) {
      plan.exhausted.push_back(r.id);
      ++it;
      continue;
    }
    Admission a = admission(r);
    if (passed_over(r, a)) {
      ++it;
      continue;
    }
    if (!a.fits) break;  // head-of-line blocking is intended: nobody overtakes
    if (a.fetch == 0) {
      int32_t remaining = r.num_tokens() - static_cast<int32_t>(a.hits.size()) * config.block_tokens;
      bool whole = !config.chunked_prefill && remaining <= config.max_num_batched_tokens;
      if (budget == 0 || cut || (whole && chunk(r, remaining, remaining) > budget)) break;
    }
    it = waiting.erase(it);
    admit(r, a, plan);
    if (r.state != State::kRunning) continue;
    schedule(r, chunk(r, r.remaining(), budget), plan, budget);
    cut = cut || (r.chunk_tokens > 0 && r.remaining() > 0);
  }
}

// Hits stop before the block of the last token, whose logits are wanted: that block is always the request's own.
Admission Scheduler::Core::admission(Request& r) {
  Admission a;
  size_t width = static_cast<size_t>(config.block_tokens);
  size_t full = r.tokens.size() / width;
  bool all_hit = false;
  if (pool.prefix_caching() && !r.skip_prefix_lookup) {
    extend_hashes(r, full);
    a.hits = pool.lookup(std::span(r.hashes).first(full));
    all_hit = full > 0 && a.hits.size() == full;
    a.hits.resize(std::min(a.hits.size(), (r.tokens.size() - 1) / width));
  }
  // With every full block here, computing the few tokens left takes one step; a fetch would take longer.
  if (r.remote_pending && !all_hit) a.fetch = std::max(0, r.remote_tokens - static_cast<int32_t>(a.hits.size() * width));
  a.fresh = blocks_for(r.num_tokens()) - static_cast<int32_t>(a.hits.size());
  bool alone = running.empty() && num_remote == 0;
  int32_t watermark = alone ? 0 : pool.total() / kWatermarkDivisor;
  a.fits = pool.available() - pool.free_among(a.hits) >= a.fresh + watermark;
  return a;
}

bool Scheduler::Core::passed_over(const Request& r, const Admission& a) const {
  if (!r.remote_computing || a.fetch == 0 || remote_computing_blocks == 0) return false;
  return int64_t{100} * (remote_computing_blocks + blocks_for(r.num_tokens())) > int64_t{config.remote_computing_percent} * pool.total();
}

void Scheduler::Core::admit(Request& r, const Admission& a, StepPlan& plan) {
  pool.ref(a.hits);  // before allocate(), which would evict them
  auto fresh = pool.allocate(a.fresh);
  BATON_CHECK(fresh.has_value());
  r.blocks = a.hits;
  r.blocks.insert(r.blocks.end(), fresh->begin(), fresh->end());
  r.hashed_blocks = a.hits.size();
  r.num_computed = static_cast<int32_t>(a.hits.size()) * config.block_tokens;
  r.admitted_step = plan.step;
  if (!std::exchange(r.admitted_before, true)) {
    r.num_cached = r.num_computed;
    if (pool.prefix_caching() && !r.skip_prefix_lookup) {
      prefix_queries += r.tokens.size();
      prefix_hits += static_cast<uint64_t>(r.num_cached);
    }
  }
  if (std::exchange(r.remote_pending, false)) {  // asked for once only: after a preemption it is recomputed here
    RemoteFetch fetch{.id = r.id, .first_token = r.num_computed, .n_tokens = a.fetch, .blocks = {}};
    if (a.fetch > 0) {
      auto first = r.blocks.begin() + r.num_computed / config.block_tokens;
      fetch.blocks.assign(first, r.blocks.begin() + blocks_for(r.remote_tokens));
      r.fetch_in_flight = true;
      r.state = State::kWaitingRemote;
      ++num_remote;
      if (r.remote_computing) remote_computing_blocks += static_cast<int32_t>(r.blocks.size());
    }
    plan.fetches.push_back(std::move(fetch));
    if (r.fetch_in_flight) return;
  }
  run(r);
}

void Scheduler::Core::run(Request& r) {
  r.state = State::kRunning;
  auto at = running.end();
  if (config.priority_policy) at = std::ranges::upper_bound(running, r.order, {}, &Request::order);
  running.insert(at, &r);
}

void Scheduler::Core::preempt(Request& r, StepPlan& plan) {
  std::erase(running, &r);
  free_blocks(r);
  r.num_computed = 0;
  r.state = State::kPreempted;
  ++r.num_preemptions;
  ++preemptions;
  if (!config.priority_policy) r.order.serial = next_front--;
  waiting.emplace(r.order, &r);
  plan.preempted.push_back(r.id);
}

void Scheduler::Core::extend_hashes(Request& r, size_t count) {
  size_t width = static_cast<size_t>(config.block_tokens);
  r.hashes.reserve(count);
  while (r.hashes.size() < count) {
    auto tokens = std::span<const int32_t>(r.tokens).subspan(r.hashes.size() * width, width);
    std::string_view salt = r.cache_salt;
    bool salted = r.hashes.empty() && !salt.empty();
    r.hashes.push_back(kv::block_hash(r.hashes.empty() ? root : r.hashes.back(), tokens, {&salt, salted ? 1u : 0u}));
  }
}

// Makes the full blocks among the first `computed` tokens findable.
void Scheduler::Core::cache_full_blocks(Request& r, int32_t computed) {
  size_t full = static_cast<size_t>(computed / config.block_tokens);
  if (!pool.prefix_caching() || full <= r.hashed_blocks) return;
  extend_hashes(r, full);
  pool.cache_chain(r.blocks, r.hashes, std::exchange(r.hashed_blocks, full), full, {nullptr, r.tokens, r.cache_salt}, config.block_tokens);
}

void Scheduler::Core::free_blocks(Request& r) {
  pool.unref(r.blocks);
  r.blocks.clear();
}

void Scheduler::Core::end(Request& r, bool retain) {
  switch (r.state) {
    case State::kWaiting:
    case State::kPreempted:
      waiting.erase(r.order);
      break;
    case State::kRunning:
      std::erase(running, &r);
      break;
    case State::kWaitingRemote:
      --num_remote;
      break;
    case State::kFinished:
      return;
  }
  r.state = State::kFinished;
  if (r.fetch_in_flight) return;  // remote_done() frees
  if ((retain || r.pinned) && !r.blocks.empty()) {
    retained_blocks += static_cast<int32_t>(r.blocks.size());
    return;
  }
  free_blocks(r);
  requests.erase(r.id);
}

Scheduler::Scheduler(SchedulerConfig config, kv::BlockPool pool, kv::BlockHash hash_root)
    : core_(std::make_unique<Core>(config, std::move(pool), hash_root)) {
  BATON_CHECK(config.max_num_batched_tokens > 0 && config.max_num_seqs > 0 && config.block_tokens > 0);
}

Scheduler::~Scheduler() = default;

Result<> Scheduler::add(NewRequest in) {
  Core& s = *core_;
  int32_t max_len = s.config.max_model_len;
  if (in.prompt.empty()) return fail(Code::kInvalidArgument, "the prompt is empty");
  if (std::cmp_greater_equal(in.prompt.size(), max_len)) {
    return fail(Code::kInvalidArgument, "the prompt has ", in.prompt.size(), " tokens; with at least 1 output token it exceeds ",
                "the maximum model length of ", max_len);
  }
  auto prompt = static_cast<int32_t>(in.prompt.size());
  if (in.max_tokens < 1) return fail(Code::kInvalidArgument, "max_tokens must be at least 1, got ", in.max_tokens);
  if (in.remote_tokens < 0 || in.remote_tokens > prompt) {
    return fail(Code::kInvalidArgument, "remote tokens ", in.remote_tokens, " lie outside the prompt of ", prompt, " tokens");
  }
  if (s.never_fits(prompt + 1)) {
    return fail(Code::kInvalidArgument, "the prompt of ", prompt, " tokens needs ", s.blocks_for(prompt + 1),
                " KV cache blocks and the cache has ", s.pool.total());
  }
  auto r = std::make_unique<Request>();
  r->id = in.id;
  r->order.serial = s.next_back++;
  if (s.config.priority_policy) {
    r->order.priority = in.priority;
    r->order.arrival = in.arrival;
  }
  r->cache_salt = std::move(in.cache_salt);
  r->skip_prefix_lookup = in.skip_prefix_lookup;
  r->retain_on_finish = in.retain_on_finish;
  r->chunk_tokens = s.config.chunked_prefill ? std::max(0, in.chunk_tokens) : 0;
  r->remote_pending = in.remote_tokens > 0;
  r->remote_computing = in.remote_computing;
  r->remote_tokens = in.remote_tokens;
  r->num_prompt = prompt;
  r->limit = in.max_tokens < max_len - prompt ? prompt + in.max_tokens : max_len;
  r->tokens = std::move(in.prompt);
  Request* added = r.get();
  if (!s.requests.try_emplace(in.id, std::move(r)).second) return fail(Code::kAlreadyExists, "request ", in.id, " exists");
  s.waiting.emplace(added->order, added);
  return {};
}

StepPlan Scheduler::plan() {
  StepPlan plan;
  plan.step = ++core_->step;
  plan.seqs.reserve(core_->running.size() + 1);
  int32_t budget = core_->config.max_num_batched_tokens;
  core_->cut = false;
  core_->plan_running(plan, budget);
  // Someone lacks blocks: whoever came in now would be the next to be preempted.
  bool starved = !plan.preempted.empty();
  if (!starved) core_->plan_waiting(plan, budget);
  return plan;
}

void Scheduler::commit(const StepPlan& plan, std::span<const int32_t> sampled) {
  size_t next = 0;
  for (const ScheduledSeq& seq : plan.seqs) {
    if (seq.samples) BATON_CHECK(next < sampled.size());
    int32_t token = seq.samples ? sampled[next++] : 0;
    Request* r = core_->find(seq.id);
    if (r == nullptr || r->state == State::kFinished) continue;  // ended while the step ran
    int32_t end = seq.first_position + seq.n_tokens;
    // Preempted since: the token is good all the same, the blocks are someone else's.
    if (r->state == State::kRunning && plan.step >= r->admitted_step) core_->cache_full_blocks(*r, end);
    if (seq.samples && end == r->num_tokens()) r->tokens.push_back(token);
  }
  BATON_CHECK(next == sampled.size());
}

bool Scheduler::remote_done(RequestId id, int32_t valid_tokens, std::optional<int32_t> first_token) {
  Request* r = core_->find(id);
  if (r == nullptr || !std::exchange(r->fetch_in_flight, false)) return false;
  if (r->remote_computing) core_->remote_computing_blocks -= static_cast<int32_t>(r->blocks.size());
  if (r->state == State::kFinished) {  // what arrived is whole: a retry of the same prompt may find it
    core_->cache_full_blocks(*r, std::clamp(valid_tokens, r->num_computed, r->remote_tokens));
    core_->free_blocks(*r);
    core_->requests.erase(id);
    return false;
  }
  int32_t local = r->num_computed;
  r->num_computed = std::clamp(valid_tokens, local, r->remote_tokens);
  r->num_external = r->num_computed - local;
  if (first_token) {
    r->tokens.push_back(*first_token);
  } else {
    r->num_computed = std::min(r->num_computed, r->num_prompt - 1);
  }
  core_->cache_full_blocks(*r, r->num_computed);
  --core_->num_remote;
  core_->run(*r);
  return true;
}

void Scheduler::finish(RequestId id) {
  Request* r = core_->find(id);
  if (r != nullptr) core_->end(*r, r->retain_on_finish);
}

void Scheduler::abort(RequestId id) {
  Request* r = core_->find(id);
  if (r != nullptr) core_->end(*r, false);
}

void Scheduler::pin(RequestId id) {
  Request* r = core_->find(id);
  if (r != nullptr && r->state == State::kRunning) r->pinned = true;
}

void Scheduler::release_retained(RequestId id) {
  Request* r = core_->find(id);
  if (r == nullptr) return;
  if (r->state != State::kFinished) r->pinned = r->retain_on_finish = false;
  if (r->state != State::kFinished || r->fetch_in_flight) return;
  core_->retained_blocks -= static_cast<int32_t>(r->blocks.size());
  core_->free_blocks(*r);
  core_->requests.erase(id);
}

std::optional<RequestView> Scheduler::view(RequestId id) const {
  const Request* r = core_->find(id);
  if (r == nullptr) return std::nullopt;
  return RequestView{.state = r->state,
                     .num_prompt = r->num_prompt,
                     .num_output = r->num_tokens() - r->num_prompt,
                     .num_computed = r->num_computed,
                     .num_cached = r->num_cached,
                     .num_external = r->num_external,
                     .num_preemptions = r->num_preemptions,
                     .blocks = r->blocks,
                     .tokens = r->tokens};
}

int32_t Scheduler::num_waiting() const { return static_cast<int32_t>(core_->waiting.size()) + core_->num_remote; }
int32_t Scheduler::num_waiting_remote() const { return core_->num_remote; }
int32_t Scheduler::num_running() const { return static_cast<int32_t>(core_->running.size()); }
int32_t Scheduler::num_retained_blocks() const { return core_->retained_blocks; }
bool Scheduler::has_work() const { return core_->has_work(); }
const kv::BlockPool& Scheduler::pool() const { return core_->pool; }
bool Scheduler::reset_prefix_cache() { return core_->pool.reset_prefix_cache(); }
std::vector<kv::CacheChange> Scheduler::take_cache_changes() { return core_->pool.take_changes(); }
uint64_t Scheduler::prefix_queries() const { return core_->prefix_queries; }
uint64_t Scheduler::prefix_hits() const { return core_->prefix_hits; }
uint64_t Scheduler::preemptions() const { return core_->preemptions; }

}  // namespace baton::sched
