// The decision: what route::decide() is told, and what follows from its verdict.
#include <algorithm>

#include "base/log.h"
#include "picker/flight.h"
#include "wire/headers.h"

namespace baton::picker {
namespace {

using StringViews = std::pair<std::string_view, std::string_view>;
static_assert(sizeof(HeaderField) == sizeof(StringViews));

Refusal refusal_of(const Error& error) {
  Refusal out{.status = http_status(error.code), .message = error.message, .drop_reason = "", .retry_after_s = 0};
  if (error.code == Code::kUnavailable) out.drop_reason = "rejected-no-endpoints";
  if (out.status == 429 || out.status == 503) out.retry_after_s = 1;
  if (error.code == Code::kFailedPrecondition) out.status = 412;
  return out;
}

}  // namespace

void FlightImpl::fill_loads(Scratch& scratch) const {
  const int64_t now = core_.clock.now_ns();
  scratch.loads.clear();
  scratch.loras.clear();
  for (const auto& state : view_->states) {
    scratch.loads.push_back(state->load(now));
    if (!plan_.needs.lora) continue;
    scratch.loras.push_back(state->lora());
    if (const auto& lora = scratch.loras.back()) {
      route::Load& load = scratch.loads.back();
      load.lora_max = lora->max;
      load.lora_running = lora->running;
      load.lora_waiting = lora->waiting;
    }
  }
}

void FlightImpl::fill_predictions(Scratch& scratch) const {
  scratch.costs.clear();
  for (size_t i = 0; i < view_->states.size(); ++i) {
    const EndpointState& state = *view_->states[i];
    route::Load& load = scratch.loads[i];
    scratch.costs.push_back(state.cost());
    const int64_t cached =
        std::min<int64_t>(prompt_tokens_, int64_t{(*scratch.match)[static_cast<size_t>(state.slot)]} * block_tokens_);
    const int32_t running = std::max(load.running, load.inflight_requests);
    const cost::WorkerLoad now{
        .queued_tokens = load.inflight_tokens, .running = running, .mean_context = static_cast<double>(load.mean_context)};
    load.ttft_ms = static_cast<float>(cost::ttft_us(scratch.costs.back(), now, prompt_tokens_, cached) * 1e-3);
    load.tpot_ms = static_cast<float>(cost::tpot_us(scratch.costs.back(), now, 1) * 1e-3);
  }
}

int FlightImpl::session_slot() const {
  if (!plan_.needs.session) return -1;
  if (plan_.session.encoded_endpoint) {
    const int index = head_.session_token.empty() ? -1 : view_->find(base64_decode(head_.session_token));
    return index < 0 ? -1 : view_->states[static_cast<size_t>(index)]->slot;
  }
  if (session_id_.empty()) return -1;
  const auto state = core_.sessions.find(session_id_, core_.clock.now_ms(), plan_.session.ttl_ms);
  return state ? state->slot : -1;
}

route::Inquiry FlightImpl::inquire(Scratch& scratch) const {
  route::Inquiry q;
  q.model = shape_ == Shape::kPassthrough ? std::string_view() : std::string_view(target_);
  q.prompt_tokens = prompt_tokens_;
  const BodyFacts& facts = reader_.facts();
  q.output_tokens = facts.max_tokens.value_or(0);
  q.blocks_total = precise_ ? kv_blocks_ : chain_.size();
  q.block_tokens = block_tokens_;
  q.match = plan_.needs.prefix || plan_.needs.kv_events ? scratch.match.get() : nullptr;
  q.subset_given = subset_.given;
  q.subset = subset_.endpoints;
  q.excluded = excluded_;
  q.remote_prefill_allowed = remote_allowed_;
  q.multimodal = facts.multimodal;
  q.priority = static_cast<int>(priority_);
  q.ttft_slo_ms = ttft_slo_ms_ * plan_.slo_buffer;
  q.tpot_slo_ms = tpot_slo_ms_ * plan_.slo_buffer;
  q.session_slot = session_slot();
  q.stale_after_ms = core_.options.staleness_ms;
  if (plan_.needs.multimodal && !facts.assets.empty()) {
    scratch.media.assign(route::kEndpointsMax, 0);
    for (const auto& state : view_->states)
      scratch.media[static_cast<size_t>(state->slot)] = core_.media.matched(facts.assets, state->slot);
    for (const Asset& asset : facts.assets) q.media_total += media_size(asset);
    q.media_matched = scratch.media;
  }
  if (plan_.needs.cold_order) {
    scratch.cold.resize(route::kEndpointsMax);
    core_.cold.copy(scratch.cold);
    q.cold_order = scratch.cold;
  }
  return q;
}

void FlightImpl::match_prefix(Scratch& scratch) const {
  if (precise_) {
    if (!scratch.kv) scratch.kv = std::make_unique<route::KvMatch>();
    live_->kv->index.match(kv_prompt_, *scratch.kv);
    *scratch.match = scratch.kv->weighted;
  } else if (plan_.needs.prefix || plan_.needs.kv_events) {
    core_.prefix.match(chain_, *scratch.match);
  } else {
    scratch.match->fill(0);
  }
}

// What decide() is told, one producer after the other.
void FlightImpl::gather(Scratch& scratch, route::StepLog& steps) const {
  const PlanTimes& times = *live_->times;
  steps.start();
  match_prefix(scratch);
  if (precise_ || plan_.needs.prefix) {
    steps.done(route::Point::kDataProducer, precise_ ? times.precise : times.approx);
    if (precise_ && plan_.kv_events.metrics) {
      const auto& step = steps[steps.size() - 1];
      live_->kv->lookup.observe(static_cast<double>(step.end_ns - step.begin_ns) * 1e-9);
    }
  }
  fill_loads(scratch);
  steps.done(route::Point::kDataProducer, times.inflight);
  scratch.costs.clear();
  if (!plan_.needs.predictions) return;
  fill_predictions(scratch);
  steps.done(route::Point::kDataProducer, times.predictor);
}

FlightImpl::Picked FlightImpl::choose(bool again) {
  struct Borrowed {  // given back however this ends
    Core& core;
    std::unique_ptr<Scratch> scratch;
    ~Borrowed() { core.give_back(std::move(scratch)); }
  } borrowed{core_, core_.borrow()};
  Scratch& scratch = *borrowed.scratch;
  const int64_t begin = core_.clock.now_ns();
  if (!view_ || !again) view_ = core_.pool.view();  // a repick's exclusions are places in the view of the first pick
  route::StepLog& steps = scratch.steps;
  gather(scratch, steps);
  std::array<StringViews, 64> headers;
  const size_t n = std::min(headers.size(), headers_.size());
  for (size_t i = 0; i < n; ++i) headers[i] = {headers_[i].name, headers_[i].value};
  route::Inquiry inquiry = inquire(scratch);
  inquiry.headers = std::span(headers).first(n);
  scratch.scores.assign(view_->endpoints.size(), -1.0f);
  const auto verdict =
      route::decide({view_->endpoints, scratch.loads, scratch.costs}, inquiry, plan_, prng_, scratch.scores, &steps);
  core_.metrics.observe(MetricId::kScheduling, static_cast<double>(core_.clock.now_ns() - begin) * 1e-9);
  live_->times->add(steps);
  if (!verdict) {
    trace_.decided({.steps = steps, .plan = plan_, .view = *view_});
    series_->attempt_failed();
    return std::unexpected(refusal_of(verdict.error()));
  }
  if (head_.if_available && !again && verdict->primary.cached_tokens == 0) {
    return std::unexpected(
        Refusal{.status = 412, .message = "no decode worker has the requested KV cache", .drop_reason = "", .retry_after_s = 0});
  }
  settle(*verdict, scratch, again, begin);
  return &choice_;
}

void FlightImpl::settle(const route::Verdict& verdict, const Scratch& scratch, bool again, int64_t begin_ns) {
  primary_ = verdict.primary.ranked.index[0];
  prefill_ = verdict.prefill.ranked.count > 0 ? verdict.prefill.ranked.index[0] : -1;
  build_choice(verdict, scratch);
  count_in_flight(verdict);
  remember(verdict);
  trace_.decided({.steps = scratch.steps,
                  .plan = plan_,
                  .view = *view_,
                  .verdict = &verdict,
                  .scores = scratch.scores,
                  .prefill = choice_.prefill,
                  .reason = choice_.why});
  log_decision(verdict, scratch, again, begin_ns);
}

void FlightImpl::build_choice(const route::Verdict& verdict, const Scratch& scratch) {
  choice_.targets.clear();
  choice_.destination.clear();
  choice_.prefills.clear();
  choice_.set_headers.clear();
  choice_.remove_headers.clear();
  choice_.scores.clear();
  choice_.why = route::why_name(verdict.why);
  const auto listed = [](const route::StageResult& stage) {
    return static_cast<size_t>(std::clamp(stage.listed, 1, stage.ranked.count));
  };
  const auto primaries = verdict.primary.ranked.all();
  for (const uint16_t i : primaries.first(listed(verdict.primary))) {
    const route::Endpoint& e = endpoint(i);
    Target target{.host = e.host, .address = e.address, .port = e.port, .index = i};
    if (verdict.destination_port != 0) {  // the sidecar at that port hands on to the rank we name
      target.port = verdict.destination_port;
      target.address = route::host_port(e.host, target.port);
    }
    if (!choice_.destination.empty()) choice_.destination += ',';
    choice_.destination += target.address;
    choice_.targets.push_back(std::move(target));
  }
  const auto set = [&](std::string_view name, std::string value) { choice_.set_headers.emplace_back(name, std::move(value)); };
  if (verdict.destination_port != 0) set(wire::kDataParallelHostPort, endpoint(primaries[0]).address);
  const auto names = [&](const route::StageResult& stage, size_t count) {
    std::string out;
    for (const uint16_t i : stage.ranked.all().first(count)) out += cat(out.empty() ? "" : ",", endpoint(i).address);
    return out;
  };
  choice_.prefill = prefill_ >= 0 ? endpoint(static_cast<size_t>(prefill_)).address : std::string();
  if (prefill_ >= 0) {
    for (const uint16_t i : verdict.prefill.ranked.all()) choice_.prefills.push_back(endpoint(i).address);
    set(wire::kPrefillerHostPort, names(verdict.prefill, listed(verdict.prefill)));
    if (verdict.why == route::Why::kSplit && verdict.decode_tail_tokens > 0)
      set(wire::kDecodeTail, cat(verdict.decode_tail_tokens));
  }
  if (verdict.encode.ranked.count > 0) set(wire::kEncoderHostsPorts, names(verdict.encode, listed(verdict.encode)));
  if (plan_.kv_source_delta_min > 0) {
    // Who holds most of the prompt, if that is enough more than where it will be computed.
    const size_t computes = static_cast<size_t>(prefill_ >= 0 ? prefill_ : primary_);
    const auto held = [&](size_t i) { return int64_t{(*scratch.match)[static_cast<size_t>(endpoint(i).slot)]} * block_tokens_; };
    size_t best = computes;
    for (size_t i = 0; i < view_->endpoints.size(); ++i) {
      if (scratch.loads[i].healthy && held(i) > held(best)) best = i;
    }
    if (best != computes && held(best) - held(computes) >= plan_.kv_source_delta_min)
      set(wire::kKvCacheSourceHostPort, endpoint(best).address);
  }
  if (std::string context = trace_.downstream(); !context.empty()) set(kTraceparent, std::move(context));
  // A client must not choose our workers; what we set ourselves replaces its own.
  for (const std::string_view name : wire::kRoutingHeaders) {
    const bool ours = name == wire::kGatewayDestination ||
                      std::ranges::any_of(choice_.set_headers, [&](const auto& header) { return header.first == name; });
    if (!ours && std::ranges::find(headers_, name, &HeaderField::name) != headers_.end())
      choice_.remove_headers.emplace_back(name);
  }
  if (!core_.options.emit_scores) return;
  for (size_t i = 0; i < scratch.scores.size(); ++i) {
    if (scratch.scores[i] >= 0) choice_.scores.emplace_back(endpoint(i).address, scratch.scores[i]);
  }
}

void FlightImpl::count_in_flight(const route::Verdict& verdict) {
  const bool remote = prefill_ >= 0;
  const auto cell_of = [&](EndpointState& state) { return &state.cell(*series_); };
  const auto& decode = view_->states[static_cast<size_t>(primary_)];
  const auto& computes = remote ? view_->states[static_cast<size_t>(prefill_)] : decode;
  cached_tokens_ = remote ? verdict.prefill.cached_tokens : verdict.primary.cached_tokens;
  uncached_tokens_ = std::max<int64_t>(0, prompt_tokens_ - cached_tokens_);
  queued_tokens_ = computes->inflight_tokens.load(std::memory_order_relaxed);
  running_then_ = decode->inflight_requests.load(std::memory_order_relaxed);
  int64_t decode_tokens = remote ? verdict.decode_tail_tokens : uncached_tokens_;
  if (plan_.track_output_tokens) {
    auto output = static_cast<int64_t>(static_cast<double>(prompt_tokens_) * plan_.output_ratio);
    if (plan_.estimated_output_tokens_max > 0) output = std::min(output, plan_.estimated_output_tokens_max);
    decode_tokens += output;
  }
  on_primary_ = InFlight(decode, decode_tokens, cell_of(*decode));
  on_primary_.set_context(prompt_tokens_);
  if (remote)
    on_prefill_ = InFlight(computes, std::max<int64_t>(0, uncached_tokens_ - verdict.decode_tail_tokens), cell_of(*computes));
  if (!counted_running_) series_->running(1);
  counted_running_ = true;
}

void FlightImpl::remember(const route::Verdict& verdict) {
  const auto& decode = view_->states[static_cast<size_t>(primary_)];
  if (precise_ && plan_.kv_events.speculative) {
    const int64_t now = core_.clock.now_ms();
    live_->kv->index.expire(now);
    live_->kv->index.speculate(kv_prompt_, decode->slot, now);
    if (prefill_ >= 0) live_->kv->index.speculate(kv_prompt_, view_->states[static_cast<size_t>(prefill_)]->slot, now);
  }
  if (!chain_.empty()) {
    const auto record = [&](const EndpointState& state, int64_t cached_tokens) {
      core_.prefix.record(chain_, state.slot);
      if (core_.replica) core_.replica->recorded(state.address, chain_, static_cast<size_t>(cached_tokens / chain_block_tokens_));
    };
    record(*decode, verdict.primary.cached_tokens);
    if (prefill_ >= 0) record(*view_->states[static_cast<size_t>(prefill_)], verdict.prefill.cached_tokens);
  }
  if (const size_t blocks = precise_ ? kv_blocks_ : chain_.size(); blocks > 0) {
    const double total = static_cast<double>(blocks) * block_tokens_;
    core_.metrics.observe(MetricId::kPrefixHitRatio, std::min(1.0, static_cast<double>(verdict.primary.cached_tokens) / total));
    core_.metrics.observe(MetricId::kPrefixHitBytes, static_cast<double>(verdict.primary.cached_tokens * 4));
  }
  remember_media(verdict);
  if (verdict.cold && plan_.needs.cold_order) {
    core_.cold.took(decode->slot);
    if (prefill_ >= 0) core_.cold.took(view_->states[static_cast<size_t>(prefill_)]->slot);
  }
  if (!plan_.needs.session) return;
  if (plan_.session.encoded_endpoint)
    answer_headers_.assign(1, {"x-session-token", base64_encode(decode->name.empty() ? decode->address : decode->name)});
  else if (!session_id_.empty())
    core_.sessions.bind(session_id_, decode, core_.clock.now_ms());
}

// Who encodes them: the encode worker, else whoever computes the prompt.
void FlightImpl::remember_media(const route::Verdict& verdict) {
  const std::vector<Asset>& assets = reader_.facts().assets;
  if (!plan_.needs.multimodal || assets.empty()) return;
  const int encode = verdict.encode.ranked.count > 0 ? verdict.encode.ranked.index[0] : prefill_ >= 0 ? prefill_ : primary_;
  const EndpointState& state = *view_->states[static_cast<size_t>(encode)];
  size_t held = 0;
  for (const Asset& asset : assets) {
    const bool known = core_.media.matched({&asset, 1}, state.slot) > 0;
    core_.metrics.count_media(media_kind(asset.kind), known, state.name.empty() ? state.address : state.name);
    held += known;
  }
  core_.metrics.observe(MetricId::kEncoderHitRatio, static_cast<double>(held) / static_cast<double>(assets.size()));
  core_.media.record(assets, state.slot);
}

// What the cost model expects where the request will be computed, and decoded.
void FlightImpl::note_prediction(const Scratch& scratch) {
  int64_t took = 0;
  for (size_t i = 0; i < scratch.steps.size(); ++i) {
    const route::StepLog::Step& step = scratch.steps[i];
    if (step.plugin == live_->times->predictor) took = step.end_ns - step.begin_ns;
  }
  const route::Load& computes = scratch.loads[static_cast<size_t>(prefill_ >= 0 ? prefill_ : primary_)];
  const route::Load& decodes = scratch.loads[static_cast<size_t>(primary_)];
  series_->predicted(live_->times->latency, static_cast<double>(computes.ttft_ms) * 1e-3,
                     static_cast<double>(decodes.tpot_ms) * 1e-3, static_cast<double>(took) * 1e-9);
}

void FlightImpl::log_decision(const route::Verdict& verdict, const Scratch& scratch, bool again, int64_t begin_ns) {
  const bool encode = verdict.encode.ranked.count > 0;
  series_->count_decision(encode ? (prefill_ >= 0 ? "encode-prefill-decode" : "encode-decode")
                                 : (prefill_ >= 0 ? "prefill-decode" : "decode-only"),
                          live_->times->handler);
  if (plan_.needs.predictions) note_prediction(scratch);
  core_.decisions.add([&](DecisionRecord& r) {
    r.at_ms = begin_ns / 1'000'000;
    r.request_id = request_id_;
    r.model = model();
    r.target = target_;
    r.primary = choice_.destination;
    r.prefill = choice_.prefill;
    r.why = choice_.why;
    r.profile = verdict.profile;
    r.priority = priority_;
    r.prompt_tokens = prompt_tokens_;
    r.cached_tokens = verdict.primary.cached_tokens;
    r.prefill_cached_tokens = verdict.prefill.cached_tokens;
    r.precise = precise_;
    r.waited_ms = static_cast<double>(waited_ns_) * 1e-6;
    r.decide_us = static_cast<double>(core_.clock.now_ns() - begin_ns) * 1e-3;
    r.estimated_ttft_ms = verdict.estimated_ttft_ms;
    r.again = again;
    r.best_count = 0;
    for (const uint16_t i : verdict.primary.ranked.all()) {
      auto& [name, score] = r.best[static_cast<size_t>(r.best_count++)];
      name = endpoint(i).address;
      score = scratch.scores[i];
    }
  });
}

}  // namespace baton::picker
