#pragma once
// `baton deploy`: its own commands, in the order a person needs them.
#include "apps/commands.h"
#include "deploy/plan_command.h"

namespace baton {

inline constexpr Command kDeployCommands[] = {
    {"plan", "how many workers of how many devices, and why",
     command<deploy::PlanCommand, deploy::plan_options, [](auto& c, auto&) { return deploy::plan(c); }>},
};

inline int deploy_command(const std::vector<std::string>& args) {
  return run_command(kDeployCommands, args, "baton deploy",
                     "baton deploy: from a model and its load to a stack on Kubernetes that works",
                     "docs/deploy.md tells the way.");
}

}  // namespace baton
