#pragma once
// ClusterState: everything the picker learns from outside about its pool, whole and immutable; each source (file, Kubernetes)
// publishes a new one per change, and none where nothing changed. An error of the source never takes members away: only what the
// source says does. The age of what is known is the source's business (KubernetesDiscovery::status()).
// Source: facts sheet "epp" 4.1, 6.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "discovery/members.h"

namespace baton::discovery {

struct Objective {  // InferenceObjective
  std::string name;
  int priority = 0;
  bool operator==(const Objective&) const = default;
};

struct RewriteTarget {
  int64_t weight = 0;  // 0 = not given; none given: all alike
  std::string model;
  bool operator==(const RewriteTarget&) const = default;
};
struct RewriteRule {
  std::vector<std::string> models;  // exact names; empty = any
  std::vector<RewriteTarget> targets;
  bool operator==(const RewriteRule&) const = default;
};
struct Rewrite {  // InferenceModelRewrite; oldest first wins among equals
  std::string name;
  int64_t created_s = 0;
  std::vector<RewriteRule> rules;
  bool operator==(const Rewrite&) const = default;
};

struct ClusterState {
  uint64_t generation = 0;
  bool synced = false;  // pool and pods were read once; before it the picker is not ready
  std::string pool, pool_namespace;
  std::string pool_group;    // API group the pool was found in; "" without an InferencePool
  std::string app_protocol;  // "" or "http", "kubernetes.io/h2c"
  std::vector<Member> members;
  std::vector<Objective> objectives;
  std::vector<Rewrite> rewrites;
  bool operator==(const ClusterState&) const = default;
};
using OnClusterState = std::function<void(std::shared_ptr<const ClusterState>)>;

}  // namespace baton::discovery
