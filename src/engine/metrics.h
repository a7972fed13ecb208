#pragma once
// EngineMetrics: vLLM's metric names with its labels and buckets, all created at start so that pickers and dashboards see zeros.
// Source: facts sheet "engine" 2. Handles live as long as the Metrics given. Any thread may inc/observe.
#include <array>
#include <map>
#include <string>

#include "base/metrics.h"
#include "engine/request.h"

namespace baton::engine {

// In vLLM's words, of its sleep levels: at 1 we give back the KV cache and keep the weights where they are, at 2 both.
enum class SleepState : uint8_t { kAwake, kWeightsOffloaded, kDiscardAll };

struct MetricsConfig {
  std::string model_name;
  int32_t max_model_len = 0, block_tokens = 0, blocks = 0;
  std::string cache_dtype = "auto";  // as --kv-cache-dtype says
  bool prefix_caching = true;
  int32_t speculative_tokens = 0;  // > 0: drafts are counted
  int32_t max_loras = 0;           // > 0: adapters in use are shown
};

class EngineMetrics {
 public:
  EngineMetrics(Metrics &metrics, const MetricsConfig &config);

  Gauge &running, &waiting, &waiting_capacity, &waiting_deferred, &kv_usage;
  Counter &preemptions, &prompt_tokens, &generation_tokens, &computed_tokens;
  Counter &prefix_queries, &prefix_hits, &external_queries, &external_hits;
  Counter &source_compute, &source_cache, &source_external, &prompt_cached, &prompt_recomputed, &corrupted;
  Counter &cached_device, &cached_peer;
  Histogram &ttft, &itl, &tpot_token, &tpot_request, &e2e, &queue_time, &inference_time, &prefill_time, &decode_time;
  Histogram &prompt_length, &generation_length, &max_generation, &params_max_tokens, &params_n, &prefill_computed,
      &iteration_tokens, &preemptions_of_request;

  Counter &finished(Finish finish);
  void count_draft(int32_t drafted, int32_t accepted);  // one draft of a sequence; speculative_tokens > 0 only
  void count_fallback(
      std::string_view reason);  // kv_fallback_total{reason}: a peer's KV was promised and we computed it ourselves
  // What the web framework under vLLM exports. route: of the route table, or "none"; status 0: nothing was answered.
  void count_http(std::string_view method, std::string_view route, int status, double seconds);
  // tool_call_parser_invocations_total: a whole answer, or a step's part of a streamed one, went through --tool-call-parser.
  // request_type: chat_completions, responses or other.
  void count_tool_parser(std::string_view request_type, bool streaming, bool called);
  void count_hand_over(std::string_view mode);  // kv_hand_over_total{mode}: how a peer's KV came, "push" or "pull"
  // lora_requests_info: names joined by commas. Step thread, where max_loras > 0.
  bool shows_adapters() const { return adapters_.max > 0; }
  void show_adapters(const std::string &running, const std::string &waiting);
  void show_sleep(SleepState state);  // engine_sleep_state{sleep_state}: 1 for this one, 0 for the others
  const Metrics &registry() const { return metrics_; }

 private:
  Metrics &metrics_;
  Labels labels_;
  std::map<Finish, Counter *> finished_;
  struct {
    Counter *drafts = nullptr, *drafted = nullptr, *accepted = nullptr;
    std::vector<Counter *> accepted_at;  // by position in the draft
  } spec_decode_;
  struct {
    int32_t max = 0;
    std::string running, waiting;
    Gauge *info = nullptr;
  } adapters_;
  std::array<Gauge *, 3> sleep_;           // by SleepState
  std::array<Counter *, 12> tool_parser_;  // by request type, outcome and mode
};

}  // namespace baton::engine
