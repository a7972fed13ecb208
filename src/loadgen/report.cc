#include "loadgen/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/json.h"
#include "loadgen/limits.h"

namespace baton::loadgen {
namespace {

constexpr struct {
  const char *key, *name, *heading;
} kMetrics[] = {
    {"ttft", "TTFT", "Time to First Token"},
    {"tpot", "TPOT", "Time per Output Token (excl. 1st token)"},
    {"itl", "ITL", "Inter-token Latency"},
    {"e2el", "E2EL", "End-to-end Latency"},
    {"client_queue_time", "Client Queue Time", "Client-side Queueing"},
    {"e2el_including_client_queue", "E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency"},
};

std::string percentile_word(double p) { return p == std::floor(p) ? cat(static_cast<int>(p)) : cat(p); }

double percentile(std::span<const double> sorted, double p) {
  if (sorted.empty()) return 0;
  const double at = p / 100.0 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (at - static_cast<double>(below));
}

// Most tokens in any one-second bucket counted from the first request.
double peak_tokens(std::span<const Outcome> outcomes, int64_t begin_ns) {
  std::map<int64_t, int> buckets;
  for (const Outcome& o : outcomes) {
    if (!o.ok) continue;
    double at = static_cast<double>(o.first_ns - begin_ns) * 1e-9;
    ++buckets[static_cast<int64_t>(at)];
    for (double gap : o.itl_s) ++buckets[static_cast<int64_t>(at += gap)];
  }
  int peak = 0;
  for (const auto& [second, tokens] : buckets) peak = std::max(peak, tokens);
  return peak;
}

// Exact: the most requests between their sending and their last token at one moment. (vllm counts whole seconds and reports
// more.)
int peak_concurrency(std::span<const Outcome> outcomes) {
  std::vector<std::pair<int64_t, int>> steps;
  for (const Outcome& o : outcomes) {
    if (!o.ok) continue;
    steps.emplace_back(o.sent_ns, 1);
    steps.emplace_back(o.last_ns, -1);
  }
  std::ranges::sort(steps);  // at equal times the end comes first
  int now = 0, peak = 0;
  for (const auto& [at, step] : steps) peak = std::max(peak, now += step);
  return peak;
}

bool meets(const Outcome& o, const std::map<std::string, double>& slo_ms) {
  const double tpot = o.output_tokens > 1 ? (o.latency_s() - o.ttft_s()) / (o.output_tokens - 1) : 0;
  const std::pair<const char*, double> kValues[] = {{"ttft", o.ttft_s()}, {"tpot", tpot}, {"e2el", o.latency_s()}};
  return std::ranges::all_of(kValues, [&](const auto& value) {
    const auto slo = slo_ms.find(value.first);
    return slo == slo_ms.end() || value.second * 1e3 <= slo->second;
  });
}

struct Stage {
  std::string name;
  double sum_ms = 0;
  int n = 0;
};

// "queue=0.4,prefill=12.3" added up per name, names in the order they first come.
void add_stages(std::string_view text, std::vector<Stage>& stages) {
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    while (item.starts_with(' ')) item.remove_prefix(1);
    const size_t equals = item.find('=');
    double ms = 0;
    if (equals == std::string_view::npos || equals == 0) continue;
    if (std::from_chars(item.data() + equals + 1, item.data() + item.size(), ms).ec != std::errc() || !std::isfinite(ms))
      continue;
    auto stage = std::ranges::find(stages, item.substr(0, equals), &Stage::name);
    if (stage == stages.end()) stage = stages.insert(stage, {std::string(item.substr(0, equals))});
    stage->sum_ms += ms;
    ++stage->n;
  }
}

bool selected(const BenchPlan& plan, std::string_view metric) {
  return std::ranges::find(plan.metrics, metric) != plan.metrics.end();
}

template <class ValueOf>
void array(JsonWriter& w, std::string_view key, const BenchReport& report, ValueOf value_of) {
  w.key(key).array();
  for (const Outcome& o : report.outcomes) w.value(value_of(o));
  w.end();
}

void detailed(JsonWriter& w, const BenchReport& r) {
  array(w, "input_lens", r, [](const Outcome& o) { return o.prompt_tokens; });
  array(w, "output_lens", r, [](const Outcome& o) { return o.output_tokens; });
  array(w, "ttfts", r, [](const Outcome& o) { return o.ok ? o.ttft_s() : 0.0; });
  w.key("itls").array();
  for (const Outcome& o : r.outcomes) {
    w.array();
    for (double gap : o.itl_s) w.value(gap);
    w.end();
  }
  w.end();
  array(w, "latencies", r, [](const Outcome& o) { return o.ok ? o.latency_s() : 0.0; });
  array(w, "start_times", r, [](const Outcome& o) { return static_cast<double>(o.sent_ns) * 1e-9; });
  array(w, "queue_times", r, [](const Outcome& o) { return o.queue_s(); });
  array(w, "generated_texts", r, [](const Outcome& o) { return o.text; });
  array(w, "errors", r, [](const Outcome& o) { return o.error; });
}

}  // namespace

