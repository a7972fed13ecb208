#pragma once
// `baton deploy ratio`: a controller that keeps as many prefill and decode workers as the load wants. Every `interval` it looks
// at the Scales of two Deployments, their pods (watched) and the pods' metrics; the cost model says how many workers of each role
// such a load wants (cost/workers.h), cost::ratio_step() which step is next, and the step is written to the Scale's version that
// was read. One of several replicas acts, by a Lease. It never deletes a pod: Kubernetes does, and the pod's own hooks drain what
// it holds (docs/scaling.md); the idlest one is named as the first to go. It does nothing while an autoscaler scales the same
// Deployment, while a ready pod's numbers are missing, or while the API server does not answer. Thread: start() and stop() by the
// owner; all else on the controller's own I/O thread.
#include <memory>
#include <string>

#include "base/config.h"
#include "base/result.h"
#include "cost/ratio.h"
#include "cost/workers.h"

namespace baton::deploy {

struct RatioCommand {
  std::string ns = "", kubeconfig = "", context = "";
  std::string prefill = "", decode = "";  // Deployments
  int prefill_min = 1, prefill_max = 0, decode_min = 1, decode_max = 0;
  int prefill_devices = 0, decode_devices = 0, hold_devices = 0;  // of a worker: 0 = its tensor parallelism
  std::string model = "", device = "", prefill_cost = "", decode_cost = "";
  int prefill_tp = 1, decode_tp = 1;
  double ttft_ms = 2000, tpot_ms = 50, hand_over_ms = 50;
  int max_num_seqs = 256;
  int interval_s = 15, window_s = 60, up_s = 30, down_s = 300, settle_s = 60;
  double band = 0.2;
  bool dry_run = false;
  std::string lease = "baton-ratio";  // "" = nobody else runs one
  std::string host = "::", log_level = "info", log_encoder = "console";
  int port = 9090, metrics_port = 8000;

  cost::RatioPolicy policy() const;
  cost::LoadTargets targets() const;
  // Errors: everything that contradicts itself, a model or device that no table has.
  Result<std::pair<cost::WorkerCost, cost::WorkerCost>> costs() const;
};

Options ratio_options(RatioCommand& command);

class RatioController {
 public:
  explicit RatioController(RatioCommand command);
  ~RatioController();  // stops
  Result<> start();    // fails on what a person must mend; an API server that is away is waited for
  void stop();
  int port() const;  // of /metrics, /healthz, /readyz

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::deploy
