#include "engine/core.h"

#include <algorithm>
#include <bit>

#include "base/log.h"
#include "engine/sequence.h"

namespace baton::engine {

namespace {

int32_t blocks_of(int32_t tokens, int32_t block_tokens) { return (tokens + block_tokens - 1) / block_tokens; }

}  // namespace

Digest token_digest(std::span<const int32_t> tokens) {
  static_assert(std::endian::native == std::endian::little);
  return sha256({reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()});
}

Digest prompt_digest(const Submission& s, size_t n_tokens) {
  const std::span<const int32_t> tokens = std::span(s.prompt).first(n_tokens);
  if (!s.adapter) return token_digest(tokens);
  return Sha256().update({reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()}).update(s.adapter->key.digest).finish();
}

Core::Core(CoreOptions options, model::Model& model, kv::BlockPool pool, transfer::TransferNode* node, EngineMetrics& metrics,
           const Clock& clock)
    : options_(std::move(options)),
      model_(model),
      node_(node),
      metrics_(metrics),
      clock_(clock),
      scheduler_(options_.scheduler, std::move(pool), options_.hash_root) {
  if (options_.on_cache_changes) (void)scheduler_.take_cache_changes();
}

Core::~Core() = default;

Core::Sequence* Core::find(sched::RequestId id) {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

// What can be refused before the scheduler sees it.
Result<> Core::admit(const Submission& s) {
  if (refusal_) return std::unexpected(*refusal_);
  if (sequences_.size() + static_cast<size_t>(s.n) > kSequencesMax) {
    return fail(Code::kResourceExhausted, "too many sequences wait: the limit is ", kSequencesMax);
  }
  if (s.prefill_leg) {
    const int64_t held = prefill_blocks_ + scheduler_.num_retained_blocks();
    const int64_t wanted = blocks_of(static_cast<int32_t>(s.prompt.size()), options_.scheduler.block_tokens);
    const auto budget = static_cast<int64_t>(options_.retained_share_max * scheduler_.pool().total());
    // One hand-over always fits, or a prompt longer than the budget could never be served.
    if (held > 0 && held + wanted > budget) {
      return fail(Code::kUnavailable, "prefill worker is full: ", held, " KV blocks wait for decode workers, the budget is ",
                  budget);
    }
  }
  if (s.cache_hit_threshold && *s.cache_hit_threshold > 0) {
    const auto chain = kv::hash_chain(options_.hash_root, s.prompt, options_.scheduler.block_tokens, s.cache_salt,
                                      s.adapter ? &s.adapter->key : nullptr);
    const double hit = static_cast<double>(scheduler_.pool().lookup(chain).size()) * options_.scheduler.block_tokens;
    if (hit < *s.cache_hit_threshold * static_cast<double>(s.prompt.size()))
      return fail(Code::kFailedPrecondition, "cache_threshold");
  }
  return {};
}

void Core::submit(Submission submission) {
  auto group = std::make_shared<Group>();
  group->submission = std::move(submission);
  const Submission& s = group->submission;
  group->live = s.n;
  group->grant.node = node_;
  if (s.remote) {
    group->grant.grant = s.remote->grant;
    node_->hold(s.remote->grant);  // it may queue for longer than the lease
    metrics_.external_queries.inc(s.remote->n_tokens);
  }
  if (auto ok = admit(s); !ok) {
    for (int32_t i = 0; i < s.n; ++i) {
      TokenEvent event{.choice = s.first_choice + i};
      const bool below = ok.error().code == Code::kFailedPrecondition;
      event.finish = below ? Finish::kCacheThreshold : Finish::kError;
      if (below)
        event.first = std::make_unique<FirstToken>();
      else
        event.error = ok.error();
      metrics_.finished(event.finish).inc();
      s.out->push(std::move(event));
    }
    break_promise(s);
    return;
  }
  // Siblings wait for the first sequence's prompt, which the prefix cache then gives them for nothing.
  group->siblings_wait = options_.prefix_caching && s.n > 1;
  start_sequence(group, 0);
  if (!group->siblings_wait) start_siblings(group);
}

void Core::start_siblings(const std::shared_ptr<Group>& group) {
  group->siblings_wait = false;
  for (int32_t i = 1; i < group->submission.n; ++i) {
    if (!group->aborted) start_sequence(group, i);
  }
}

void Core::start_sequence(const std::shared_ptr<Group>& group, int32_t index) {
  const Submission& s = group->submission;
  SamplingParams sampling = s.sampling;
  sampling.seed += static_cast<uint64_t>(index);
  auto owned = std::make_unique<Sequence>(group, index, Sampler(std::move(sampling), s.prompt));
  Sequence& seq = *owned;
  if (s.constraint)
    seq.sampler.constrain(grammar::Matcher(walkers_.of(s.constraint), s.constraint_begin), s.end_ids, s.ignore_eos);
  sequences_[seq.id] = std::move(owned);
  seq.queued_ns = clock_.now_ns();
  seq.promised = s.promised && index == 0;
  if (s.prefill_leg) {
    seq.reserved_blocks = blocks_of(static_cast<int32_t>(s.prompt.size()), options_.scheduler.block_tokens);
    prefill_blocks_ += seq.reserved_blocks;
  }
  auto added = scheduler_.add({
      .id = seq.id,
      .prompt = s.prompt,
      .max_tokens = s.max_tokens,
      .priority = s.priority,
      .arrival = arrivals_++,
      .cache_salt = s.cache_salt,
      .adapter = s.adapter ? std::shared_ptr<const kv::Adapter>(s.adapter, &s.adapter->key) : nullptr,
      .skip_prefix_lookup = s.prompt_logprobs.has_value() || s.pooling == Pooling::kMean || s.pooling == Pooling::kCls,
      .remote_tokens = index == 0 && s.remote ? s.remote->n_tokens : 0,
      .retain_on_finish = s.prefill_leg,
      .chunk_tokens = seq.promised ? options_.push_chunk_tokens : 0,
      .remote_computing = index == 0 && s.remote && s.remote->push,
  });
  if (!added) end_with_error(seq, added.error());
}

void Core::drop(sched::RequestId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  prefill_blocks_ -= it->second->reserved_blocks;
  sequences_.erase(it);
}

void Core::abort(uint64_t first_id, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    const sched::RequestId id = first_id + static_cast<uint64_t>(i);
    Sequence* seq = find(id);
    if (!seq) continue;
    seq->group->aborted = true;
    stop_fetch(id);
    scheduler_.abort(id);
    break_promise(seq->group->submission);
    observe_end(*seq, Finish::kAbort);
    drop(id);
  }
  update_gauges();
}

void Core::finish_on_stop_string(uint64_t id) {
  Sequence* seq = find(id);
  if (!seq) return;
  stop_fetch(id);
  scheduler_.finish(id);
  observe_end(*seq, Finish::kStop);
  drop(id);
}

void Core::release_grant(uint64_t id) {
  if (node_) node_->release(id);
}

void Core::decline(const transfer::Grant& grant) {
  if (node_) node_->decline(grant);
}

void Core::refuse(const Error& error) {
  refusal_ = error;
  while (!sequences_.empty()) end_with_error(*sequences_.begin()->second, error);
}

// ---- KV from peers

bool Core::poll_transfers() {
  if (!node_) return false;
  const std::vector<transfer::Event> events = node_->poll();
  for (const transfer::Event& event : events) {
    using Kind = transfer::Event::Kind;
    if (event.kind == Kind::kFetched) {
      on_fetched(event);
      continue;
    }
    if (event.kind == Kind::kCompletion) {
      on_completion(event);
      continue;
    }
    if (event.kind == Kind::kGrantExpired)
      log_warn("kv grant expired before a decode worker took it", "request={}", event.request);
    if (Sequence* seq = find(event.request)) seq->promised = false;  // its reader is gone: nothing to keep for it
    scheduler_.release_retained(event.request);
  }
  if (!events.empty() && options_.on_transfer_events) options_.on_transfer_events();
  return !events.empty();
}

void Core::mark_scheduled(Sequence& seq) {
  if (seq.scheduled_ns == 0) seq.scheduled_ns = clock_.now_ns();
}

void Core::start_fetch(sched::RemoteFetch fetch) {
  Sequence* seq = find(fetch.id);
  BATON_CHECK(seq && seq->group->submission.remote);
  mark_scheduled(*seq);
  seq->fetch_ns = clock_.now_ns();
  if (fetch.n_tokens == 0) {  // every full block is here; what is left is an ordinary step of this very plan
    seq->group->grant.decline();
    seq->fetched_ns = seq->fetch_ns;
    seq->remote_used = true;
    seq->transport = "local";
    return;
  }
  const RemotePrompt& remote = *seq->group->submission.remote;
  seq->group->grant.grant.reset();  // the fetch owns it from here
  node_->fetch({.request = fetch.id,
                .grant = remote.grant,
                .prompt_digest = remote.digest,
                .first_token = fetch.first_token,
                .n_tokens = fetch.n_tokens,
                .blocks = fetch.blocks,
                .push = remote.push});
  fetches_[fetch.id] = std::move(fetch);
}

void Core::on_fetched(const transfer::Event& event) {
  const auto it = fetches_.find(event.request);
  if (it == fetches_.end()) return;
  const sched::RemoteFetch fetch = std::move(it->second);
  fetches_.erase(it);
  const int32_t valid = std::clamp(event.valid_tokens, 0, fetch.n_tokens);
  metrics_.external_hits.inc(valid);
  Sequence* seq = find(event.request);
  if (!seq) {
    scheduler_.remote_done(event.request, fetch.first_token + valid, std::nullopt);  // ended meanwhile: frees the blocks
    return;
  }
  seq->external_tokens = valid;
  seq->external_bytes = static_cast<int64_t>(event.bytes);
  seq->transport = event.transport;
  remote_ready(*seq, fetch.first_token + valid, event.error);
}

void Core::remote_ready(Sequence& seq, int32_t valid_tokens, const std::optional<Error>& error) {
  const sched::RequestId id = seq.id;
  const RemotePrompt& remote = *seq.group->submission.remote;
  seq.fetched_ns = clock_.now_ns();
  if (error) {
    metrics_.count_fallback(code_name(error->code));
    log_warn("kv fetch failed", "request={} valid_tokens={} policy={} error=\"{}\"", id, valid_tokens,
             options_.fail_on_load_error ? "fail" : "recompute", error->message);
    if (options_.fail_on_load_error) {
      end_with_error(seq, Error{Code::kInternal, cat("KV load failed: ", error->message)});
      scheduler_.remote_done(id, 0, std::nullopt);
      return;
    }
  }
  seq.remote_used = !error && valid_tokens == remote.n_tokens;
  if (seq.remote_used) metrics_.count_hand_over(remote.push ? "push" : "pull");
  const auto prompt_size = static_cast<int32_t>(seq.group->submission.prompt.size());
  const bool whole = seq.remote_used && remote.n_tokens == prompt_size;
  // A token that went out already stands, whatever became of the blocks: the prompt's missing end is computed, its result known.
  std::optional<int32_t> first = whole || seq.token_ahead ? remote.first_token : std::nullopt;
  if (first && !seq.token_ahead && !seq.sampler.may_begin_with(*first)) first.reset();
  if (seq.token_ahead && !seq.remote_used) metrics_.prompt_recomputed.inc(prompt_size - valid_tokens);
  if (!scheduler_.remote_done(id, valid_tokens, first)) return;
  if (first && !seq.token_ahead) on_peer_token(seq, *first);
  if (Sequence* live = find(id)) propose(*live);
}

// Push: the prompt is computed over there. Its first token is what the client waits for, so it does not wait for the last blocks.
void Core::on_completion(const transfer::Event& event) {
  const auto fetch = fetches_.find(event.request);
  Sequence* seq = find(event.request);
  if (!seq || fetch == fetches_.end() || seq->token_ahead) return;
  RemotePrompt& remote = *seq->group->submission.remote;
  remote.queue_us = event.completion.queue_us;
  remote.prefill_us = event.completion.prefill_us;
  remote.cached_tokens = std::min(event.completion.cached_tokens, remote.n_tokens);
  const std::optional<int32_t> token = event.completion.first_token;
  if (!token || !remote.takes_first_token || *token >= model_.config().vocab) return;
  if (!seq->sampler.may_begin_with(*token)) return;
  remote.first_token = token;
  seq->token_ahead = seq->remote_used = true;
  seq->fetched_ns = clock_.now_ns();
  seq->external_tokens = fetch->second.n_tokens;
  seq->external_bytes = static_cast<int64_t>(event.bytes);
  seq->transport = event.transport;
  on_peer_token(*seq, *token);
}

// Prefill leg of a push: says how much of the prompt's KV is in place, the first time where it lies.
void Core::announce(Sequence& seq, int32_t ready_tokens) {
  std::vector<int32_t> named;
  if (!seq.announced) {
    const auto view = scheduler_.view(seq.id);
    const auto n = blocks_of(static_cast<int32_t>(seq.group->submission.prompt.size()), options_.scheduler.block_tokens);
    BATON_CHECK(view && std::cmp_greater_equal(view->blocks.size(), n));
    named.assign(view->blocks.begin(), view->blocks.begin() + n);
    scheduler_.pin(seq.id);
    seq.announced = true;
  }
  node_->progress(seq.id, std::move(named), ready_tokens);
}

void Core::break_promise(const Submission& s) {
  if (s.promised) node_->release(s.first_id);
}

void Core::stop_fetch(sched::RequestId id) {
  if (fetches_.contains(id)) node_->cancel(id);
}

// ---- one step

bool Core::step() {
  bool worked = poll_transfers();
  sched::StepPlan plan = scheduler_.plan();
  for (const sched::RequestId id : plan.exhausted) end_exhausted(id);
  for (sched::RemoteFetch& fetch : plan.fetches) start_fetch(std::move(fetch));
  if (!plan.seqs.empty()) {
    update_gauges();  // a long prefill is one step: who scrapes meanwhile must see it running
    run(plan);
  }
  worked |= !plan.seqs.empty() || !plan.fetches.empty() || !plan.exhausted.empty();
  update_gauges();
  tell_cache_changes();
  return worked;
}

bool Core::reset_prefix_cache() {
  const bool done = scheduler_.reset_prefix_cache();
  tell_cache_changes();
  return done;
}

void Core::tell_cache_changes() {
  if (!options_.on_cache_changes) return;
  if (auto changes = scheduler_.take_cache_changes(); !changes.empty()) options_.on_cache_changes(std::move(changes));
}

void Core::run(const sched::StepPlan& plan) {
  for (const sched::ScheduledSeq& part : plan.seqs) {
    Sequence& seq = *find(part.id);
    mark_scheduled(seq);
    if (seq.promised && !seq.announced) announce(seq, part.first_position);  // the prefix cache's part goes out at once
  }
  if (auto scored = score_prompts(plan); !scored) return fail_plan(plan, scored.error());
  const int64_t began_ns = clock_.now_ns();
  auto logits = run_model(plan);
  if (!logits) return fail_plan(plan, logits.error());
  note_step_cost(plan, began_ns);
  metrics_.iteration_tokens.observe(plan.n_tokens);
  metrics_.computed_tokens.inc(plan.n_tokens);
  pool(plan);
  std::vector<Sampled> samples = sample(plan, *logits);
  commit(plan, samples);
  for (const sched::ScheduledSeq& part : plan.seqs) {
    Sequence* seq = find(part.id);
    if (seq && seq->promised && !part.samples) announce(*seq, part.first_position + part.n_tokens);
  }
  hand_out(std::move(samples));
}

Result<std::span<const float>> Core::run_model(const sched::StepPlan& plan) {
  std::vector<model::SeqInput> inputs;
  inputs.reserve(plan.seqs.size());
  draft_rows_.clear();
  draft_rows_.reserve(static_cast<size_t>(plan.n_tokens));  // spans into it stay good
  for (const sched::ScheduledSeq& part : plan.seqs) {
    const Sequence& seq = *find(part.id);
    const int32_t ahead = seq.rows_ahead(part);
    const int32_t first = part.first_position + ahead;
    std::span<const int32_t> tokens = scheduler_.view(part.id)->tokens;
    tokens = tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(part.n_tokens - part.n_drafts - ahead));
    if (part.n_drafts > 0) {
      const auto begin = draft_rows_.insert(draft_rows_.end(), tokens.begin(), tokens.end());
      draft_rows_.insert(draft_rows_.end(), part.drafts.begin(), part.drafts.end());
      tokens = {begin, tokens.size() + part.drafts.size()};
    }
    inputs.push_back({.tokens = tokens,
                      .first_position = first,
                      .blocks = part.blocks,
                      .last_logits = part.samples && seq.group->submission.pooling == Pooling::kNone,
                      .all_logits = seq.wants_prompt_rows(part) || part.n_drafts > 0,
                      .hidden = seq.wants_hidden(part),
                      .lora = seq.lora()});
  }
  return model_.step(inputs);
}