Summary summarize(std::vector<double> values, std::span<const double> percentiles) {
  Summary out;
  out.percentiles.assign(percentiles.size(), 0.0);
  if (values.empty()) return out;
  std::ranges::sort(values);
  const auto n = static_cast<double>(values.size());
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (double v : values) squares += (v - out.mean) * (v - out.mean);
  out.std = std::sqrt(squares / n);
  out.median = percentile(values, 50);
  for (size_t i = 0; i < percentiles.size(); ++i) out.percentiles[i] = percentile(values, percentiles[i]);
  return out;
}

BenchReport make_report(std::vector<Outcome> outcomes, double duration_s, const BenchPlan& plan) {
  BenchReport r;
  r.outcomes = std::move(outcomes);
  r.duration_s = duration_s;
  std::map<std::string, std::vector<double>> samples;
  std::vector<Stage> stages;
  int good = 0;
  int64_t begin_ns = INT64_MAX;
  for (const Outcome& o : r.outcomes) {
    if (!o.ok) {
      ++r.failed;
      continue;
    }
    ++r.completed;
    begin_ns = std::min(begin_ns, o.sent_ns);
    r.input_tokens += o.prompt_tokens;
    r.output_tokens += o.output_tokens;
    samples["ttft"].push_back(o.ttft_s());
    if (o.output_tokens > 1) samples["tpot"].push_back((o.latency_s() - o.ttft_s()) / (o.output_tokens - 1));
    samples["itl"].insert(samples["itl"].end(), o.itl_s.begin(), o.itl_s.end());
    samples["e2el"].push_back(o.latency_s());
    samples["client_queue_time"].push_back(o.queue_s());
    samples["e2el_including_client_queue"].push_back(o.latency_s() + o.queue_s());
    good += meets(o, plan.goodput_ms);
    r.prefilled_remotely += o.worker.find("prefill=") != std::string::npos;
    add_stages(o.ttft_stages, stages);
  }
  for (const auto& metric : kMetrics) r.metrics[metric.key] = summarize(std::move(samples[metric.key]), plan.percentiles);
  for (const Stage& stage : stages) r.ttft_stages_ms.emplace_back(stage.name, stage.sum_ms / stage.n);
  const double seconds = duration_s > 0 ? duration_s : 1;
  r.request_throughput = r.completed / seconds;
  if (!plan.goodput_ms.empty()) r.request_goodput = good / seconds;
  r.output_throughput = static_cast<double>(r.output_tokens) / seconds;
  r.total_token_throughput = static_cast<double>(r.input_tokens + r.output_tokens) / seconds;
  r.max_output_tokens_per_s = r.completed > 0 ? peak_tokens(r.outcomes, begin_ns) : 0;
  r.max_concurrent_requests = peak_concurrency(r.outcomes);
  return r;
}

