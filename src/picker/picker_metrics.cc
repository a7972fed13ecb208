#include "picker/picker_metrics.h"

#include "base/prng.h"
#include "base/result.h"
#include "picker/limits.h"

namespace baton::picker {
namespace {

using Bounds = std::vector<double>;

const Bounds& general_bounds() {
  static const Bounds kBounds = {.005, .025, .05, .1, .2, .4,  .6,  .8,  1,   1.25, 1.5, 2,   3,   4,    5,    6,    8,   10,
                                 15,   20,   30,  45, 60, 120, 180, 240, 300, 360,  480, 600, 900, 1200, 1800, 2700, 3600};
  return kBounds;
}
Bounds up_to(const Bounds& bounds, double last) {
  Bounds out;
  for (double b : bounds) {
    if (b <= last) out.push_back(b);
  }
  return out;
}
Bounds doubling(double first, double last, double factor) {
  Bounds out;
  for (double b = first; b <= last; b *= factor) out.push_back(b);
  return out;
}
// llm-d's own lists, its typing errors (32778) included: dashboards match on le.
Bounds response_size_bounds() { return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32778, 65536}; }
Bounds token_bounds() {
  Bounds out = response_size_bounds();
  for (double b = 131072; b <= 1048576; b *= 2) out.push_back(b);
  return out;
}
const Bounds kTpot = {.0005, .00205, .005, .01, .02, .04, .06, .08, .1,  .125, .15, .2,
                      .3,    .4,     .5,   .6,  .8,  1,   1.2, 1.4, 1.6, 1.8,  2};
const Bounds kItl = {.001, .005, .01, .02, .04, .06, .08, .1, .15, .2, .3, .5, .75, 1, 2};
const Bounds kNtpot = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10};
const Bounds kScheduler = {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1};
const Bounds kProcessing = {.0005, .001, .002, .005, .01, .015, .025, .04, .06, .1, .25, .5, 1, 2.5, 5, 10};
const Bounds kAnswering = {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5};
const Bounds kQueue = {.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60};
const Bounds kRatio = {0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1};

struct Row {
  std::string_view name, old;  // without prefix llm_d_epp_; whole; old "" = no twin
  std::string_view help;
  Bounds bounds;
};

const Row& row_of(PerRequest what) {
  static const std::array<Row, static_cast<size_t>(PerRequest::kCount)> kRows = {{
      {"request_duration_seconds", "inference_objective_request_duration_seconds", "arrival to last byte", general_bounds()},
      {"request_size_bytes", "inference_objective_request_sizes", "request body", doubling(64, 1 << 30, 2)},
      {"response_size_bytes", "inference_objective_response_sizes", "response body", response_size_bounds()},
      {"request_input_tokens", "inference_objective_input_tokens", "prompt tokens", token_bounds()},
      {"request_output_tokens", "inference_objective_output_tokens", "answer tokens", token_bounds()},
      {"request_cached_tokens", "inference_objective_prompt_cached_tokens", "prompt tokens the engine had cached",
       token_bounds()},
      {"request_ntpot_seconds", "inference_objective_normalized_time_per_output_token_seconds", "duration per answer token",
       kNtpot},
      {"request_streaming_tpot_seconds", "", "time per answer token after the first, streams", kTpot},
      {"request_streaming_itl_seconds", "", "time between chunks of a stream", kItl},
      {"request_ttft_seconds", "inference_objective_request_ttft_seconds", "arrival to first answer byte",
       up_to(general_bounds(), 120)},
      {"request_ttft_seconds", "inference_objective_request_ttft_seconds", "arrival to first answer byte",
       up_to(general_bounds(), 120)},
  }};
  return kRows[static_cast<size_t>(what)];
}

const Row& row_of(PerPicker what) {
  static const std::array<Row, static_cast<size_t>(PerPicker::kCount)> kRows = {{
      {"scheduler_e2e_duration_seconds", "inference_extension_scheduler_e2e_duration_seconds", "time of one decision",
       kScheduler},
      {"request_processing_duration_seconds", "", "body complete to decision, waiting included", kProcessing},
      {"response_processing_duration_seconds", "", "work on one answer", kAnswering},
      {"flow_control_dispatch_cycle_duration_seconds", "inference_extension_flow_control_dispatch_cycle_duration_seconds",
       "time of one round of dispatching", kScheduler},
      {"prefix_indexer_hit_ratio", "inference_extension_prefix_indexer_hit_ratio", "part of the prompt the chosen endpoint holds",
       kRatio},
      {"prefix_indexer_hit_bytes", "inference_extension_prefix_indexer_hit_bytes", "prompt bytes the chosen endpoint holds",
       doubling(16, 1 << 24, 4)},
  }};
  return kRows[static_cast<size_t>(what)];
}

std::string now_name(std::string_view name) { return cat("llm_d_epp_", name); }

uint64_t hash_of(std::string_view a, std::string_view b, std::string_view c, int64_t d) {
  const std::hash<std::string_view> h;
  return mix64(mix64(mix64(h(a)) ^ h(b)) ^ h(c)) + static_cast<uint64_t>(d);
}

}  // namespace

