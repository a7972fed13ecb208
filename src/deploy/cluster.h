#pragma once
// Cluster: what the API server says about a namespace, read once, for checks that are functions of it; and read_cluster(), which
// asks: the groups it serves, the objects of a stack in the namespace, the secrets its pods name, the metrics of its decode pods
// through the API server's own proxy. What cannot be asked (403, 404, no answer) is part of what was seen.
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "discovery/kube_client.h"
#include "discovery/kube_objects.h"

namespace baton::deploy {

struct Look {
  int status = 0;     // of HTTP; 0: no answer
  std::string error;  // "" where it is 200
  Json json;
};

struct Cluster {
  std::string ns;
  std::map<std::string, Look, std::less<>> looks;           // by what was asked for: "groups", "pods", "secret/NAME", ...
  std::map<std::string, std::string, std::less<>> metrics;  // of decode pods, by name; "" = none came

  const Look* find(std::string_view what) const;             // nullptr: not asked
  std::span<const Json> items(std::string_view what) const;  // of a list; none if it could not be read
};

// Path of a list as the API server has it.
std::string list_path(std::string_view what, std::string_view ns);
net::Task<Cluster> read_cluster(discovery::KubeClient& client, std::string ns);
net::Task<> read_metrics(discovery::KubeClient& client, Cluster& cluster);  // after requests went through

// A cluster recorded as one JSON object {"groups": ..., "pods": ..., "metrics": {...}}: for tests.
Result<Cluster> recorded_cluster(std::string_view json, std::string ns);

// --- pieces of objects, "" and nothing where they are not there
std::string text_at(const Json& object, std::initializer_list<std::string_view> path);
using discovery::items_at, discovery::object_name, discovery::texts_at;
const Json* condition(std::span<const Json> conditions, std::string_view type);
std::string role_of(const Json& pod);                      // label llm-d.ai/role
int metrics_port(const Json& pod);                         // of its model server; 0: none said
bool is_model_pod(const Json& pod);                        // either spelling of the serving label, or a role
std::string named(const std::vector<std::string>& names);  // "a, b, c and 4 more"

}  // namespace baton::deploy