void Core::fail_plan(const sched::StepPlan& plan, const Error& error) {
  log_error("model step failed", "sequences={} tokens={} error=\"{}\"", plan.seqs.size(), plan.n_tokens, error.message);
  for (const sched::ScheduledSeq& part : plan.seqs) {
    if (Sequence* seq = find(part.id)) end_with_error(*seq, Error{Code::kInternal, cat("model step failed: ", error.message)});
  }
}

void Core::update_gauges() {
  const int32_t deferred = scheduler_.num_waiting_remote() + scheduler_.num_waiting_adapter();
  metrics_.running.set(scheduler_.num_running());
  metrics_.waiting.set(scheduler_.num_waiting());
  metrics_.waiting_deferred.set(deferred);
  metrics_.waiting_capacity.set(scheduler_.num_waiting() - deferred);
  metrics_.kv_usage.set(scheduler_.pool().usage());
  if (metrics_.shows_adapters()) show_adapters();
  const auto grow = [](Counter& counter, uint64_t now, uint64_t& seen) {
    if (now > seen) counter.inc(static_cast<double>(now - seen));
    seen = now;
  };
  grow(metrics_.preemptions, scheduler_.preemptions(), seen_preemptions_);
  grow(metrics_.prefix_queries, scheduler_.prefix_queries(), seen_queries_);
  grow(metrics_.prefix_hits, scheduler_.prefix_hits(), seen_hits_);
}

