// Core, second half: what a computed token means for its sequence, and the ends of sequences.
#include <algorithm>

#include "base/log.h"
#include "engine/sequence.h"

namespace baton::engine {
namespace {

double seconds(int64_t from_ns, int64_t to_ns) { return static_cast<double>(std::max<int64_t>(0, to_ns - from_ns)) * 1e-9; }
int64_t micros(int64_t from_ns, int64_t to_ns) { return std::max<int64_t>(0, to_ns - from_ns) / 1000; }
bool contains(const std::vector<int32_t>& ids, int32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

}  // namespace

// Runs all but the last slice of each scored prompt ahead of the step, keeping their rows.
Result<> Core::score_prompts(const sched::StepPlan& plan) {
  const auto vocab = static_cast<size_t>(model_.config().vocab);
  for (const sched::ScheduledSeq& part : plan.seqs) {
    Sequence& seq = *find(part.id);
    for (int32_t done = 0; done < seq.rows_ahead(part); done += kScoredRowsMax) {
      const int32_t position = part.first_position + done;
      const model::SeqInput slice{
          .tokens = scheduler_.view(part.id)->tokens.subspan(static_cast<size_t>(position), kScoredRowsMax),
          .first_position = position,
          .blocks = part.blocks,
          .all_logits = true,
          .lora = seq.lora(),
      };
      BATON_TRY(const std::span<const float> rows, model_.step({&slice, 1}));
      if (rows.size() < kScoredRowsMax * vocab) return fail(Code::kInternal, "the model gave too few logits");
      keep_prompt_rows(seq, position, rows, kScoredRowsMax);
    }
  }
  return {};
}

void Core::keep_prompt_rows(Sequence& seq, int32_t position, std::span<const float> rows, size_t count) {
  const Submission& s = seq.group->submission;
  const auto vocab = static_cast<size_t>(model_.config().vocab);
  seq.prompt_rows.resize(s.prompt.size() - 1);
  for (size_t i = 0; i < count; ++i) {
    const size_t next = static_cast<size_t>(position) + i + 1;
    if (next >= s.prompt.size()) break;
    seq.prompt_rows[next - 1] = logprob_table(rows.subspan(i * vocab, vocab), s.prompt[next], *s.prompt_logprobs);
  }
}

// Adds what this step computed of the embeddings asked for.
void Core::pool(const sched::StepPlan& plan) {
  const auto width = static_cast<size_t>(model_.config().hidden);
  std::span<const float> rows = model_.hidden();
  for (const sched::ScheduledSeq& part : plan.seqs) {
    Sequence& seq = *find(part.id);
    if (!seq.wants_hidden(part)) continue;
    const auto n = static_cast<size_t>(part.n_tokens);
    BATON_CHECK(rows.size() >= n * width);
    const Pooling pooling = seq.group->submission.pooling;
    if (part.first_position == 0 || pooling != Pooling::kMean) seq.pooled.assign(width, 0);  // also when it begins again
    const size_t first = pooling == Pooling::kLast ? n - 1 : 0, end = pooling == Pooling::kCls ? 1 : n;
    for (size_t i = first; i < end; ++i) {
      for (size_t k = 0; k < width; ++k) seq.pooled[k] += rows[i * width + k];
    }
    rows = rows.subspan(n * width);
  }
}

// The prompt is computed, and that was all.
void Core::end_pooled(Sequence& seq) {
  const Submission& s = seq.group->submission;
  TokenEvent event{.choice = s.first_choice + seq.index};
  const int64_t now = clock_.now_ns();
  note_first_token(seq, event, now);
  seq.last_token_ns = now;
  event.embedding = std::move(seq.pooled);
  if (s.pooling == Pooling::kMean) {
    for (float& x : event.embedding) x /= static_cast<float>(s.prompt.size());
  }
  end(seq, Finish::kStop, std::move(event));
}

void Core::note_first_token(Sequence& seq, TokenEvent& event, int64_t now) {
  const Submission& s = seq.group->submission;
  seq.first_token_ns = now;
  auto first = std::make_unique<FirstToken>();
  Waterfall& w = first->waterfall;
  w.queue_us = micros(s.arrived_ns, seq.scheduled_ns);
  if (s.remote && seq.index == 0) {
    w.queue_us += s.remote->queue_us;
    w.prefill_us = s.remote->prefill_us;
    w.transfer_us = micros(seq.fetch_ns, seq.fetched_ns);
    w.kv_bytes = seq.external_bytes, w.kv_tokens = seq.external_tokens, w.kv_transport = seq.transport;
    (seq.remote_used ? w.first_step_us : w.prefill_us) += micros(seq.fetched_ns, now);
  } else {
    w.prefill_us = micros(seq.scheduled_ns, now);
  }
  const auto view = scheduler_.view(seq.id);
  if (seq.token_ahead) {  // the times of the two sides overlap; what is not the prefill worker's is the hand-over
    w.queue_us = s.remote->queue_us;
    w.first_step_us = 0;
    w.transfer_us = std::max<int64_t>(0, micros(s.arrived_ns, now) - w.queue_us - w.prefill_us);
  }
  const int32_t local = view ? view->num_cached : 0;
  const auto prompt = static_cast<int32_t>(s.prompt.size());
  const int32_t cached = std::min(prompt, local + seq.external_tokens);
  // The whole prompt came from a peer; the client is told what was spared there.
  first->cached_tokens = s.remote && s.remote->cached_tokens ? *s.remote->cached_tokens : cached;
  first->prompt_logprobs = std::move(seq.prompt_rows);
  event.first = std::move(first);

  metrics_.ttft.observe(seconds(s.arrived_ns, now));
  metrics_.prompt_tokens.inc(prompt);
  interval_.prompt_tokens += prompt;
  metrics_.prompt_cached.inc(cached);
  metrics_.source_cache.inc(std::min(local, cached));
  metrics_.source_external.inc(seq.external_tokens);
  metrics_.cached_device.inc(std::min(local, cached));
  metrics_.cached_peer.inc(seq.external_tokens);
  metrics_.source_compute.inc(prompt - cached);
  if (s.remote && seq.index == 0 && !seq.remote_used) metrics_.prompt_recomputed.inc(prompt - cached);
  metrics_.prefill_computed.observe(prompt - cached);
  metrics_.prompt_length.observe(prompt);
  metrics_.queue_time.observe(seconds(seq.queued_ns, seq.scheduled_ns));
  metrics_.prefill_time.observe(seconds(seq.scheduled_ns, now));
}

// A token that another worker sampled.
void Core::on_peer_token(Sequence& seq, int32_t token) {
  seq.sampler.accept(token);
  on_token(seq, token, {});
}

Finish Core::finish_after(const Sequence& seq, int32_t token, int32_t n_output) const {
  const Submission& s = seq.group->submission;
  if (n_output >= seq.sampler.params().min_tokens && (contains(s.eos_ids, token) || contains(s.stop_ids, token))) return Finish::kStop;
  if (seq.sampler.ended_at(n_output)) return Finish::kStop;
  const int32_t total = static_cast<int32_t>(s.prompt.size()) + n_output;
  if (n_output >= s.max_tokens || total >= options_.scheduler.max_model_len) return Finish::kLength;
  const bool repeats = n_output >= seq.sampler.params().min_tokens && seq.sampler.repeats_at(n_output, s.repetition);
  return repeats ? Finish::kRepetition : Finish::kNone;
}

// The sampler has accepted the token already. same_step: not the first one of its step, so that no time lies between the two.
void Core::on_token(Sequence& seq, int32_t token, LogprobTable table, bool same_step) {
  const std::shared_ptr<Group> group = seq.group;  // seq may end below
  const Submission& s = group->submission;
  const int64_t now = clock_.now_ns();
  TokenEvent event{.choice = s.first_choice + seq.index, .token = token, .logprobs = std::move(table)};
  ++seq.n_output;
  if (seq.n_output == 1) {
    note_first_token(seq, event, now);
  } else if (!same_step) {
    metrics_.itl.observe(seconds(seq.last_token_ns, now));
    metrics_.tpot_token.observe(seconds(seq.last_token_ns, now));
  }
  seq.last_token_ns = now;
  metrics_.generation_tokens.inc();
  interval_.generated += 1;

  const Finish finish = finish_after(seq, token, seq.n_output);
  if (finish == Finish::kStop && !contains(s.eos_ids, token) && contains(s.stop_ids, token)) event.stop_token = token;
  if (finish == Finish::kStop && s.constraint && s.end_ids.empty() && !event.stop_token) {  // the token is text, of a model that knows no end
    s.out->push(std::move(event));
    event = TokenEvent{.choice = s.first_choice + seq.index};
  }
  const bool first = seq.n_output == 1;
  if (finish == Finish::kNone)
    s.out->push(std::move(event));
  else
    end(seq, finish, std::move(event));
  if (first && group->siblings_wait) start_siblings(group);
}

void Core::end(Sequence& seq, Finish finish, TokenEvent event) {
  const sched::RequestId id = seq.id;
  event.finish = finish;
  stop_fetch(id);
  // A promise whose reader left is not offered to anybody else.
  const Submission& s = seq.group->submission;
  if (s.prefill_leg && node_ && seq.promised == s.promised.has_value()) offer(seq, event);
  if (const auto view = scheduler_.view(id); view && finish != Finish::kAbort) metrics_.preemptions_of_request.observe(view->num_preemptions);
  scheduler_.finish(id);
  observe_end(seq, finish);
  update_gauges();  // who has the answer and then scrapes must find its blocks gone
  seq.group->submission.out->push(std::move(event));
  drop(id);
}

// The request alone outgrew the whole pool: what it has is its answer.
void Core::end_exhausted(sched::RequestId id) {
  Sequence* seq = find(id);
  if (!seq) return scheduler_.finish(id);
  if (seq->n_output == 0)
    return end_with_error(*seq, Error{Code::kResourceExhausted, "the KV pool is too small for this prompt"});
  end(*seq, Finish::kLength, TokenEvent{.choice = seq->group->submission.first_choice + seq->index});
}

// Prefill leg of a push: whoever reads learns that this was all, and the first token.
void Core::fulfil(Sequence& seq, const TokenEvent& event) {
  const Submission& s = seq.group->submission;
  transfer::Completion done{.first_token = {},
                            .queue_us = micros(s.arrived_ns, seq.scheduled_ns),
                            .prefill_us = micros(seq.scheduled_ns, seq.last_token_ns)};
  if (const auto view = scheduler_.view(seq.id)) done.cached_tokens = view->num_cached;
  if (s.send_first_token && seq.n_output == 1) done.first_token = event.token;
  node_->complete(seq.id, done);
}

// Prefill leg: the prompt's blocks stay, a grant says who may read them. One that was promised goes on as what it is.
void Core::offer(Sequence& seq, TokenEvent& event) {
  const Submission& s = seq.group->submission;
  const auto view = scheduler_.view(seq.id);
  const auto n_tokens = static_cast<int32_t>(s.prompt.size());
  const auto blocks = static_cast<size_t>((n_tokens + options_.scheduler.block_tokens - 1) / options_.scheduler.block_tokens);
  BATON_CHECK(view && view->blocks.size() >= blocks && view->num_computed >= n_tokens);
  const std::vector<int32_t> lie{view->blocks.begin(), view->blocks.begin() + static_cast<std::ptrdiff_t>(blocks)};
  if (seq.promised) fulfil(seq, event);  // first of all: a client waits for it
  const Digest digest = prompt_digest(s, s.prompt.size());
  const transfer::Grant grant =
      seq.promised ? *s.promised
                   : node_->offer({.request = seq.id, .blocks = lie, .n_tokens = n_tokens, .prompt_digest = digest});
  auto params = std::make_unique<wire::KvParams>();
  params->do_remote_prefill = true;
  params->remote_block_ids.assign(lie.begin(), lie.end());
  params->remote_engine_id = grant.engine_id;
  params->remote_request_id = s.remote_request_id;
  params->remote_host = grant.host;
  params->remote_port = grant.port;
  params->remote_num_tokens = n_tokens;
  wire::XKv& x = params->x_kv.emplace();
  x.grant = grant.token;
  x.incarnation = grant.incarnation;
  x.lease_ms = grant.lease_ms;
  x.n_tokens = n_tokens;
  x.prompt_digest = hex(digest);
  x.layout = model_.kv_layout().id();
  x.can_push = true;
  if (s.send_first_token && seq.n_output == 1) x.first_token_id = event.token;
  x.queue_us = micros(s.arrived_ns, seq.scheduled_ns);
  x.prefill_us = micros(seq.scheduled_ns, seq.last_token_ns);
  event.hand_over = std::move(params);
}

void Core::end_with_error(Sequence& seq, Error error) {
  const sched::RequestId id = seq.id;
  TokenEvent event{.choice = seq.group->submission.first_choice + seq.index};
  event.finish = Finish::kError;
  event.error = std::move(error);
  stop_fetch(id);
  break_promise(seq.group->submission);
  scheduler_.abort(id);
  observe_end(seq, Finish::kError);
  const std::shared_ptr<Group> group = seq.group;
  group->submission.out->push(std::move(event));
  drop(id);
  if (!group->siblings_wait) return;
  group->siblings_wait = false;  // siblings that never started share the fate of the sequence they waited for
  for (int32_t i = 1; i < group->submission.n; ++i) {
    TokenEvent sibling{.choice = group->submission.first_choice + i};
    sibling.finish = Finish::kError;
    sibling.error = Error{Code::kInternal, "the prompt could not be computed"};
    group->submission.out->push(std::move(sibling));
  }
}

void Core::observe_end(const Sequence& seq, Finish finish) {
  const int64_t now = clock_.now_ns();
  const Submission& s = seq.group->submission;
  metrics_.finished(finish).inc();
  if (finish == Finish::kAbort || finish == Finish::kError) return;
  metrics_.e2e.observe(seconds(s.arrived_ns, now));
  metrics_.inference_time.observe(seconds(seq.scheduled_ns, now));
  metrics_.decode_time.observe(seconds(seq.first_token_ns, seq.last_token_ns));
  metrics_.generation_length.observe(seq.n_output);
  metrics_.max_generation.observe(s.max_tokens);
  metrics_.params_max_tokens.observe(s.max_tokens);
  metrics_.params_n.observe(s.n);
  if (seq.n_output > 1) metrics_.tpot_request.observe(seconds(seq.first_token_ns, seq.last_token_ns) / (seq.n_output - 1));
}

}  // namespace baton::engine
