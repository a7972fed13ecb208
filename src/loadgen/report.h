#pragma once
// BenchReport: exact statistics over every sample (nothing is bucketed), the table of vllm bench serve and its result JSON.
// Definitions (facts sheet "performance" 6.1): TTFT from sending to the first event; TPOT = (E2E - TTFT) / (output tokens - 1),
// each request weighs the same; ITL pools every gap; client_queue_time = sent - intended, so an overloaded or late client shows.
// Percentiles interpolate linearly, std is the population's, both as numpy. Pure. Units: seconds inside, ms in names that say so.
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loadgen/answer.h"
#include "loadgen/config.h"

namespace baton::loadgen {

struct Summary {
  double mean = 0, median = 0, std = 0;
  std::vector<double> percentiles;  // parallel to BenchPlan.percentiles
};
Summary summarize(std::vector<double> values, std::span<const double> percentiles);

struct BenchReport {
  double duration_s = 0;
  int completed = 0, failed = 0;
  int64_t input_tokens = 0, output_tokens = 0;
  double request_throughput = 0, output_throughput = 0, total_token_throughput = 0;
  std::optional<double> request_goodput;
  double max_output_tokens_per_s = 0;
  int max_concurrent_requests = 0;
  std::map<std::string, Summary> metrics;                      // "ttft", ... in seconds
  std::vector<std::pair<std::string, double>> ttft_stages_ms;  // mean of each stage the servers reported, in their order
  int prefilled_remotely = 0;
  double client_cpu_share = 0;    // of one core
  std::vector<Outcome> outcomes;  // in the order of the prompts
  std::string model, date;
};

BenchReport make_report(std::vector<Outcome> outcomes, double duration_s, const BenchPlan& plan);
std::string report_text(const BenchReport& report, const BenchConfig& config, const BenchPlan& plan);
std::string report_json(const BenchReport& report, const BenchConfig& config, const BenchPlan& plan);
std::string result_filename(const BenchReport& report, const BenchConfig& config);

}  // namespace baton::loadgen
