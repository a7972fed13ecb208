#pragma once
// AllowList: which workers a request header may name, so that whoever can send headers cannot make the sidecar call anything it
// reaches. A worker is allowed if --allowed-prefillers has it, or if it is a member of the InferencePool: its address, or its
// pod's name, and its port. llm-d's list looks at the address alone, which leaves every other port of a pod open.
// Off (everything is allowed) without --enable-ssrf-protection and --allowed-prefillers, as llm-d's.
// Owner: Shared; start() and stop() from one thread, the rest from any. Source: facts sheet "kv_transfer" 1.12, 8.8.
#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>

#include "discovery/kubernetes.h"
#include "sidecar/config.h"
#include "sidecar/hosts.h"

namespace baton::sidecar {

// One entry of --allowed-prefillers: "prefill.svc", "10.1.2.3:8000", "10.0.0.0/8", "[fd00::]/8:8000".
struct Allowed {
  std::string name;                         // lower case; "" = the addresses below
  std::array<unsigned char, 16> address{};  // IPv4 as ::ffff:a.b.c.d
  int prefix_bits = 128;
  int port = 0;  // 0 = any
  bool has(const HostPort& worker) const;
};
Result<Allowed> parse_allowed(std::string_view text);

class AllowList {
 public:
  enum class Answer { kYes, kNo, kNotKnownYet };  // not known: the pool was not read yet

  // access: how to reach the API server; nullopt = look it up.
  explicit AllowList(const SidecarConfig& config, std::optional<discovery::KubeAccess> access = std::nullopt);
  ~AllowList();
  // Reads the pool, for at most `wait`; after that it goes on in the background. An error is a person's to mend.
  Result<> start(std::chrono::milliseconds wait);
  void stop();
  bool on() const { return on_; }
  Answer look_up(const HostPort& worker) const;

 private:
  void take(const discovery::ClusterState& state);
  bool on_ = false, watches_pool_ = false;
  std::vector<Allowed> fixed_;
  std::unique_ptr<discovery::KubernetesDiscovery> pool_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool synced_ = false;
  std::set<std::pair<std::string, int>> members_;
};

}  // namespace baton::sidecar