Series::Series(PickerMetrics& owner, std::string model_, std::string target_, std::string fairness_id_, int64_t priority_)
    : model(std::move(model_)),
      target(std::move(target_)),
      fairness_id(std::move(fairness_id_)),
      priority(std::to_string(priority_)),
      owner_(owner) {
  const Labels labels = {
      {"model_name", model}, {"target_model_name", target}, {"fairness_id", fairness_id}, {"priority", priority}};
  const Labels old = {{"model_name", model}, {"target_model_name", target}, {"priority", priority}};
  total_ = {&owner.metrics_.counter("llm_d_epp_request", "requests", labels),
            &owner.metrics_.counter("inference_objective_request", "requests", old)};
  running_now_ = &owner.metrics_.gauge("llm_d_epp_request_running", "requests being answered", labels);
  running_old_ =
      &owner.metrics_.gauge("inference_objective_running_requests", "requests being answered", {{"model_name", model}});
}

// Made when first needed: a series has twenty histograms and few requests need them all.
TwinHistogram Series::histogram(PerRequest what) {
  const size_t i = static_cast<size_t>(what);
  Histogram* now = now_[i].load(std::memory_order_acquire);
  if (now != nullptr) return {now, old_[i].load(std::memory_order_relaxed)};
  const Row& row = row_of(what);
  Labels labels = {{"model_name", model}, {"target_model_name", target}, {"fairness_id", fairness_id}, {"priority", priority}};
  if (what == PerRequest::kTtft || what == PerRequest::kTtftStreaming)
    labels["streaming"] = what == PerRequest::kTtft ? "false" : "true";
  Histogram* old = nullptr;
  if (!row.old.empty())
    old = &owner_.metrics_.histogram(row.old, row.help, row.bounds, {{"model_name", model}, {"target_model_name", target}});
  old_[i].store(old, std::memory_order_relaxed);
  now = &owner_.metrics_.histogram(now_name(row.name), row.help, row.bounds, labels);
  now_[i].store(now, std::memory_order_release);
  return {now, old};
}

void Series::observe(PerRequest what, double v) { histogram(what).observe(v); }

void Series::running(double delta) {
  running_now_->add(delta);
  running_old_->add(delta);
}

void Series::count_error(std::string_view code) {
  std::lock_guard lock(mutex_);
  TwinCounter& counter = errors_[std::string(code)];
  if (counter.now == nullptr) {
    const std::string c(code);
    counter = {&owner_.metrics_.counter("llm_d_epp_request_error", "requests that failed",
                                        {{"model_name", model},
                                         {"target_model_name", target},
                                         {"fairness_id", fairness_id},
                                         {"priority", priority},
                                         {"error_code", c}}),
               &owner_.metrics_.counter("inference_objective_request_error", "requests that failed",
                                        {{"model_name", model}, {"target_model_name", target}, {"error_code", c}})};
  }
  counter.inc();
}

void Series::count_decision(std::string_view decision_type) {
  std::lock_guard lock(mutex_);
  TwinCounter& counter = decisions_[std::string(decision_type)];
  if (counter.now == nullptr) {
    const Labels now = {{"plugin_name", "disagg-profile-handler"},
                        {"plugin_type", "disagg-profile-handler"},
                        {"model_name", model},
                        {"decision_type", std::string(decision_type)}};
    const Labels old = {{"model_name", model}, {"decision_type", std::string(decision_type)}};
    counter = {&owner_.metrics_.counter("llm_d_epp_disagg_decision", "decisions by kind", now),
               &owner_.metrics_.counter("llm_d_inference_scheduler_disagg_decision", "decisions by kind", old)};
    decisions_["pd " + std::string(decision_type)] = {
        &owner_.metrics_.counter("llm_d_epp_pd_decision", "decisions by kind", now),
        &owner_.metrics_.counter("llm_d_inference_scheduler_pd_decision", "decisions by kind", old)};
  }
  decisions_[std::string(decision_type)].inc();
  decisions_["pd " + std::string(decision_type)].inc();
}

void Series::waited(std::string_view outcome, double seconds) {
  TwinHistogram histogram;
  {
    std::lock_guard lock(mutex_);
    TwinHistogram& slot = waits_[std::string(outcome)];
    if (slot.now == nullptr) {
      const Labels labels = {{"fairness_id", fairness_id},     {"priority", priority}, {"outcome", std::string(outcome)},
                             {"inference_pool", owner_.pool_}, {"model_name", model},  {"target_model_name", target}};
      const char* help = "time a request waited for the pool to have room";
      slot = {
          &owner_.metrics_.histogram("llm_d_epp_flow_control_request_queue_duration_seconds", help, kQueue, labels),
          &owner_.metrics_.histogram("inference_extension_flow_control_request_queue_duration_seconds", help, kQueue, labels)};
    }
    histogram = slot;
  }
  histogram.observe(seconds);
}

