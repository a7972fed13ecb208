#pragma once
// Values: what a plan changes of an environment's own values file, as a values file to be put over it; nothing where they agree.
// Helm replaces lists as a whole, so containers are written out only where an argument of theirs must change. YAML in, YAML out.
#include <string>
#include <vector>

#include "base/result.h"
#include "deploy/plan.h"

namespace YAML {
class Node;
}

namespace baton::deploy {

// base: text of guides/pd-disaggregation/ms-pd/values*.yaml.
Result<std::string> plan_values(const Plan& plan, const std::string& base);
Result<YAML::Node> parse_yaml(const std::string& text);
// As YAML in block form; a scalar that was quoted stays a string.
std::string yaml_text(const YAML::Node& node, size_t indent = 0);

}  // namespace baton::deploy