std::string report_text(const BenchReport& r, const BenchConfig& config, const BenchPlan& plan) {
  std::string out = fmt::format("{:=^50}\n", " Serving Benchmark Result ");
  auto whole = [&](const char* name, int64_t v) { out += fmt::format("{:<40} {:<10}\n", name, v); };
  auto real = [&](std::string_view name, double v) { out += fmt::format("{:<40} {:<10.2f}\n", name, v); };
  whole("Successful requests:", r.completed);
  whole("Failed requests:", r.failed);
  if (config.max_concurrency > 0) whole("Maximum request concurrency:", config.max_concurrency);
  if (std::isfinite(config.request_rate)) real("Request rate configured (RPS):", config.request_rate);
  real("Benchmark duration (s):", r.duration_s);
  whole("Total input tokens:", r.input_tokens);
  whole("Total generated tokens:", r.output_tokens);
  real("Request throughput (req/s):", r.request_throughput);
  if (r.request_goodput) real("Request goodput (req/s):", *r.request_goodput);
  real("Output token throughput (tok/s):", r.output_throughput);
  real("Peak output token throughput (tok/s):", r.max_output_tokens_per_s);
  real("Peak concurrent requests:", r.max_concurrent_requests);
  real("Total token throughput (tok/s):", r.total_token_throughput);
  // A limit on concurrency or a rate means that a request may wait in the client: say so beside the latency that leaves it out.
  const bool queues = config.max_concurrency > 0 && std::isfinite(config.request_rate);
  for (const auto& metric : kMetrics) {
    const bool about_queue = std::string_view(metric.key).find("client_queue") != std::string_view::npos;
    if (!selected(plan, metric.key) && !(about_queue && queues)) continue;
    const Summary& s = r.metrics.at(metric.key);
    out += fmt::format("{:-^50}\n", metric.heading);
    real(fmt::format("Mean {} (ms):", metric.name), s.mean * 1e3);
    real(fmt::format("Median {} (ms):", metric.name), s.median * 1e3);
    for (size_t i = 0; i < plan.percentiles.size(); ++i) {
      real(fmt::format("P{} {} (ms):", percentile_word(plan.percentiles[i]), metric.name), s.percentiles[i] * 1e3);
    }
  }
  if (!r.ttft_stages_ms.empty()) {
    out += fmt::format("{:-^50}\n", "Time to First Token by Stage");
    for (const auto& [name, ms] : r.ttft_stages_ms) real(fmt::format("Mean {} (ms):", name), ms);
  }
  out += fmt::format("{:-^50}\n", "Client");
  if (r.prefilled_remotely > 0) whole("Requests prefilled on another worker:", r.prefilled_remotely);
  const double lag_p99 = summarize(
                             [&] {
                               std::vector<double> lag;
                               for (const Outcome& o : r.outcomes) lag.push_back(o.queue_s());
                               return lag;
                             }(),
                             std::vector<double>{99})
                             .percentiles[0];
  if (std::isfinite(config.request_rate)) real("P99 send lag behind schedule (ms):", lag_p99 * 1e3);
  real("Client CPU (% of one core):", r.client_cpu_share * 100);
  out += std::string(50, '=') + "\n";
  return out;
}

std::string report_json(const BenchReport& r, const BenchConfig& config, const BenchPlan& plan) {
  JsonWriter w;
  w.object().field("date", r.date).field("endpoint_type", config.backend).field("backend", config.backend);
  if (config.label.empty())
    w.field_null("label");
  else
    w.field("label", config.label);
  w.field("model_id", r.model).field_null("tokenizer_id").field("num_prompts", config.num_prompts);
  for (const auto& [key, value] : plan.metadata) w.field(key, value);
  if (std::isinf(config.request_rate))
    w.field("request_rate", "inf");
  else
    w.field("request_rate", config.request_rate);
  w.field("burstiness", config.burstiness);
  if (config.max_concurrency > 0)
    w.field("max_concurrency", config.max_concurrency);
  else
    w.field_null("max_concurrency");
  w.field("duration", r.duration_s).field("completed", r.completed).field("failed", r.failed);
  w.field("total_input_tokens", r.input_tokens)
      .field("total_output_tokens", r.output_tokens)
      .field("request_throughput", r.request_throughput);
  if (r.request_goodput)
    w.field("request_goodput", *r.request_goodput);
  else
    w.field_null("request_goodput");
  w.field("output_throughput", r.output_throughput).field("total_token_throughput", r.total_token_throughput);
  if (config.save_detailed) detailed(w, r);
  w.field("max_output_tokens_per_s", r.max_output_tokens_per_s).field("max_concurrent_requests", r.max_concurrent_requests);
  w.field("rtfx", 0.0);
  for (const auto& metric : kMetrics) {
    const Summary& s = r.metrics.at(metric.key);
    w.field(cat("mean_", metric.key, "_ms"), s.mean * 1e3).field(cat("median_", metric.key, "_ms"), s.median * 1e3);
    w.field(cat("std_", metric.key, "_ms"), s.std * 1e3);
    for (size_t i = 0; i < plan.percentiles.size(); ++i) {
      w.field(cat("p", percentile_word(plan.percentiles[i]), "_", metric.key, "_ms"), s.percentiles[i] * 1e3);
    }
  }
  w.key("ttft_stages_ms").object();
  for (const auto& [name, ms] : r.ttft_stages_ms) w.field(name, ms);
  w.end().field("prefilled_remotely", r.prefilled_remotely).field("client_cpu_share", r.client_cpu_share).end();
  return w.take();
}

std::string result_filename(const BenchReport& r, const BenchConfig& config) {
  std::string name = config.result_filename;
  if (name.empty()) {
    const std::string model = r.model.substr(r.model.rfind('/') + 1);  // npos + 1 = 0: the whole name
    const std::string rate = std::isinf(config.request_rate) ? "inf" : cat(config.request_rate);
    const std::string concurrency = config.max_concurrency > 0 ? cat("-concurrency", config.max_concurrency) : "";
    name = cat(config.label.empty() ? config.backend : config.label, "-", rate, "qps", concurrency, "-", model, "-", r.date,
               ".json");
  }
  return config.result_dir.empty() ? name : cat(config.result_dir, "/", name);
}

}  // namespace baton::loadgen
