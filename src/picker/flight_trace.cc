#include "picker/flight_trace.h"

#include <algorithm>

#include "route/plugins.h"

namespace baton::picker {
namespace {

using route::Point;
using Step = route::StepLog::Step;

std::string_view header(const Head& head, std::string_view name) {
  const auto at = std::ranges::find(head.headers, name, &HeaderField::name);
  return at == head.headers.end() ? std::string_view() : at->value;
}

const route::PluginSpec* plugin_of(const route::Plan& plan, const Step& step) {
  return step.plugin < 0 ? nullptr : &plan.policy->plugins[static_cast<size_t>(step.plugin)];
}

double weight_of(const route::ProfileSpec& profile, int plugin) {
  const auto ref = std::ranges::find(profile.refs, plugin, &route::ProfileSpec::Ref::plugin);
  return ref == profile.refs.end() ? 1 : static_cast<double>(ref->weight);
}

}  // namespace

void FlightTrace::begin(Tracer* tracer, const Head& head, int64_t begin_ns) {
  if (tracer == nullptr) return;
  request_ = tracer->begin("gateway.request", SpanKind::kServer, parse_traceparent(header(head, kTraceparent)), begin_ns);
  if (!request_.on()) return;
  request_id_ = head.request_id;
  request_.set("gen_ai.request.id", head.request_id);
  request_.set("http.request.method", head.method);
  request_.set("url.path", head.path);
}

void FlightTrace::orchestrate(std::string_view model, std::string_view target, int64_t priority, int64_t begin_ns) {
  if (!request_.on()) return;
  model_ = target;
  request_.set("gen_ai.request.model", model);
  orchestration_ = request_.child("gateway.request_orchestration", SpanKind::kInternal, begin_ns);
  orchestration_.set("gen_ai.request.model", model);
  orchestration_.set("gen_ai.request.id", request_id_);
  orchestration_.set("target_model", target);
  orchestration_.set("request_prio", SpanAttribute::Value(priority));
}

// The steps of one run of a profile, from `first`; returns the place behind them.
size_t FlightTrace::profile(const Decision& d, size_t first) {
  const route::StepLog& steps = d.steps;
  const int16_t which = steps[first].profile;
  size_t end = first;
  while (end < steps.size() && steps[end].profile == which) ++end;
  const route::ProfileSpec& spec = d.plan.policy->profiles[static_cast<size_t>(which)];
  Span run = orchestration_.child("run_scheduler_profile", SpanKind::kInternal, steps[first].begin_ns);
  run.set("llm_d.epp.scheduling.profile.name", spec.name);
  run.set("gen_ai.request.model", model_);
  run.set("gen_ai.request.id", request_id_);
  size_t i = first;
  if (steps[i].point == Point::kFilter) {
    Span filters = run.child("filter_endpoints", SpanKind::kInternal, steps[i].begin_ns);
    filters.set("llm_d.epp.filter.candidate_endpoints", d.view.endpoints.size());
    for (; i < end && steps[i].point == Point::kFilter; ++i) {
    }
    filters.set("llm_d.epp.filter.filtered_endpoints", size_t{steps[i - 1].candidates});
    filters.end(steps[i - 1].end_ns);
  }
  if (i < end && steps[i].point == Point::kScorer) {
    Span scoring = run.child("llm_d.epp.scoring", SpanKind::kInternal, steps[i].begin_ns);
    scoring.set("llm_d.epp.scoring.candidate_endpoints", size_t{steps[i].candidates});
    int count = 0;
    for (; i < end && steps[i].point == Point::kScorer; ++i, ++count) {
      const route::PluginSpec* plugin = plugin_of(d.plan, steps[i]);
      if (plugin == nullptr) continue;
      Span scorer = scoring.child("llm_d.epp.scorer." + std::string(plugin->row->type), SpanKind::kInternal, steps[i].begin_ns);
      scorer.set("llm_d.epp.scorer.type", plugin->row->type);
      scorer.set("llm_d.epp.scorer.name", plugin->name);
      scorer.set("llm_d.epp.scorer.weight", SpanAttribute::Value(weight_of(spec, steps[i].plugin)));
      scorer.set("llm_d.epp.scorer.candidate_endpoints", size_t{steps[i].candidates});
      scorer.end(steps[i].end_ns);
    }
    scoring.set("llm_d.epp.scorer.count", count);
    scoring.end(steps[i - 1].end_ns);
  }
  if (i < end && steps[i].point == Point::kPicker) {
    Span pick = run.child("pick_endpoints", SpanKind::kInternal, steps[i].begin_ns);
    pick.set("llm_d.epp.picker.candidate_endpoints", size_t{steps[i].candidates});
    if (d.verdict != nullptr && d.verdict->profile == spec.name) {
      std::vector<std::string> names;
      std::vector<double> scores;
      for (const uint16_t at : d.verdict->primary.ranked.all()) {
        names.push_back(d.view.endpoints[at].address);
        scores.push_back(static_cast<double>(d.scores[at]));
      }
      pick.set("llm_d.epp.picker.top_endpoints", SpanAttribute::Value(std::move(names)));
      pick.set("llm_d.epp.picker.top_scores", SpanAttribute::Value(std::move(scores)));
    }
    pick.end(steps[i].end_ns);
  }
  run.end(steps[end - 1].end_ns);
  return end;
}

// What the profile handler decided, and why.
void FlightTrace::handler(const Decision& d, const Step& step, int64_t begin_ns) {
  const route::PluginSpec* plugin = plugin_of(d.plan, step);
  const bool stages = plugin != nullptr && (plugin->row->handler == route::HandlerKind::kDisagg ||
                                            plugin->row->handler == route::HandlerKind::kPair);
  if (!stages) return;
  const bool old = plugin->row->type == "pd-profile-handler";
  Span pick = orchestration_.child(old ? "pick_pd_profile" : "pick_disagg_profile", SpanKind::kInternal, begin_ns);
  pick.set("llm_d.epp.profile_handler.total_profiles", d.plan.policy->profiles.size());
  pick.set("llm_d.epp.profile_handler.decode_failed", SpanAttribute::Value(d.verdict == nullptr));
  const bool prefill = !d.prefill.empty(), encode = d.verdict != nullptr && d.verdict->encode.ranked.count > 0;
  if (d.verdict != nullptr) {
    pick.set("llm_d.epp.profile_handler.executed_profiles", 1 + int{prefill} + int{encode});
    pick.set("llm_d.epp.profile_handler.selected_profile", d.verdict->profile);
    pick.set("llm_d.epp.profile_handler.decision",
             encode ? (prefill ? "encode-prefill-decode" : "encode-decode") : (prefill ? "prefill-decode" : "decode-only"));
  }
  pick.end(step.end_ns);
  if (d.verdict == nullptr) return;
  Span prepare = orchestration_.child("prepare_disaggregation", SpanKind::kInternal, step.end_ns);
  prepare.set("llm_d.epp.pd.disaggregation_used", SpanAttribute::Value(prefill));
  prepare.set("llm_d.epp.pd.reason", d.reason);
  prepare.set("llm_d.epp.encode.disaggregation_used", SpanAttribute::Value(encode));
  if (!prefill) return;
  const size_t colon = d.prefill.rfind(':');
  prepare.set("llm_d.epp.pd.prefill_pod_address", d.prefill.substr(0, colon));
  prepare.set("llm_d.epp.pd.prefill_pod_port", d.prefill.substr(colon + 1));
}

void FlightTrace::decided(const Decision& d) {
  if (!orchestration_.on()) return;
  int64_t decider_ns = -1;
  for (size_t i = 0; i < d.steps.size();) {
    const Step& step = d.steps[i];
    if (step.profile >= 0) {
      i = profile(d, i);
      continue;
    }
    ++i;
    const route::PluginSpec* plugin = plugin_of(d.plan, step);
    if (step.point == Point::kDataProducer && plugin != nullptr && plugin->row->type == "precise-prefix-cache-producer") {
      Span span = orchestration_.child("produce_precise_prefix_cache", SpanKind::kInternal, step.begin_ns);
      span.set("llm_d.epp.producer.candidate_endpoints", d.view.endpoints.size());
      span.set("gen_ai.request.model", model_);
      span.set("gen_ai.request.id", request_id_);
      if (d.verdict != nullptr)
        span.set("llm_d.kv_cache.lookup.cache_hit", SpanAttribute::Value(d.verdict->primary.cached_tokens > 0));
      span.end(step.end_ns);
    }
    if (step.point == Point::kDecider && decider_ns < 0) decider_ns = step.begin_ns;
    if (step.point == Point::kProfileHandler) handler(d, step, decider_ns >= 0 ? decider_ns : step.begin_ns);
  }
}

void FlightTrace::placed(std::string_view error) {
  if (!error.empty()) orchestration_.fail(error), request_.fail(error);
  orchestration_.end();
}

void FlightTrace::finish(const Answer& answer) {
  if (request_.on()) {
    request_.set("http.response.status_code", answer.status);
    request_.set("gen_ai.usage.input_tokens", SpanAttribute::Value(answer.input_tokens));
    if (answer.output_tokens >= 0) request_.set("gen_ai.usage.output_tokens", SpanAttribute::Value(answer.output_tokens));
    if (answer.cached_tokens >= 0) request_.set("gen_ai.usage.cached_tokens", SpanAttribute::Value(answer.cached_tokens));
    if (answer.ttft_s >= 0) request_.set("gen_ai.latency.time_to_first_token", SpanAttribute::Value(answer.ttft_s));
    if (!answer.destination.empty()) request_.set("llm_d.epp.destination", answer.destination);
    if (answer.status >= 500) request_.fail("status " + std::to_string(answer.status));
  }
  orchestration_.end();
  request_.end();
}

}  // namespace baton::picker
