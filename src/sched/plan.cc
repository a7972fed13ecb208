// The scheduler's steps: who computes how many tokens, who comes in, who has to give blocks back.
#include <algorithm>
#include <utility>

#include "sched/core.h"

namespace baton::sched {
namespace {

// Admissions leave 1/100 of the pool to the growth of those already admitted: without it a fresh prompt is soon preempted again.
constexpr int32_t kWatermarkDivisor = 100;
// Plans after which a request that waits for a place among max_loras lets nobody with an adapter in before it, so that those in use
// come to an end. Half a minute at 60 ms a step.
constexpr uint64_t kAdapterPatience = 512;

}  // namespace

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
  bool hold_adapters = false;
  for (auto& [order, r] : waiting) {
    if (r->num_tokens() >= r->limit) continue;
    if (never_fits(r->num_tokens())) return true;
    if (r->adapter && (hold_adapters || adapter_waits(*r))) {
      hold_adapters = hold_adapters || impatient(*r, step + 1);
      continue;
    }
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

// Drafts get what nobody else wants: tokens left in the budget, blocks beyond the watermark, which they give back in commit(). A
// step that reads a prompt takes none: it is bound by arithmetic, so a draft there costs what it could save.
void Scheduler::Core::plan_drafts(StepPlan& plan, int32_t budget) {
  if (!std::exchange(drafts_wait, false)) return;
  if (std::cmp_not_equal(plan.n_tokens, plan.seqs.size()) || !plan.preempted.empty()) return;
  for (ScheduledSeq& seq : plan.seqs) {
    Request& r = *find(seq.id);
    if (r.drafts.empty()) continue;
    const int32_t spare = std::max(0, pool.available() - pool.total() / kWatermarkDivisor);
    const int64_t room = (static_cast<int64_t>(r.blocks.size()) + spare) * config.block_tokens - r.num_computed;
    int32_t n = std::min({static_cast<int32_t>(r.drafts.size()), budget, r.limit - r.num_tokens() - 1});
    n = static_cast<int32_t>(std::min<int64_t>(n, room));
    if (n <= 0) continue;
    const int32_t need = blocks_for(r.num_computed + n) - static_cast<int32_t>(r.blocks.size());
    if (need > 0) {
      const auto got = pool.allocate(need);
      BATON_CHECK(got.has_value());
      r.blocks.insert(r.blocks.end(), got->begin(), got->end());
      seq.blocks = r.blocks;
    }
    seq.n_drafts = n;
    seq.n_tokens += n;
    seq.drafts = std::span(r.drafts).first(static_cast<size_t>(n));
    plan.n_tokens += n;
    r.num_computed += n;
    budget -= n;
  }
}

void Scheduler::Core::plan_waiting(StepPlan& plan, int32_t& budget) {
  bool hold_adapters = false;
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
    if (r.adapter && (hold_adapters || adapter_waits(r))) {
      if (r.adapter_wait_step == 0) r.adapter_wait_step = step;
      hold_adapters = hold_adapters || impatient(r, step);
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
  return int64_t{100} * (remote_computing_blocks + blocks_for(r.num_tokens())) >
         int64_t{config.remote_computing_percent} * pool.total();
}

bool Scheduler::Core::adapter_waits(const Request& r) const {
  if (adapters_active < config.max_loras) return false;
  const auto use = adapters.find(r.adapter->id);
  return use == adapters.end() || use->second.active == 0;
}

bool Scheduler::Core::impatient(const Request& r, uint64_t at_step) const {
  return r.adapter_wait_step != 0 && at_step - r.adapter_wait_step >= kAdapterPatience;
}

void Scheduler::Core::admit(Request& r, const Admission& a, StepPlan& plan) {
  count_adapter(r, -1, 1);
  r.adapter_wait_step = 0;
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
  r.drafts.clear();
  r.state = State::kPreempted;
  count_adapter(r, 1, -1);
  ++r.num_preemptions;
  ++preemptions;
  if (!config.priority_policy) r.order.serial = next_front--;
  waiting.emplace(r.order, &r);
  plan.preempted.push_back(r.id);
}

}  // namespace baton::sched
