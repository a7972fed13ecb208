#pragma once
// BenchConfig: what a person can ask of `baton bench`. Flags are spelled as in `vllm bench serve`; those of it that we do not
// have are named in a warning and ignored. Source: vLLM benchmarks/serve.py; facts sheet "performance" 6.
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace baton::loadgen {

struct BenchConfig {
  std::string backend = "openai";
  std::string base_url, host = "127.0.0.1", endpoint;
  int port = 8000;
  std::string model, served_model_name;
  std::vector<std::string> headers;  // KEY=VALUE
  std::string api_key;

  std::string dataset_name, dataset_path;
  int num_prompts = 1000;
  int input_len = 0, output_len = 0;  // 0 = the dataset's own
  int random_input_len = 1024, random_output_len = 128, random_prefix_len = 0, custom_output_len = 256;
  double random_range_ratio = 0;
  int64_t seed = 0;

  int max_concurrency = 0;  // 0 = no limit
  double request_rate = std::numeric_limits<double>::infinity();
  double burstiness = 1;
  int num_warmups = 0;
  int ready_check_timeout_sec = 0;

  bool ignore_eos = false;
  double temperature = -1, top_p = -1, min_p = -1, repetition_penalty = -1;  // -1 = not sent
  int top_k = -2;                                                            // -2 = not sent (-1 means "all")
  std::string extra_body;
  std::string request_id_prefix;

  std::string percentile_metrics = "ttft,tpot,itl,e2el", metric_percentiles = "99";
  std::vector<std::string> goodput;  // ttft:500 tpot:30 e2el:2000, ms
  bool save_result = false, save_detailed = false, append_result = false, disable_tqdm = false;
  std::string result_dir, result_filename, label;
  std::vector<std::string> metadata;  // KEY=VALUE
};

Options bench_options(BenchConfig& config);

// The texts above as values.
struct Target {
  std::string host, base_path, endpoint;  // request path = base_path + endpoint
  int port = 0;
  bool chat = false;
  std::vector<std::pair<std::string, std::string>> headers;
};
struct BenchPlan {
  Target target;
  std::vector<std::string> metrics;  // "ttft", ...
  std::vector<double> percentiles;
  std::map<std::string, double> goodput_ms;
  std::vector<std::pair<std::string, std::string>> metadata;
};
Result<BenchPlan> check_config(const BenchConfig& config);

}  // namespace baton::loadgen
