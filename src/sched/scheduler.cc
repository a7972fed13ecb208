#include <algorithm>
#include <utility>

#include "sched/core.h"

namespace baton::sched {

using kv::BlockHash;

Request* Scheduler::Core::find(RequestId id) {
  auto it = requests.find(id);
  return it == requests.end() ? nullptr : it->second.get();
}

void Scheduler::Core::extend_hashes(Request& r, size_t count) {
  size_t width = static_cast<size_t>(config.block_tokens);
  r.hashes.reserve(count);
  while (r.hashes.size() < count) {
    auto tokens = std::span<const int32_t>(r.tokens).subspan(r.hashes.size() * width, width);
    const kv::ExtraKeys extra(r.adapter.get(), r.hashes.empty() ? std::string_view(r.cache_salt) : std::string_view());
    r.hashes.push_back(kv::block_hash(r.hashes.empty() ? root : r.hashes.back(), tokens, extra));
  }
}

// Makes the full blocks among the first `computed` tokens findable.
void Scheduler::Core::cache_full_blocks(Request& r, int32_t computed) {
  size_t full = static_cast<size_t>(computed / config.block_tokens);
  if (!pool.prefix_caching() || full <= r.hashed_blocks) return;
  extend_hashes(r, full);
  pool.cache_chain(r.blocks, r.hashes, std::exchange(r.hashed_blocks, full), full, {nullptr, r.tokens, r.cache_salt, r.adapter}, config.block_tokens);
}

void Scheduler::Core::free_blocks(Request& r) {
  pool.unref(r.blocks);
  r.blocks.clear();
}

void Scheduler::Core::free_beyond(Request& r, int32_t tokens) {
  const auto keep = static_cast<size_t>(blocks_for(tokens));
  if (r.blocks.size() <= keep) return;
  pool.unref(std::span(r.blocks).subspan(keep));
  r.blocks.resize(keep);
}

void Scheduler::Core::end(Request& r, bool retain) {
  switch (r.state) {
    case State::kWaiting:
    case State::kPreempted:
      waiting.erase(r.order);
      count_adapter(r, -1, 0);
      break;
    case State::kRunning:
      std::erase(running, &r);
      count_adapter(r, 0, -1);
      break;
    case State::kWaitingRemote:
      --num_remote;
      count_adapter(r, 0, -1);
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

// The request begins (or, below 0, ceases) to be one that waits, or one that runs or fetches.
void Scheduler::Core::count_adapter(const Request& r, int32_t more_waiting, int32_t more_active) {
  if (!r.adapter) return;
  AdapterUse& use = adapters[r.adapter->id];
  use.adapter = r.adapter;
  const bool was_active = use.active > 0;
  use.waiting += more_waiting;
  use.active += more_active;
  adapters_active += (use.active > 0) - was_active;
  if (use.waiting == 0 && use.active == 0) adapters.erase(r.adapter->id);
}

Scheduler::Scheduler(SchedulerConfig config, kv::BlockPool pool, kv::BlockHash hash_root)
    : core_(std::make_unique<Core>(config, std::move(pool), hash_root)) {
  BATON_CHECK(config.max_num_batched_tokens > 0 && config.max_num_seqs > 0 && config.block_tokens > 0 && config.max_loras > 0);
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
  r->adapter = std::move(in.adapter);
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
  s.count_adapter(*added, 1, 0);
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
  core_->plan_drafts(plan, budget);
  return plan;
}

void Scheduler::propose(RequestId id, std::span<const int32_t> drafts) {
  Request* r = core_->find(id);
  if (r == nullptr || r->state != State::kRunning || r->remaining() != 1) return;
  r->drafts.assign(drafts.begin(), drafts.end());
  core_->drafts_wait = core_->drafts_wait || !drafts.empty();
}

// tokens: what this part of a plan gave; all but the last of them are drafts that were right.
void Scheduler::Core::take(const ScheduledSeq& seq, uint64_t planned_step, std::span<const int32_t> tokens) {
  Request* r = find(seq.id);
  if (r == nullptr || r->state == State::kFinished) return;  // ended while the step ran
  const int32_t known = seq.first_position + seq.n_tokens - seq.n_drafts;
  int32_t good = known;  // computed, and part of the sequence
  if (seq.samples && known == r->num_tokens()) {
    r->tokens.insert(r->tokens.end(), tokens.begin(), tokens.end());
    r->drafts.clear();
    good += static_cast<int32_t>(tokens.size()) - 1;
  }
  // Preempted since: the tokens are good all the same, the blocks are someone else's.
  if (r->state != State::kRunning || planned_step < r->admitted_step) return;
  if (seq.n_drafts > 0) {  // KV of wrong drafts is overwritten by the next step
    r->num_computed = good;
    free_beyond(*r, r->num_tokens());
  }
  cache_full_blocks(*r, good);
}

void Scheduler::commit(const StepPlan& plan, std::span<const int32_t> sampled, std::span<const int32_t> counts) {
  size_t next = 0, next_count = 0;
  for (const ScheduledSeq& seq : plan.seqs) {
    size_t n = 0;
    if (seq.samples) {
      n = counts.empty() ? 1 : static_cast<size_t>(counts[next_count++]);
      BATON_CHECK(n >= 1 && n <= 1 + static_cast<size_t>(seq.n_drafts) && next + n <= sampled.size());
    }
    core_->take(seq, plan.step, sampled.subspan(next, n));
    next += n;
  }
  BATON_CHECK(next == sampled.size() && next_count == counts.size());
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
int32_t Scheduler::num_waiting_adapter() const {
  int32_t n = 0;
  if (core_->adapters_active < core_->config.max_loras) return n;
  for (const auto& [id, use] : core_->adapters) n += use.active == 0 ? use.waiting : 0;
  return n;
}
const std::map<int32_t, AdapterUse>& Scheduler::adapters() const { return core_->adapters; }
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
