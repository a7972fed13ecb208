#pragma once
// `baton deploy`: its own commands, in the order a person needs them.
#include "apps/commands.h"
#include "base/log_json.h"
#include "deploy/plan_command.h"
#include "deploy/ratio.h"
#include "deploy/render.h"
#include "deploy/verify.h"
#include "stack/verify.h"

namespace baton {

inline std::vector<CheckResult> ask_stack(const deploy::VerifyCommand& c, const std::string& url) {
  return stack::run_checks({.url = url, .model = c.model, .api_key = c.api_key, .prompt_words = c.prompt_words, .timeout_s = c.timeout_s});
}

inline Result<> run_ratio(const deploy::RatioCommand& c) {
  LogLevel level = LogLevel::kInfo;
  log_level_from(c.log_level, level);
  (c.log_encoder == "json" ? log_setup_json : log_setup)("baton-ratio", level);
  block_stop_signals();
  deploy::RatioController controller(c);
  BATON_OK(controller.start());
  wait_for_stop();
  controller.stop();
  return {};
}

inline constexpr Command kDeployCommands[] = {
    {"plan", "how many workers of how many devices, and why",
     command<deploy::PlanCommand, deploy::plan_options, [](auto& c, auto&) { return deploy::plan(c); }>},
    {"render", "its values and manifests, by the guides' charts",
     command<deploy::RenderCommand, deploy::render_options, [](auto& c, auto&) { return deploy::render(c); }>},
    {"verify", "is the stack in a namespace right, and what to do if not",
     command<deploy::VerifyCommand, deploy::verify_options, [](auto& c, auto&) { return deploy::verify(c, ask_stack); }>},
    {"ratio", "a controller that keeps as many prefill and decode workers as the load wants",
     command<deploy::RatioCommand, deploy::ratio_options, [](auto& c, auto&) { return run_ratio(c); }>},
};

inline int deploy_command(const std::vector<std::string>& args) {
  return run_command(kDeployCommands, args, "baton deploy",
                     "baton deploy: from a model and its load to a stack on Kubernetes that works",
                     "docs/deploy.md tells the way.");
}

}  // namespace baton
