#pragma once
// RatioRole: one of the two Deployments that the ratio controller scales: its Scale, its pods as a watch keeps them, their
// metrics, and the steps. Requires: everything on the I/O thread of its wiring, which outlives it. Errors name the Deployment
// and, where the cluster's rules forbid something, the command that would allow it.
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/clock.h"
#include "base/metrics.h"
#include "cost/ratio.h"
#include "deploy/ratio_load.h"
#include "deploy/ratio_objects.h"
#include "discovery/kept_objects.h"
#include "discovery/kube_client.h"
#include "discovery/reflector.h"

namespace baton::deploy {

class RatioRole {
 public:
  struct Wiring {
    discovery::KubeClient& client;
    const Clock& clock;
    Metrics& metrics;
    net::IoThread& io;
    std::string ns;
    int64_t window_ms = 60'000;
    int port = 8000;  // of a model server's metrics, where its containers name none
  };
  RatioRole(Wiring wiring, std::string name, std::string deployment);
  void stop();

  net::Task<Result<>> read_scale(net::Cancel* cancel);
  net::Task<Result<>> read_pods(net::Cancel* cancel);  // and their metrics; an error until the watch knows them
  net::Task<Result<>> scale_to(int replicas, net::Cancel* cancel);

  int replicas() const { return scale_.replicas; }
  cost::RoleNow now(double wanted) const;
  std::optional<RoleLoad> load() const;  // nullopt: a ready pod's numbers are missing, or there were not two looks yet
  const LoadMeter& meter() const { return meter_; }
  void show(double wanted);

 private:
  struct Pods;
  net::Task<Result<ServerNumbers>> scrape(const ModelPod& pod, net::Cancel* cancel);
  net::Task<> name_first_to_go(net::Cancel* cancel);
  net::Task<Result<std::string>> ask(discovery::KubeClient::Ask ask, std::string_view resource, std::string_view verbs);
  void follow(const std::string& selector);
  std::string scale_path() const;
  Counter& steps(std::string_view direction);

  Wiring wiring_;
  std::string name_, deployment_;
  net::Client http_{64};
  Scale scale_;
  std::shared_ptr<Pods> pods_;
  LoadMeter meter_;
  std::map<std::string, int> busy_;  // requests on a ready pod, as last read
  size_t ready_ = 0, unread_ = 0;
  std::string unread_why_;
  Gauge &replicas_gauge_, &ready_gauge_, &wanted_gauge_, &unread_gauge_;
  Counter &up_, &down_;  // steps taken
};

}  // namespace baton::deploy
