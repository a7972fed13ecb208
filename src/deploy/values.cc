#include "deploy/values.h"

#include <yaml-cpp/yaml.h>

#include <cmath>

#include "base/json.h"
#include "deploy/limits.h"

namespace baton::deploy {
namespace {

std::string scalar(const YAML::Node& node) {
  if (!node.IsDefined() || node.IsNull()) return "null";
  return node.Tag() == "!" || node.Scalar().empty() ? json_string(node.Scalar()) : node.Scalar();
}

void write(const YAML::Node& node, size_t indent, std::string& out) {
  const std::string pad(indent, ' ');
  const auto child = [&](const YAML::Node& value) {
    if ((value.IsMap() || value.IsSequence()) && value.size() > 0) {
      out += '\n';
      write(value, indent + 2, out);
    } else {
      out += cat(' ', value.IsMap() ? "{}" : value.IsSequence() ? "[]" : scalar(value), '\n');
    }
  };
  if (node.IsMap()) {
    for (const auto& entry : node) {
      out += cat(pad, scalar(entry.first), ':');
      child(entry.second);
    }
  } else if (node.IsSequence()) {
    for (const auto& item : node) {
      out += cat(pad, '-');
      child(item);
    }
  } else {
    out += cat(pad, scalar(node), '\n');
  }
}

YAML::Node quoted(const std::string& text) {
  YAML::Node out(text);
  out.SetTag("!");
  return out;
}

// Where the value after `flag` stands in a container's args; 0: the flag is not there.
size_t argument_at(const YAML::Node& args, std::string_view flag) {
  for (size_t i = 1; args.IsSequence() && i < args.size(); ++i) {
    if (args[i - 1].Scalar() == flag) return i;
  }
  return 0;
}

void add_role(const Plan& plan, const PhasePlan& phase, const char* role, YAML::Node base, YAML::Node& out) {
  out[role]["replicas"] = phase.replicas;
  const int before = base[role]["parallelism"]["tensor"].as<int>(1);
  if (phase.tp != before) out[role]["parallelism"]["tensor"] = phase.tp;
  YAML::Node containers = base[role]["containers"];
  if (!containers.IsSequence() || containers.size() == 0) return;
  YAML::Node server = containers[0];
  bool changed = false;
  // The value that the flag has, 0: none; another than `wanted` becomes it.
  const auto settle = [&](std::string_view flag, int wanted) {
    YAML::Node args = server["args"];
    const size_t at = argument_at(args, flag);
    const int had = at == 0 ? 0 : args[at].as<int>(0);
    if (had == 0 || had == wanted) return had;
    args[at] = quoted(std::to_string(wanted));
    changed = true;
    return had;
  };
  // Where the values leave the length to the model, a shorter one of the person's own is said.
  if (settle("--max-model-len", plan.ask.context) == 0 &&
      plan.ask.context != std::min(plan.environment->context, plan.shape.context)) {
    server["args"].push_back(quoted("--max-model-len"));
    server["args"].push_back(quoted(std::to_string(plan.ask.context)));
    changed = true;
  }
  settle("--tensor-parallel-size", phase.tp);
  if (const std::string& dtype = plan.ask.kv_cache_dtype; dtype != "auto") {
    if (const size_t at = argument_at(server["args"], "--kv-cache-dtype"); at > 0) {
      server["args"][at] = quoted(dtype);
    } else {
      server["args"].push_back(quoted("--kv-cache-dtype"));
      server["args"].push_back(quoted(dtype));
    }
    changed = true;
  }
  if (changed) out[role]["containers"] = containers;
}

}  // namespace

Result<YAML::Node> parse_yaml(const std::string& text) {
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalidArgument, "no YAML: ", e.what());
  }
}

std::string yaml_text(const YAML::Node& node, size_t indent) {
  std::string out;
  write(node, indent, out);
  return out;
}

Result<std::string> plan_values(const Plan& plan, const std::string& text) {
  BATON_TRY(const YAML::Node base, parse_yaml(text));
  try {
    YAML::Node out;
    if (base["modelArtifacts"]["name"].as<std::string>("") != plan.shape.name) {
      if (plan.shape.uri.empty())
        return fail(Code::kInvalidArgument, plan.shape.name,
                    " is a file of this machine; pods want modelArtifacts.uri: give --model-uri");
      YAML::Node model = out["modelArtifacts"];
      model["name"] = plan.shape.name;
      model["uri"] = plan.shape.uri;
      // Weights, and half of it again for what comes beside them.
      model["size"] = cat(std::max<int64_t>(1, std::llround(std::ceil(plan.shape.weight_bytes * 1.5 / (1 << 30)))), "Gi");
    }
    add_role(plan, plan.decode, "decode", base, out);
    add_role(plan, plan.prefill, "prefill", base, out);
    return yaml_text(out);
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalidArgument, "values: ", e.what());
  }
}

}  // namespace baton::deploy
