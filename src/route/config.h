#pragma once
// load_config(): an EndpointPickerConfig of any generation to a Plan (plan.h). Reads YAML or JSON; apiVersion
// llm-d.ai/v1alpha1 and inference.networking.x-k8s.io/v1alpha1. Strict on what no release ever had, a warning on what an old one
// had; all errors together, each with its path ("plugins[3].parameters.threshold") and, where there is one, the near name.
// print_config() writes what was understood in today's schema, defaults and injected plugins included; loading that text gives
// an equal Plan. Pure; untrusted text (a fuzzer feeds it). Source: facts sheet "epp" 3, 4.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "route/plan.h"

namespace baton::route {

struct LoadOptions {
  bool allow_experimental = false;  // else alpha plugins are refused, naming the flag
  bool flow_control = false;        // gate forced on by a flag or historic environment variable
};

struct Loaded {
  std::shared_ptr<const Plan> plan;  // nullptr if there are errors
  std::vector<std::string> errors, warnings;
};

Loaded load_config(std::string_view text, const LoadOptions& options = {});
std::shared_ptr<const Plan> default_plan();  // no file given: facts sheet "epp" 3.3, plus active-request-scorer against herding
std::string print_config(const Plan& plan);

}  // namespace baton::route