void Series::queued(int64_t requests_delta, int64_t bytes_delta) {
  {
    std::lock_guard lock(mutex_);
    if (queue_[0] == nullptr) {
      const Labels labels = {{"fairness_id", fairness_id},
                             {"priority", priority},
                             {"inference_pool", owner_.pool_},
                             {"model_name", model},
                             {"target_model_name", target}};
      size_t i = 0;
      for (const char* prefix : {"llm_d_epp_", "inference_extension_"}) {
        queue_[i++] = &owner_.metrics_.gauge(cat(prefix, "flow_control_queue_size"), "requests that wait", labels);
        queue_[i++] = &owner_.metrics_.gauge(cat(prefix, "flow_control_queue_bytes"), "their bodies", labels);
      }
    }
  }
  for (size_t i = 0; i < queue_.size(); i += 2) {
    queue_[i]->add(static_cast<double>(requests_delta));
    queue_[i + 1]->add(static_cast<double>(bytes_delta));
  }
}

PickerMetrics::PickerMetrics(Metrics& metrics, std::string pool) : metrics_(metrics), pool_(std::move(pool)) {
  for (size_t i = 0; i < fixed_.size(); ++i) {
    const Row& row = row_of(static_cast<PerPicker>(i));
    const bool prefix = row.name.starts_with("prefix_indexer");
    Labels labels;
    if (prefix) labels = {{"plugin_name", "approx-prefix-cache-producer"}, {"plugin_type", "approx-prefix-cache-producer"}};
    fixed_[i].now = &metrics_.histogram(now_name(row.name), row.help, row.bounds, labels);
    if (!row.old.empty()) fixed_[i].old = &metrics_.histogram(row.old, row.help, row.bounds);
  }
  const Labels failed = {{"status", "failure"}};
  failed_attempts_ = {&metrics_.counter("llm_d_epp_scheduler_attempts", "decisions by result", failed),
                      &metrics_.counter("inference_extension_scheduler_attempts", "decisions by result", failed)};
}

void PickerMetrics::count_media(std::string_view kind, bool held) {
  constexpr const char* kProducer = "mm-embeddings-cache-producer";
  const Labels labels = {{"plugin_type", kProducer}, {"plugin_name", kProducer}, {"modality", std::string(kind)}};
  metrics_.counter("llm_d_epp_encoder_cache_queries", "media of requests, by kind", labels).inc();
  if (held) metrics_.counter("llm_d_epp_encoder_cache_hits", "media that the worker was sent before, by kind", labels).inc();
}

void PickerMetrics::count_rewrite(std::string_view rewrite, std::string_view model, std::string_view target) {
  const Labels labels = {{"model_rewrite_name", std::string(rewrite)},
                         {"model_name", std::string(safe(kModel, model))},
                         {"target_model", std::string(safe(kModel, target))}};
  metrics_.counter("llm_d_epp_model_rewrite_decisions", "rewritten model names", labels).inc();
  metrics_.counter("inference_extension_model_rewrite_decisions", "rewritten model names", labels).inc();
}

std::string_view PickerMetrics::safe(Kind kind, std::string_view value) {
  constexpr std::string_view kOther = "other";
  if (value.size() > kLabelBytesMax) return kOther;
  auto& known = values_[kind];
  const std::string key(value);
  {
    std::shared_lock lock(mutex_);
    if (const auto at = known.find(key); at != known.end()) return *at;
    if (known.size() >= kLabelValuesMax) return kOther;
  }
  std::unique_lock lock(mutex_);
  if (known.size() >= kLabelValuesMax && !known.contains(key)) return kOther;
  return *known.insert(key).first;
}

Series& PickerMetrics::series(std::string_view model, std::string_view target, std::string_view fairness_id, int64_t priority) {
  const uint64_t hash = hash_of(model, target, fairness_id, priority);
  const std::string priority_text = std::to_string(priority);
  const auto find = [&]() -> Series* {
    for (auto [at, end] = series_.equal_range(hash); at != end; ++at) {
      Series& s = *at->second;
      if (s.model == model && s.target == target && s.fairness_id == fairness_id && s.priority == priority_text) return &s;
    }
    return nullptr;
  };
  {
    std::shared_lock lock(mutex_);
    if (Series* found = find()) return *found;
  }
  const std::string m(safe(kModel, model)), t(safe(kModel, target)), f(safe(kTenant, fairness_id));
  if (m != model || t != target || f != fairness_id) return series(m, t, f, priority);
  std::unique_lock lock(mutex_);
  if (Series* found = find()) return *found;
  if (series_.size() >= kSeriesMax) {
    if (other_ == nullptr) {
      auto made = std::make_unique<Series>(*this, "other", "other", "other", 0);
      other_ = series_.emplace(hash_of("other", "other", "other", 0), std::move(made))->second.get();
    }
    return *other_;
  }
  return *series_.emplace(hash, std::make_unique<Series>(*this, m, t, f, priority))->second;
}

}  // namespace baton::picker
