#pragma once
// LeaderElection: at most one of several replicas leads, by a Lease (coordination.k8s.io/v1) that it keeps renewing.
// A follower trusts its own clock alone: a lease has ended when its record did not change for `lease` as seen from here, whatever
// its timestamps say, so clocks of machines may differ. A leader that could not renew for `renew_deadline` steps down by itself,
// before a follower may take over (renew_deadline < lease); leads() also turns false by the clock alone.
// Guarantees: on_change(true) and on_change(false) alternate, on the election's own thread; stop() steps down, gives the lease
// back at once so that a standby need not wait, and on_change(false) has returned before stop() does. Source: facts sheet "epp"
// 6; client-go's leader election as documented.
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "discovery/kube_access.h"
#include "discovery/kube_timing.h"

namespace baton::discovery {

struct LeaderOptions {
  std::string kubeconfig, context;
  std::optional<KubeAccess> access;
  std::string ns, lease_name;  // lease_name_for(): what llm-d uses
  std::string identity;        // "" = host name and a random id
  std::chrono::milliseconds lease{15'000}, renew_deadline{10'000}, retry{2'000};
  KubeTiming timing;
  uint64_t seed = 0;
};

std::string lease_name_for(const std::string& pool_namespace, const std::string& pool);  // "epp-<namespace>-<pool>.llm-d.ai"

class LeaderElection {
 public:
  explicit LeaderElection(LeaderOptions options);
  ~LeaderElection();
  // Fails only on credentials and on durations that contradict each other.
  Result<> start(std::function<void(bool leader)> on_change);
  void stop();
  bool leads() const;
  std::string leader() const;  // identity of the holder as last seen, "" = none or not known
  const std::string& identity() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::discovery
