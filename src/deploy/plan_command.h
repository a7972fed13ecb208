#pragma once
// `baton deploy plan`: flags, questions for what they leave open where a person sits before a terminal, the plan.
// A plan that cannot be is an error: the command exits with 1 and has said what would fit.
#include "base/config.h"
#include "base/result.h"
#include "deploy/plan.h"

namespace baton::deploy {

struct PlanCommand {
  PlanAsk ask;
  bool json = false;
};
void add_plan_options(Options& options, PlanAsk& ask);  // what plan and render share
Options plan_options(PlanCommand& command);
Result<> plan(PlanCommand& command);

// The plan that the flags ask for; an error has the reason and the advice.
PlanResult plan_for(PlanAsk& ask);

}  // namespace baton::deploy
