#include "discovery/kube_objects.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "discovery/kube_files.h"
#include "discovery/limits.h"

namespace baton::discovery {
namespace {

constexpr const char *kRackLabel = "topology.kubernetes.io/rack", *kZoneLabel = "topology.kubernetes.io/zone",
                     *kRegionLabel = "topology.kubernetes.io/region", *kOldZoneLabel = "failure-domain.beta.kubernetes.io/zone",
                     *kOldRegionLabel = "failure-domain.beta.kubernetes.io/region";

constexpr const char* kActivePorts[] = {"llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"};
constexpr const char* kRoleLabel = "llm-d.ai/role";

std::string text_at(const Json& object, std::initializer_list<std::string_view> path) {
  const Json* found = object.find_path(path);
  return found && found->is_string() && found->text.size() <= kTextBytesMax ? found->text : "";
}

int int_at(const Json& object, std::string_view key) {
  const Json* found = object.find(key);
  const auto value = found ? found->as_int() : std::nullopt;
  return value && *value >= INT32_MIN && *value <= INT32_MAX ? static_cast<int>(*value) : 0;
}

int family_of(const std::string& address) {  // AF_INET, AF_INET6, or 0 for what is no address
  in6_addr bytes;
  if (inet_pton(AF_INET, address.c_str(), &bytes) == 1) return AF_INET;
  return inet_pton(AF_INET6, address.c_str(), &bytes) == 1 ? AF_INET6 : 0;
}

Result<std::string> named(const Json& object) {
  std::string name = object_name(object);
  if (name.empty()) return fail(Code::kInvalidArgument, "an object without a name");
  return name;
}

Result<> add_port(int port, std::vector<int>& ports) {
  if (port < 1 || port > 65535) return fail(Code::kInvalidArgument, "target port ", port, " is not 1 to 65535");
  if (std::ranges::find(ports, port) != ports.end()) return fail(Code::kInvalidArgument, "target port ", port, " is there twice");
  if (ports.size() == kTargetPortsMax) return fail(Code::kInvalidArgument, "more than ", kTargetPortsMax, " target ports");
  ports.push_back(port);
  return {};
}

// The ports the annotation names; what is no number is skipped, as llm-d does.
std::set<int> ports_named(std::string_view list) {
  std::set<int> out;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::string word = trimmed(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
    int port = 0;
    if (std::from_chars(word.data(), word.data() + word.size(), port).ec == std::errc()) out.insert(port);
  }
  return out;
}

std::string first_label(const Pod& pod, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (const auto found = pod.labels.find(key); found != pod.labels.end()) return found->second;
  }
  return "";
}

}  // namespace

std::map<std::string, std::string> texts_at(const Json& object, std::initializer_list<std::string_view> path) {
  std::map<std::string, std::string> out;
  const Json* found = object.find_path(path);
  if (!found || !found->is_object()) return out;
  for (size_t i = 0; i < found->keys.size() && out.size() < kLabelsMax; ++i) {
    const Json& value = found->items[i];
    if (value.is_string() && value.text.size() <= kTextBytesMax && found->keys[i].size() <= kTextBytesMax) {
      out.insert_or_assign(found->keys[i], value.text);
    }
  }
  return out;
}

const std::vector<Json>& items_at(const Json& object, std::initializer_list<std::string_view> path) {
  static const std::vector<Json> kNone;
  const Json* found = object.find_path(path);
  return found && found->is_array() ? found->items : kNone;
}

std::string object_name(const Json& object) { return text_at(object, {"metadata", "name"}); }

Result<Pod> parse_pod(const Json& object) {
  Pod out;
  BATON_TRY(out.name, named(object));
  const Json* deleting = object.find_path({"metadata", "deletionTimestamp"});
  for (const Json& condition : items_at(object, {"status", "conditions"})) {
    if (text_at(condition, {"type"}) == "Ready")
      out.ready = text_at(condition, {"status"}) == "True" && (!deleting || deleting->is_null());
  }
  const auto add = [&](std::string address) {
    if (family_of(address) != 0 && std::ranges::find(out.hosts, address) == out.hosts.end())
      out.hosts.push_back(std::move(address));
  };
  add(text_at(object, {"status", "podIP"}));
  for (const Json& item : items_at(object, {"status", "podIPs"})) {
    if (out.hosts.size() < 4) add(text_at(item, {"ip"}));
  }
  out.labels = texts_at(object, {"metadata", "labels"});
  for (const char* key : kActivePorts) {
    const Json* found = object.find_path({"metadata", "annotations", key});
    if (found && found->is_string() && !out.active_ports) out.active_ports = found->text.substr(0, kTextBytesMax);
  }
  out.node = text_at(object, {"spec", "nodeName"});
  return out;
}

Result<PoolSpec> parse_pool(const Json& object, std::string_view group) {
  PoolSpec out;
  BATON_TRY(out.name, named(object));
  out.group = group;
  // v1: selector.matchLabels, targetPorts[].number, endpointPickerRef; v1alpha2: a flat selector, targetPortNumber, extensionRef.
  out.selector = texts_at(object, {"spec", "selector", "matchLabels"});
  if (out.selector.empty()) out.selector = texts_at(object, {"spec", "selector"});
  if (out.selector.empty()) return fail(Code::kInvalidArgument, "its selector is empty");
  for (const Json& port : items_at(object, {"spec", "targetPorts"})) BATON_OK(add_port(int_at(port, "number"), out.ports));
  const Json* single = object.find_path({"spec", "targetPortNumber"});
  if (out.ports.empty() && single) BATON_OK(add_port(int_at(*object.find("spec"), "targetPortNumber"), out.ports));
  if (out.ports.empty()) return fail(Code::kInvalidArgument, "it has no target port");
  out.app_protocol = text_at(object, {"spec", "appProtocol"});
  out.picker = text_at(object, {"spec", "endpointPickerRef", "name"});
  if (out.picker.empty()) out.picker = text_at(object, {"spec", "extensionRef", "name"});
  return out;
}

