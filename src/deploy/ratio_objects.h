#pragma once
// Kubernetes objects as the ratio controller reads and writes them: a workload's Scale, the pods behind it, autoscalers that
// scale the same. Pure. Source: Kubernetes API reference, autoscaling/v1 Scale, autoscaling/v2; ReplicaSet, "Pod deletion cost".
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace baton::deploy {

struct Scale {
  int replicas = 0;      // asked for
  std::string selector;  // of its pods, as the API takes it
  std::string version;   // resourceVersion
  bool operator==(const Scale&) const = default;
};
Result<Scale> parse_scale(std::string_view object);  // an error without a selector: whose pods are whose would not be known
std::string scale_text(std::string_view ns, std::string_view name, const Scale& scale);

// ReplicaSets take the pod with the lowest cost first.
inline constexpr std::string_view kDeletionCost = "controller.kubernetes.io/pod-deletion-cost";
inline constexpr std::string_view kFirstToGo = "-1000";
std::string deletion_cost_patch(bool first_to_go);  // RFC 7386

struct ModelPod {
  std::string name, host;
  int port = 0;  // of its metrics
  bool ready = false, leaving = false, ended = false;
  bool first_to_go = false;
  bool operator==(const ModelPod&) const = default;
};
// port: where its containers name none.
Result<ModelPod> parse_model_pod(const Json& object, int port);

// Name of the HorizontalPodAutoscaler in the list that scales the Deployment; "" = none.
std::string autoscaler_of(const Json& list, std::string_view deployment);

}  // namespace baton::deploy
