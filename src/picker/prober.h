#pragma once
// Prober: asks every endpoint how it is: /health (alive?), /v1/models (what does it serve?), /metrics (how busy?), each only
// where something needs it. One task an endpoint on one I/O thread of its own, keep-alive. A busy endpoint's /metrics is read
// every `interval`, an idle one's every `idle` (ProbePlan), one that is down is tried five times a second. Engines that can are
// asked for the wanted families alone. An endpoint counts as down at once when it refuses the connection or answers /health with
// an error, and after kProbeTimeoutsMax probes without an answer; a /metrics that fails only lets the numbers age. Owner: the
// Picker; follow(), set_plan() from any thread; stop() ends every task. Source: facts sheet "epp" 5, 9.5, 9.8.
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "base/clock.h"
#include "net/http.h"
#include "net/tls.h"
#include "picker/limits.h"
#include "picker/metrics_scan.h"
#include "picker/pool.h"

namespace baton::picker {

struct ProbePlan {
  bool health = true, models = true, metrics = true, lora = true;
  int64_t interval_ms = 50, idle_ms = 1'000;
  std::string path = "/metrics", default_engine = "vllm";
  int port = 0;                                                           // of /metrics; 0 = the endpoint's own
  std::shared_ptr<net::TlsClient> tls;                                    // /metrics by https
  std::map<std::string, std::shared_ptr<const MetricsScanner>> scanners;  // by engine
  const MetricsScanner& scanner(const std::string& engine) const;
};
// Every engine of the table and every custom one. Errors: a custom metric name that is none.
Result<std::map<std::string, std::shared_ptr<const MetricsScanner>>> make_scanners(const route::SourceParams& source);

// Why an endpoint's numbers could not be read.
enum class ScrapeFault : uint8_t { kTimeout, kConnect, kStatus, kTooLarge, kNoNumbers };
std::string_view scrape_fault_name(ScrapeFault fault);
inline constexpr int kScrapeFaultKinds = 5;

class Prober {
 public:
  struct Events {
    std::function<void(const EndpointState&)> fresh;                // numbers were read
    std::function<void(const EndpointState&, ScrapeFault)> failed;  // they could not be
    std::function<void(EndpointState&)> changed;                    // healthy or not
  };
  Prober(Pool& pool, const Clock& clock, Events events);
  ~Prober();
  void set_plan(std::shared_ptr<const ProbePlan> plan);
  void follow(std::shared_ptr<EndpointState> state);
  void spawn(std::function<net::Task<>()> make) { thread_.spawn(std::move(make)); }  // other background work of the picker
  void stop();
  bool stopping() const { return stopping_; }

 private:
  struct Task;
  net::Task<> run(std::shared_ptr<EndpointState> state);
  net::Task<bool> probe(Task& task, const ProbePlan& plan);
  net::Task<> ask_models(Task& task);
  net::Task<> scrape(Task& task, const ProbePlan& plan);
  net::Task<Result<net::Response>> get(Task& task, std::string_view target, int timeout_ms, const ProbePlan* metrics = nullptr);
  net::Task<> pause(const Task& task, const ProbePlan& plan);
  std::shared_ptr<const ProbePlan> plan() const;

  Pool& pool_;
  const Clock& clock_;
  Events events_;
  mutable std::mutex mutex_;
  std::shared_ptr<const ProbePlan> plan_;
  std::atomic<bool> stopping_{false};
  int places_ = 0;  // of thread_
  net::IoThread thread_{net::Millis(kGatherMs)};
};

// The cards of a /v1/models answer; unusable ones are left out.
std::vector<ModelCard> read_model_cards(std::string_view body);

}  // namespace baton::picker
