#pragma once
// What `baton deploy plan` says: one screen, or one JSON object. Pure.
#include <string>

#include "deploy/plan.h"

namespace baton::deploy {

std::string plan_screen(const Plan& plan, bool color);
std::string plan_json(const Plan& plan);
std::string no_plan_text(const NoPlan& no);  // why, and a line each for what would do; no line end
std::string no_plan_json(const NoPlan& no);
std::string render_flags(const Plan& plan);  // what `baton deploy render` takes to make it

}  // namespace baton::deploy