Result<NamedObjective> parse_objective(const Json& object) {
  NamedObjective out;
  BATON_TRY(out.objective.name, named(object));
  out.pool = text_at(object, {"spec", "poolRef", "name"});
  if (const Json* spec = object.find("spec")) out.objective.priority = int_at(*spec, "priority");
  return out;
}

Result<NamedRewrite> parse_rewrite(const Json& object) {
  NamedRewrite out;
  BATON_TRY(out.rewrite.name, named(object));
  out.pool = text_at(object, {"spec", "poolRef", "name"});
  out.rewrite.created_s = unix_from_rfc3339(text_at(object, {"metadata", "creationTimestamp"})).value_or(0);
  for (const Json& item : items_at(object, {"spec", "rules"})) {
    if (out.rewrite.rules.size() == kRewriteItemsMax) break;
    RewriteRule rule;
    bool usable = true;
    for (const Json& match : items_at(item, {"matches"})) {
      const std::string model = text_at(match, {"model", "value"}), type = text_at(match, {"model", "type"});
      usable &= !model.empty() && (type.empty() || type == "Exact");
      if (usable && rule.models.size() < kRewriteItemsMax) rule.models.push_back(model);
    }
    for (const Json& target : items_at(item, {"targets"})) {
      const Json* weight = target.find("weight");
      const int64_t parts = weight ? std::clamp<int64_t>(weight->as_int().value_or(0), 0, 1'000'000) : 0;
      if (rule.targets.size() < kRewriteItemsMax) rule.targets.push_back({parts, text_at(target, {"modelRewrite"})});
    }
    usable &= !rule.targets.empty() && std::ranges::none_of(rule.targets, [](const RewriteTarget& t) { return t.model.empty(); });
    // A match we do not know must not become "any model".
    if (usable) out.rewrite.rules.push_back(std::move(rule));
  }
  return out;
}

bool selects(const std::map<std::string, std::string>& selector, const std::map<std::string, std::string>& labels) {
  return std::ranges::all_of(selector, [&](const auto& wanted) {
    const auto found = labels.find(wanted.first);
    return found != labels.end() && found->second == wanted.second;
  });
}

std::string selector_text(const std::map<std::string, std::string>& selector) {
  std::string out;
  for (const auto& [key, value] : selector) out += cat(out.empty() ? "" : ",", key, '=', value);
  return out;
}

Result<NodePlace> parse_node(const Json& object) {
  if (object_name(object).empty()) return fail(Code::kInvalidArgument, "a node without a name");
  const Json* labels = object.find_path({"metadata", "labels"});
  const auto label = [&](std::initializer_list<std::string_view> keys) -> std::string {
    for (const std::string_view key : keys) {
      const Json* value = labels != nullptr ? labels->find(key) : nullptr;
      if (value != nullptr && value->is_string() && value->text.size() <= kTextBytesMax) return value->text;
    }
    return {};
  };
  return NodePlace{
      .rack = label({kRackLabel}), .zone = label({kZoneLabel, kOldZoneLabel}), .region = label({kRegionLabel, kOldRegionLabel})};
}

bool wants_place(const Pod& pod) {
  const auto says = [&](const char* label) { return pod.labels.contains(label); };
  return !pod.node.empty() && (!(says(kZoneLabel) || says(kOldZoneLabel)) || !says(kRackLabel));
}

void place(Member& member, const NodePlace& node) {
  if (member.rack.empty()) member.rack = node.rack;
  if (member.zone.empty()) member.zone = node.zone;
  if (member.region.empty()) member.region = node.region;
}

std::vector<Member> members_of(const Pod& pod, const std::string& ns, const std::vector<int>& ports, std::string_view ip_family) {
  std::vector<Member> out;
  if (!pod.ready || pod.hosts.empty()) return out;
  Member member;
  member.other_hosts = pod.hosts;
  const int wanted = ip_family == "ipv4" ? AF_INET : ip_family == "ipv6" ? AF_INET6 : 0;
  auto at = std::ranges::find_if(member.other_hosts, [&](const std::string& host) { return family_of(host) == wanted; });
  if (at == member.other_hosts.end()) at = member.other_hosts.begin();
  member.host = *at;
  member.other_hosts.erase(at);
  member.labels = pod.labels;
  member.role = first_label(pod, {kRoleLabel});
  member.ns = ns;
  member.pod = pod.name;
  member.node = pod.node;
  // Kubernetes copies a node's topology to its pods since 1.35 (PodTopologyLabels); before it, admission policies do.
  member.rack = first_label(pod, {kRackLabel});
  member.zone = first_label(pod, {kZoneLabel, kOldZoneLabel});
  member.region = first_label(pod, {kRegionLabel, kOldRegionLabel});
  const std::set<int> active = ports_named(pod.active_ports.value_or(""));
  for (size_t rank = 0; rank < ports.size(); ++rank) {
    if (pod.active_ports && !active.contains(ports[rank])) continue;
    member.port = ports[rank];
    member.rank = static_cast<int>(rank);
    member.name = cat(ns, '/', pod.name, "-rank-", rank);
    out.push_back(member);
  }
  return out;
}

}  // namespace baton::discovery
