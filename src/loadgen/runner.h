#pragma once
// Runner: sends prompts as the plan says and collects Outcomes. Lives on one I/O thread inside run_bench().
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "loadgen/answer.h"
#include "loadgen/bench.h"
#include "loadgen/workload.h"
#include "net/http.h"

namespace baton::loadgen {

class Runner {
 public:
  Runner(const BenchConfig& config, const BenchPlan& plan, const Clock& clock, const OnProgress& on_progress);
  // The model to ask for: config.model, or the first of /v1/models, for which it waits up to ready_check_timeout_sec.
  net::Task<Result<std::string>> find_model();
  // Cuts or fills every prompt to its number of tokens if the server can tokenize; else leaves them as they are.
  net::Task<> align(std::vector<Prompt>& prompts);
  net::Task<Outcome> send(const Prompt& prompt, const std::string& id, int64_t intended_ns);
  // Due times in seconds from the start, ascending; at most `concurrency` at a time (0 = no limit).
  net::Task<std::vector<Outcome>> load(const std::vector<Prompt>& prompts, const std::vector<double>& due_s, int concurrency);
  void set_model(std::string model) { model_ = std::move(model); }

 private:
  net::Call call(std::string method, std::string path) const;
  net::Task<Result<Json>> post_json(std::string path, const JsonWriter& body);
  net::Task<Result<std::vector<int64_t>>> tokenize(const std::string& text);
  net::Task<Result<std::string>> detokenize(std::span<const int64_t> tokens);
  net::Task<bool> align_one(Prompt& prompt, Prng prng);
  net::Task<Result<>> exchange(const Prompt& prompt, const std::string& id, Outcome& out);

  const BenchConfig& config_;
  const BenchPlan& plan_;
  const Clock& clock_;
  const OnProgress& on_progress_;
  const bool ignore_eos_;
  std::string model_, id_prefix_;
  net::Client client_;
};

}  // namespace baton::loadgen
