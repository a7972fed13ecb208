#pragma once
// KubernetesDiscovery: ClusterState from the API server: one InferencePool (inference.networking.k8s.io/v1 or
// inference.networking.x-k8s.io/v1alpha2, whichever has it) or a label selector and ports, the pods it selects, and the optional
// InferenceObjectives and InferenceModelRewrites of it (llm-d.ai/v1alpha2, else inference.networking.x-k8s.io/v1alpha2). Rack, zone
// and region come from the pods' labels, and, where those lack them and RBAC lets us, from their nodes'.
// start() fails only on what a person must mend (no credentials, contradicting options); after it an API server that is slow,
// gone or talks nonsense is retried for ever with backoff while the last state stays in force.
// Owner: any; on_change runs on the discovery's own thread, first when pool and pods were read, and must not call stop(); the
// rest from any thread. Source: facts sheet "epp" 2.1, 2.2, 6.
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "discovery/cluster.h"
#include "discovery/kube_access.h"
#include "discovery/kube_timing.h"

namespace baton::discovery {

struct KubernetesOptions {
  std::string kubeconfig, context;         // --kubeconfig; see find_kube_access()
  std::optional<KubeAccess> access;        // given: no look-up
  std::string pool_name;                   // exactly one of pool_name and endpoint_selector
  std::string pool_namespace;              // "" = $NAMESPACE, the credentials' namespace, "default"
  std::string pool_group;                  // "" = both API groups, inference.networking.k8s.io first
  std::string endpoint_selector;           // standalone: "app=vllm,tier in (a,b)"
  std::vector<int> endpoint_target_ports;  // standalone: 1 to 8
  std::string pod_name;                    // standalone: the pool is named after our Deployment; "" = $POD_NAME
  std::string ip_family;                   // "" = the pod's first address, "ipv4", "ipv6" where it has one
  KubeTiming timing;
  uint64_t seed = 0;  // of the backoff's jitter; 0 = random
};

struct KubernetesStatus {
  bool synced = false;
  int64_t age_ms = -1;  // since every watch last heard from the API server; -1 = never
  uint64_t lists = 0, watches = 0, events = 0, errors = 0, denied = 0;  // since start
  std::string last_error;
};

class KubernetesDiscovery {
 public:
  explicit KubernetesDiscovery(KubernetesOptions options);
  ~KubernetesDiscovery();  // stops
  Result<> start(OnClusterState on_change);
  void stop();
  std::shared_ptr<const ClusterState> current() const;  // never null
  KubernetesStatus status() const;
  const std::string& pool() const;            // after start(): the pool's name, in standalone mode the Deployment's
  const std::string& pool_namespace() const;  // after start()

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// "gaie-pd-epp-54444ddc66-qv6ds" -> "gaie-pd-epp": the Deployment a pod belongs to, by its name alone.
std::optional<std::string> deployment_of_pod(std::string_view pod_name);

}  // namespace baton::discovery
