#pragma once
// What is kept of each Kubernetes object, read from its JSON, and the pool's members made of them. Pure.
// Tolerant as the API server itself is with what it does not know; an InferencePool that cannot be used is an error, so that the
// last good one stays in force. Source: facts sheet "epp" 6; the CRDs' schemas.
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "discovery/cluster.h"

namespace baton::discovery {

struct Pod {
  std::string name;
  bool ready = false;              // condition Ready, and not being deleted
  std::vector<std::string> hosts;  // valid addresses, the primary one first
  std::map<std::string, std::string> labels;
  std::optional<std::string> active_ports;  // the annotation
  std::string node;
  bool operator==(const Pod&) const = default;
};

struct NodePlace {  // a node's topology labels
  std::string rack, zone, region;
  bool operator==(const NodePlace&) const = default;
};

struct PoolSpec {
  std::string name, group;
  std::map<std::string, std::string> selector;  // never empty: it would select every pod, the picker's own too
  std::vector<int> ports;                       // 1 to 8
  std::string app_protocol;
  std::string picker;  // name of the Service of endpointPickerRef, "" = none
  bool operator==(const PoolSpec&) const = default;
};

// The pool an InferenceObjective or InferenceModelRewrite is for comes with it.
struct NamedObjective {
  std::string pool;
  Objective objective;
  bool operator==(const NamedObjective&) const = default;
};
struct NamedRewrite {
  std::string pool;
  Rewrite rewrite;
  bool operator==(const NamedRewrite&) const = default;
};

std::string object_name(const Json& object);  // metadata.name, "" if it has none
// Pieces of objects, nothing where they are not there: a list's items, a map's texts (labels, a selector).
const std::vector<Json>& items_at(const Json& object, std::initializer_list<std::string_view> path);
std::map<std::string, std::string> texts_at(const Json& object, std::initializer_list<std::string_view> path);
Result<Pod> parse_pod(const Json& object);
Result<NodePlace> parse_node(const Json& object);
Result<PoolSpec> parse_pool(const Json& object, std::string_view group);
Result<NamedObjective> parse_objective(const Json& object);
Result<NamedRewrite> parse_rewrite(const Json& object);

bool selects(const std::map<std::string, std::string>& selector, const std::map<std::string, std::string>& labels);
std::string selector_text(const std::map<std::string, std::string>& selector);  // "a=b,c=d", for labelSelector=

// Whether the pod runs on a node and does not say itself where that is.
bool wants_place(const Pod& pod);
// Fills in what the member's pod did not say.
void place(Member& member, const NodePlace& node);
// The pod's members: one per target port that is active, rank = the port's place in `ports`. None for a pod that is not ready.
std::vector<Member> members_of(const Pod& pod, const std::string& ns, const std::vector<int>& ports, std::string_view ip_family);

}  // namespace baton::discovery