void Core::show_adapters() {
  std::string running, waiting;
  const auto append = [](std::string& to, const std::string& name) { to += cat(to.empty() ? "" : ",", name); };
  for (const auto& [id, use] : scheduler_.adapters()) {
    if (use.active > 0) append(running, use.adapter->name);
    if (use.waiting > 0) append(waiting, use.adapter->name);
  }
  metrics_.show_adapters(running, waiting);
}

std::string Core::stats_line(double seconds) {
  const uint64_t queries = seen_queries_ - interval_.queries, hits = seen_hits_ - interval_.hits;
  if (interval_.prompt_tokens == 0 && interval_.generated == 0 && sequences_.empty()) return "";
  const double hit_rate = queries ? 100.0 * static_cast<double>(hits) / static_cast<double>(queries) : 0.0;
  std::string line = fmt::format(
      "Engine 000: Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, Running: {} reqs, "
      "Waiting: {} reqs, GPU KV cache usage: {:.1f}%, Prefix cache hit rate: {:.1f}%",
      interval_.prompt_tokens / seconds, interval_.generated / seconds, scheduler_.num_running(), scheduler_.num_waiting(),
      100 * scheduler_.pool().usage(), hit_rate);
  interval_ = {.queries = seen_queries_, .hits = seen_hits_};
  return line;
}

}  // namespace baton::engine
