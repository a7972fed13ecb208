#include "route/config.h"

#include <algorithm>

#include "route/config_parts.h"
#include "route/config_yaml.h"
#include "route/limits.h"

namespace baton::route {
namespace {

// A chart's values file by mistake: the configuration lies in it as a text.
const Json* inside_values(const Json& root) {
  const Json* custom = root.find_path({"inferenceExtension", "pluginsCustomConfig"});
  return custom != nullptr && custom->is_object() && custom->items.size() == 1 && custom->items[0].is_string() ? &custom->items[0]
                                                                                                               : nullptr;
}

void tell(Messages& m, Loaded& out) {
  out.errors = std::move(m.errors);
  out.warnings = std::move(m.warnings);
  if (m.errors_left_out > 0) out.errors.push_back(cat("and ", m.errors_left_out, " more"));
  if (m.warnings_left_out > 0) out.warnings.push_back(cat("and ", m.warnings_left_out, " more"));
}

// "key: name" of a plugin; "" for none.
std::string print_ref(const Plan& plan, std::string_view lead, int plugin) {
  return plugin < 0 ? "" : cat(lead, ": ", yaml_text(plan.policy->plugins[static_cast<size_t>(plugin)].name), "\n");
}

std::string print_band(const Plan& plan, const BandParams& band, const Plan::Policy::BandRefs& refs) {
  return cat("    maxBytes: ", band.bytes_max, "\n    maxRequests: ", band.requests_max, "\n",
             print_ref(plan, "    fairnessPolicyRef", refs.fairness), print_ref(plan, "    orderingPolicyRef", refs.ordering));
}

std::string print_flow_control(const Plan& plan) {
  const FlowControlParams& f = plan.flow_control;
  const Plan::Policy& policy = *plan.policy;
  std::string out = cat("flowControl:\n  maxBytes: ", f.bytes_max, "\n  maxRequests: ", f.requests_max,
                        "\n  defaultRequestTTL: ", f.ttl_ms, "ms\n");
  if (f.no_endpoint_ttl_ms >= 0) out += cat("  noEndpointRequestTTL: ", f.no_endpoint_ttl_ms, "ms\n");
  out += cat("  enableEviction: ", f.eviction, "\n");
  out += print_ref(plan, "  usageLimitPolicyPluginRef", policy.ceiling);
  if (policy.detector >= 0) out += "  saturationDetector:\n" + print_ref(plan, "    pluginRef", policy.detector);
  out += "  defaultPriorityBand:\n" + print_band(plan, f.default_band, policy.default_band);
  out += "  defaultNegativePriorityBand:\n" + print_band(plan, f.default_negative_band, policy.default_negative_band);
  if (!f.bands.empty()) out += "  priorityBands:\n";
  for (size_t i = 0; i < f.bands.size(); ++i) {
    out += cat("  - priority: ", f.bands[i].priority, "\n") + print_band(plan, f.bands[i], policy.bands[i]);
  }
  return out;
}

constexpr std::string_view kDefault = R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: decode-filter
- type: prefill-filter
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: active-request-scorer
- type: max-score-picker
- type: always-disagg-pd-decider
- type: disagg-profile-handler
  parameters: {deciders: {prefill: always-disagg-pd-decider}}
schedulingProfiles:
- name: decode
  plugins:
  - pluginRef: decode-filter
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: active-request-scorer, weight: 2}
  - pluginRef: max-score-picker
- name: prefill
  plugins:
  - pluginRef: prefill-filter
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: active-request-scorer, weight: 2}
  - pluginRef: max-score-picker
)";

}  // namespace

Loaded load_config(std::string_view text, const LoadOptions& options) {
  Loaded out;
  auto root = parse_yaml(text);
  if (root && inside_values(*root) != nullptr) {
    out.warnings.push_back(
        "this is a chart's values file; the configuration in its inferenceExtension.pluginsCustomConfig is read");
    root = parse_yaml(std::string(inside_values(*root)->text));
  }
  if (!root) {
    out.errors.push_back(root.error().message);
    return out;
  }
  if (!root->is_object()) {
    out.errors.push_back(root->is_null() ? "the file is empty" : "the file must be a map");
    return out;
  }
  Draft draft;
  draft.options = options;
  read_draft(*root, draft);
  modernise(draft);
  inject(draft);
  out.plan = compile(draft);
  std::vector<std::string> before = std::move(out.warnings);
  tell(draft.messages, out);
  out.warnings.insert(out.warnings.begin(), before.begin(), before.end());
  return out;
}

std::shared_ptr<const Plan> default_plan() {
  Loaded loaded = load_config(kDefault);
  for (const std::string& error : loaded.errors) std::fprintf(stderr, "default plan: %s\n", error.c_str());
  BATON_CHECK(loaded.plan != nullptr);
  return loaded.plan;
}

std::string print_config(const Plan& plan) {
  BATON_CHECK(plan.policy != nullptr);
  std::string out = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
  out += cat("featureGates:\n- flowControl=", plan.flow_control.enabled,
             "\n- haPopulateNonLeaderDatastore=", plan.passive_replica_warm, "\n");
  out += "plugins:\n";
  for (const PluginSpec& p : plan.policy->plugins) {
    out += cat("- type: ", p.row->type, "\n");
    if (p.name != p.row->type) out += cat("  name: ", yaml_text(p.name), "\n");
    if (const std::string params = print_params(*p.row, p.params, "    "); !params.empty()) out += "  parameters:\n" + params;
  }
  out += "schedulingProfiles:\n";
  for (const ProfileSpec& profile : plan.policy->profiles) {
    out += cat("- name: ", yaml_text(profile.name), "\n  plugins:\n");
    for (const ProfileSpec::Ref& ref : profile.refs) {
      const PluginSpec& p = plan.policy->plugins[static_cast<size_t>(ref.plugin)];
      out += cat("  - pluginRef: ", yaml_text(p.name), "\n");
      if ((p.row->kinds & kScorer) != 0) out += cat("    weight: ", shortest(ref.weight), "\n");
    }
  }
  out += "requestHandler:\n  parsers:\n";
  for (int parser : plan.policy->parsers) out += print_ref(plan, "  - pluginRef", parser);
  out += cat("dataLayer:\n  injectDefaults: ", plan.scrape, "\n");
  if (plan.policy->discovery >= 0) out += "  discovery:\n" + print_ref(plan, "    pluginRef", plan.policy->discovery);
  return out + print_flow_control(plan);
}

}  // namespace baton::route
