#include "engine/metrics.h"

#include <algorithm>
#include <chrono>
#include <iterator>

#include "engine/answer.h"

namespace baton::engine {
namespace {

using Bounds = std::vector<double>;

const Bounds& ttft_bounds() {
  static const Bounds b{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560};
  return b;
}
const Bounds& token_bounds() {
  static const Bounds b{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
  return b;
}
const Bounds& request_bounds() {
  static const Bounds b{.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
  return b;
}
// 1, 2, 5, 10, 20, 50, ... up to the longest sequence.
Bounds one_two_five(int32_t max) {
  Bounds out;
  for (double base = 1; base <= max; base *= 10) {
    for (double step : {1.0, 2.0, 5.0}) {
      if (base * step <= max) out.push_back(base * step);
    }
  }
  return out;
}

Labels with(Labels labels, const std::string& key, std::string_view value) {
  labels[key] = value;
  return labels;
}

struct Maker {
  Metrics& m;
  Labels labels;
  Gauge& gauge(std::string_view name, std::string_view help) const { return m.gauge(cat("vllm:", name), help, labels); }
  Counter& counter(std::string_view name, std::string_view help) const { return m.counter(cat("vllm:", name), help, labels); }
  Histogram& histogram(std::string_view name, std::string_view help, const Bounds& bounds) {
    return m.histogram(cat("vllm:", name), help, bounds, labels);
  }
  Gauge& waiting(std::string_view why) {
    return m.gauge("vllm:num_requests_waiting_by_reason", "Requests waiting, by reason.", with(labels, "reason", why));
  }
  Counter& cached(std::string_view from) {
    return m.counter("vllm:prompt_tokens_cached_by_source", "Prompt tokens not computed here, by who had their KV.", with(labels, "source", from));
  }
  Counter& source(std::string_view from) {
    return m.counter("vllm:prompt_tokens_by_source", "Prompt tokens, by where their KV came from.", with(labels, "source", from));
  }
};

Maker maker(Metrics& m, const MetricsConfig& c) { return {m, {{"model_name", c.model_name}, {"engine", "0"}}}; }

// Series that vLLM has and dashboards draw, of what never happens here: they stay 0.
void add_constant(Metrics& m, const Labels& labels, const std::string& model_name) {
  m.counter("vllm:mm_cache_queries", "Items looked up in the multi-modal cache: none, prompts are text.", labels);
  m.counter("vllm:mm_cache_hits", "Items found in the multi-modal cache.", labels);
  for (std::string_view source : {"host", "disk", "external_unspecified"}) {
    m.counter("vllm:prompt_tokens_cached_by_source", "Prompt tokens not computed here, by who had their KV.", with(labels, "source", source));
  }
  for (std::string_view reason : {"max_num_queued_reqs", "max_num_queued_tokens"}) {
    m.counter("vllm:admission_rejections", "Requests refused by a limit of the queue.", {{"model_name", model_name}, {"reason", std::string(reason)}});
  }
  m.counter("vllm:request_success", "Requests finished.", with(labels, "finished_reason", "repetition"));
  for (std::string_view what : {"flops", "read_bytes", "write_bytes"})
    m.counter(cat("vllm:estimated_", what, "_per_gpu"), "Counted by vLLM's --enable-mfu-metrics alone.", labels);
}

constexpr std::string_view kRequestTypes[] = {"chat_completions", "responses", "other"};

}  // namespace

EngineMetrics::EngineMetrics(Metrics& m, const MetricsConfig& c)
    : running(maker(m, c).gauge("num_requests_running", "Requests in model execution batches.")),
      waiting(maker(m, c).gauge("num_requests_waiting", "Requests waiting to be processed.")),
      waiting_capacity(maker(m, c).waiting("capacity")),
      waiting_deferred(maker(m, c).waiting("deferred")),
      kv_usage(maker(m, c).gauge("kv_cache_usage_perc", "KV cache usage; 1 means 100 percent.")),
      preemptions(maker(m, c).counter("num_preemptions", "Preemptions of running requests.")),
      prompt_tokens(maker(m, c).counter("prompt_tokens", "Prefill tokens processed.")),
      generation_tokens(maker(m, c).counter("generation_tokens", "Generation tokens processed.")),
      computed_tokens(m.counter("baton:model_tokens", "Tokens the model computed, prompt and generated, repeats included.")),
      prefix_queries(maker(m, c).counter("prefix_cache_queries", "Prefix cache queries, in tokens.")),
      prefix_hits(maker(m, c).counter("prefix_cache_hits", "Prefix cache hits, in tokens.")),
      external_queries(maker(m, c).counter("external_prefix_cache_queries", "Tokens looked up at a peer.")),
      external_hits(maker(m, c).counter("external_prefix_cache_hits", "Tokens served by a peer.")),
      source_compute(maker(m, c).source("local_compute")),
      source_cache(maker(m, c).source("local_cache_hit")),
      source_external(maker(m, c).source("external_kv_transfer")),
      prompt_cached(maker(m, c).counter("prompt_tokens_cached", "Prompt tokens not computed here.")),
      prompt_recomputed(maker(m, c).counter("prompt_tokens_recomputed", "Prompt tokens computed although a peer offered them.")),
      corrupted(maker(m, c).counter("corrupted_requests", "Requests with logits that are not numbers.")),
      cached_device(maker(m, c).cached("device")),
      cached_peer(maker(m, c).cached("p2p")),
      ttft(maker(m, c).histogram("time_to_first_token_seconds", "Time to first token.", ttft_bounds())),
      itl(maker(m, c).histogram("inter_token_latency_seconds", "Time between two tokens.", token_bounds())),
      tpot_token(maker(m, c).histogram("time_per_output_token_seconds", "Time between two tokens (old name).", token_bounds())),
      tpot_request(maker(m, c).histogram("request_time_per_output_token_seconds", "Mean time per output token of a request.",
                                         token_bounds())),
      e2e(maker(m, c).histogram("e2e_request_latency_seconds", "Request latency from arrival to the last token.",
                                request_bounds())),
      queue_time(maker(m, c).histogram("request_queue_time_seconds", "Time in WAITING.", request_bounds())),
      inference_time(maker(m, c).histogram("request_inference_time_seconds", "Time in RUNNING.", request_bounds())),
      prefill_time(maker(m, c).histogram("request_prefill_time_seconds", "Time in PREFILL.", request_bounds())),
      decode_time(maker(m, c).histogram("request_decode_time_seconds", "Time in DECODE.", request_bounds())),
      prompt_length(maker(m, c).histogram("request_prompt_tokens", "Prompt tokens of a request.", one_two_five(c.max_model_len))),
      generation_length(
          maker(m, c).histogram("request_generation_tokens", "Generated tokens of a request.", one_two_five(c.max_model_len))),
      max_generation(
          maker(m, c).histogram("request_max_num_generation_tokens", "Most tokens requested.", one_two_five(c.max_model_len))),
      params_max_tokens(
          maker(m, c).histogram("request_params_max_tokens", "max_tokens of a request.", one_two_five(c.max_model_len))),
      params_n(maker(m, c).histogram("request_params_n", "n of a request.", {1, 2, 5, 10, 20})),
      prefill_computed(maker(m, c).histogram("request_prefill_kv_computed_tokens", "Prompt tokens computed for a request.",
                                             one_two_five(c.max_model_len))),
      iteration_tokens(maker(m, c).histogram("iteration_tokens_total", "Tokens of one engine step.",
                                             {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384})),
      preemptions_of_request(maker(m, c).histogram("request_num_preemptions", "How often a request was preempted.", {1, 2, 3, 4, 5, 10, 20})),
      metrics_(m),
      labels_(maker(m, c).labels) {
  for (Finish f : {Finish::kStop, Finish::kLength, Finish::kAbort, Finish::kError, Finish::kCacheThreshold, Finish::kRepetition}) {
    finished_[f] = &m.counter("vllm:request_success", "Requests finished.", with(labels_, "finished_reason", finish_name(f)));
  }
  add_constant(m, labels_, c.model_name);
  for (size_t i = 0; i < tool_parser_.size(); ++i) {
    tool_parser_[i] = &m.counter("vllm:tool_call_parser_invocations", "Answers, or parts of streamed ones, that went through the tool parser.",
                                 {{"model_name", c.model_name},
                                  {"mode", i % 2 == 1 ? "streaming" : "non_streaming"},
                                  {"outcome", i / 2 % 2 == 1 ? "tool_call" : "no_tool_call"},
                                  {"request_type", std::string(kRequestTypes[i / 4])}});
  }
  if (c.speculative_tokens > 0) {
    const Maker make = maker(m, c);
    spec_decode_.drafts = &make.counter("spec_decode_num_drafts", "Drafts of speculative decoding.");
    spec_decode_.drafted = &make.counter("spec_decode_num_draft_tokens", "Draft tokens.");
    spec_decode_.accepted = &make.counter("spec_decode_num_accepted_tokens", "Draft tokens that were right.");
    for (int32_t i = 0; i < c.speculative_tokens; ++i) {
      spec_decode_.accepted_at.push_back(&m.counter("vllm:spec_decode_num_accepted_tokens_per_pos",
                                                    "Draft tokens that were right, by their position in the draft.",
                                                    with(labels_, "position", std::to_string(i))));
    }
  }
  adapters_.max = c.max_loras;
  if (shows_adapters()) show_adapters("", "");
  Labels cache = labels_;
  cache["block_size"] = std::to_string(c.block_tokens);
  cache["cache_dtype"] = c.cache_dtype;
  cache["num_gpu_blocks"] = std::to_string(c.blocks);
  cache["enable_prefix_caching"] = c.prefix_caching ? "True" : "False";
  m.gauge("vllm:cache_config_info", "Configuration of the KV cache.", cache).set(1);
  constexpr std::string_view kStates[] = {"awake", "weights_offloaded", "discard_all"};
  for (size_t i = 0; i < sleep_.size(); ++i)
    sleep_[i] = &m.gauge("vllm:engine_sleep_state", "Engine sleep state.", with(labels_, "sleep_state", kStates[i]));
  show_sleep(SleepState::kAwake);
}

void EngineMetrics::show_sleep(SleepState state) {
  for (size_t i = 0; i < sleep_.size(); ++i) sleep_[i]->set(i == static_cast<size_t>(state) ? 1 : 0);
}

// Labels are what changes here, and the value is the time: who reads it takes the newest series. The old one goes, so that the
// metrics do not grow with every combination of names there ever was.
void EngineMetrics::show_adapters(const std::string& now, const std::string& later) {
  constexpr std::string_view kName = "vllm:lora_requests_info";
  const auto labels = [&](const std::string& run, const std::string& wait) {
    return Labels{{"max_lora", std::to_string(adapters_.max)}, {"running_lora_adapters", run}, {"waiting_lora_adapters", wait}};
  };
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  const double seconds = std::chrono::duration<double>(time).count();
  if (adapters_.info && now == adapters_.running && later == adapters_.waiting) return adapters_.info->set(seconds);
  Gauge& next = metrics_.gauge(kName, "Running stats on lora requests.", labels(now, later));
  next.set(seconds);
  if (adapters_.info) metrics_.remove_gauge(kName, labels(adapters_.running, adapters_.waiting));
  adapters_.info = &next;
  adapters_.running = now;
  adapters_.waiting = later;
}

void EngineMetrics::count_draft(int32_t drafted, int32_t accepted) {
  spec_decode_.drafts->inc();
  spec_decode_.drafted->inc(drafted);
  spec_decode_.accepted->inc(accepted);
  for (int32_t i = 0; i < accepted; ++i) spec_decode_.accepted_at[static_cast<size_t>(i)]->inc();
}

Counter& EngineMetrics::finished(Finish finish) { return *finished_.at(finish); }

void EngineMetrics::count_http(std::string_view method, std::string_view route, int status, double seconds) {
  const std::string handler(route), verb(method);
  metrics_
      .counter("http_requests", "Requests by method, class of status and route.",
               {{"method", verb}, {"status", cat(status / 100, "xx")}, {"handler", handler}})
      .inc();
  metrics_.histogram("http_request_duration_seconds", "Time until a request was answered, by route.", {.1, .5, 1}, {{"method", verb}, {"handler", handler}})
      .observe(seconds);
  metrics_
      .histogram("http_request_duration_highr_seconds", "Time until a request was answered, in fine steps.",
                 {.01, .025, .05, .075, .1, .25, .5, .75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60})
      .observe(seconds);
}

void EngineMetrics::count_tool_parser(std::string_view request_type, bool streaming, bool called) {
  const auto* type = std::ranges::find(kRequestTypes, request_type);
  const auto i = static_cast<size_t>(type - std::begin(kRequestTypes));
  tool_parser_.at(4 * i + (called ? 2 : 0) + (streaming ? 1 : 0))->inc();
}

void EngineMetrics::count_hand_over(std::string_view mode) {
  metrics_
      .counter("kv_hand_over", "Prompts that came whole from a peer: while it computed them (push) or afterwards (pull).",
               {{"mode", std::string(mode)}})
      .inc();
}

void EngineMetrics::count_fallback(std::string_view why) {
  metrics_
      .counter("kv_fallback", "Requests whose offered KV was not used, so the prompt was computed here.",
               {{"reason", std::string(why)}})
      .inc();
}

}  // namespace baton::engine
