#pragma once
// Pools: the pools behind one gateway, each with its Picker, and which of them a request belongs to. A pools file (YAML or JSON):
//   pools:
//   - name: small
//     endpoints: small.yaml             # file-discovery; relative to the pools file, followed as it changes
//   - name: large
//     inference-pool: llm-d/large       # or an InferencePool, namespace/name; or pods by labels:
//     endpoint-selector: app=vllm       #   with endpoint-target-ports: [8000] and, optionally, namespace
//     kubeconfig: config                # optional; else as baton-router finds its own
//   Of either kind:
//     config: small-config.yaml         # EndpointPickerConfig, optional, followed as it changes
//     models: [a, b]                    # beside what its endpoints serve; optional
//     max-concurrent-requests: 100      # optional
//     propose-role-flips: true          # optional; as baton-router's flag
// A model belongs to the first pool that names it, else to the first whose endpoints serve it, else (unknown, or not said) to the
// first pool, which answers 404. Threads: route() any; the rest the owner's. Owner: the Gateway.
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "discovery/file_discovery.h"
#include "discovery/kubernetes.h"
#include "gateway/config.h"
#include "picker/picker.h"

namespace baton::gateway {

struct PoolSpec {
  std::string name, endpoints_file, config_file;
  std::string inference_pool, endpoint_selector, pool_namespace, kubeconfig;  // of a pool in Kubernetes
  std::vector<int> target_ports;
  std::vector<std::string> models;
  int concurrent_requests_max = 0;  // 0 = only the gateway's
  bool propose_role_flips = false;
};

// folder: what relative names in the file are relative to. All errors together, with their lines.
Result<std::vector<PoolSpec>> parse_pools(std::string_view text, std::string_view folder);

struct GatewayPool {
  PoolSpec spec;
  picker::Picker* picker = nullptr;
  std::unique_ptr<picker::Picker> own;  // empty: somebody else's
  std::unique_ptr<discovery::FileDiscovery> discovery;
  std::unique_ptr<discovery::KubernetesDiscovery> kubernetes;
  std::string config_text;  // in force
  std::atomic<int> in_flight{0};
  std::atomic<bool> refuses_token_ids{false};  // a worker takes no request with return_token_ids
  void set_members(std::vector<discovery::Member> members);
  Result<> follow_kubernetes();  // if the pool is there

 private:
  std::atomic<uint64_t> generation_{0};
};

class Pools {
 public:
  Result<> make(const GatewayConfig& config, Metrics& metrics, const Clock& clock);
  void adopt(std::string name, picker::Picker& picker);  // a picker that another door feeds
  Result<> start();                                      // pickers and discovery
  void stop_discovery();
  void stop();
  void look_at_configs();  // loads what has changed; a bad file keeps the old plan

  GatewayPool& route(std::string_view model);
  GatewayPool& first() { return *pools_.front(); }
  const std::vector<std::unique_ptr<GatewayPool>>& all() const { return pools_; }
  bool several() const { return pools_.size() > 1; }
  bool can_serve() const;
  bool knows_model(std::string_view id) const;
  std::vector<std::pair<std::string, std::string>> model_cards() const;  // (id, JSON), each id once

 private:
  Result<> add(PoolSpec spec, const GatewayConfig& config, Metrics& metrics, const Clock& clock);
  std::vector<std::unique_ptr<GatewayPool>> pools_;
  bool allow_experimental_ = false;
};

// The value of the top-level "model" of a JSON object, without reading more than is needed; "" if there is none or it is no plain
// text. Only to find the pool: the picker reads the body properly.
std::string_view peek_model(std::string_view body);

}  // namespace baton::gateway
