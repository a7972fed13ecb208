#pragma once
// `baton sim`: a pool that does not exist under a load that has not come: policies side by side over a ladder of rates. One row a
// (policy, rate). A policy is a name below or an EndpointPickerConfig file, which is loaded as the picker loads it.
#include <cstdint>
#include <string>

#include "base/config.h"
#include "base/result.h"

namespace baton::sim {

struct SimCommand {
  std::string profile = "h100-llama-3.1-8b";
  int prefill = 0, decode = 0, both = 0;  // workers; all 0 = 16 that do both
  std::string policies = "prefix-aware,least-loaded,random", config_file;
  std::string workload = "shared-prefix", rates = "5,10,15,20,25,30";
  int requests = 1'000, groups = 150, turns = 5;
  int shared_tokens = 6'000, question_tokens = 1'200, output_tokens = 1'000;
  double spread = 0.3, think_s = 10, scrape_ms = 50;
  int then_question_tokens = 0, then_output_tokens = 0;  // of as many requests again; 0: no second half
  bool ratio = false;                                    // each row once more, with the ratio controller
  double ttft_ms = 2'000, tpot_ms = 50, start_s = 60;
  int64_t seed = 1;
  bool json = false;
};

Options sim_options(SimCommand& command);
Result<> sim(const SimCommand& command);
// The EndpointPickerConfig behind a policy name; "" if there is none.
std::string policy_config(std::string_view name, bool disaggregated);

}  // namespace baton::sim
