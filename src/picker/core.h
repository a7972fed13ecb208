#pragma once
// Core: what all Flights of a Picker share. Live is the configuration and cluster state in force, immutable and replaced whole; a
// Flight keeps the one it started with. Scratch is memory for one decision, borrowed from a free list, so that no request
// allocates in proportion to the pool. Threads: any. Owner: PickerImpl; Flights do not outlive it.
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/prng.h"
#include "picker/admission.h"
#include "picker/decision_log.h"
#include "picker/kv_event_source.h"
#include "picker/media_cache.h"
#include "picker/picker.h"
#include "picker/picker_metrics.h"
#include "picker/pool.h"
#include "picker/predictor.h"
#include "picker/prober.h"
#include "picker/rewrite.h"
#include "picker/sessions.h"
#include "picker/token_source.h"
#include "route/decide.h"
#include "route/prefix_index.h"

namespace baton::picker {

// The precise index and what feeds it; there is one where the plan wants KV events.
struct KvFeed {
  KvFeed(const route::KvEventsParams& given, const Clock& clock);
  void follow(const View& view);
  const route::KvEventsParams params;
  route::KvEventIndex index;
  KvEventSource source;
  TwinHistogram lookup;  // enableMetrics
};

struct Live {
  std::shared_ptr<const route::Plan> plan;
  std::shared_ptr<const discovery::ClusterState> cluster;
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  std::unordered_map<std::string, int, Hash, std::equal_to<>> priorities;  // by objective
  RewriteTable rewrites;
  std::shared_ptr<KvFeed> kv;
  std::shared_ptr<TokenSource> tokens;  // of text prompts, for kv; nullptr: only prompts given as token ids are known there
  std::shared_ptr<const PlanTimes> times;  // never nullptr
};

struct Scratch {
  explicit Scratch(const Clock& clock) : steps(clock) {}
  std::vector<route::Load> loads;
  std::vector<cost::WorkerCost> costs;
  std::vector<std::shared_ptr<const ScannedLora>> loras;
  std::vector<float> scores;
  std::vector<uint32_t> cold;
  std::vector<int64_t> media;
  std::unique_ptr<route::PrefixMatch> match = std::make_unique<route::PrefixMatch>();
  std::unique_ptr<route::KvMatch> kv;
  route::StepLog steps;
};

class Core {
 public:
  Core(PickerOptions options, std::shared_ptr<const route::Plan> plan, Metrics& metrics, const Clock& clock);
  ~Core();
  Result<> start();
  void stop();
  void set_plan(std::shared_ptr<const route::Plan> plan);
  void set_cluster(std::shared_ptr<const discovery::ClusterState> state);
  std::shared_ptr<const Live> live() const;
  void report_down(std::string_view address);
  void refresh_metrics();
  std::string debug_json() const;

  std::unique_ptr<Scratch> borrow();
  void give_back(std::unique_ptr<Scratch> scratch);
  Prng prng() { return Prng(Prng::at(seed_, draws_.fetch_add(1, std::memory_order_relaxed))); }
  int prefix_block_tokens(const route::Plan& plan) const;  // the engines' where the plan says so and they agree

  const PickerOptions options;
  const Clock& clock;
  PickerMetrics metrics;
  Pool pool;
  route::PrefixIndex prefix;
  Sessions sessions;
  MediaCache media;
  ColdOrder cold;
  DecisionLog decisions;
  Predictor predictor;
  std::unique_ptr<Replica> replica;  // nullptr: alone
  std::atomic<bool> stopped{false};
  uint64_t hash_seed;

 private:
  std::shared_ptr<const ProbePlan> probe_plan(const route::Plan& plan) const;
  std::shared_ptr<TokenSource> token_source(const route::Plan& plan);
  void endpoint_gone(const EndpointState& state);
  void start_feed(KvFeed& feed);
  ReplicaHooks replica_hooks();
  void propose_flip(const View& view);
  void fresh_numbers(const EndpointState& state);
  void set_capacity(const EndpointState& state, const route::PrefixParams& params);
  void arm(int64_t at_us);
  void pool_gauges(const View& view);
  void kv_counters();
  void endpoint_gauges(const View& view);
  void forget_gauges(const std::string& address);
  void set_gauge(const std::string& address, MetricId id, std::vector<std::string> values, double value);
  void raise_counter(const std::string& address, MetricId id, std::vector<std::string> values, double value);
  void own(const std::string& address, MetricId id, std::vector<std::string> values);

  const uint64_t seed_;
  std::atomic<uint64_t> draws_{0};
  mutable std::mutex mutex_;  // of live_; one writer at a time holds writer_mutex_
  std::mutex writer_mutex_;
  std::shared_ptr<const Live> live_;
  std::mutex scratch_mutex_;
  std::vector<std::unique_ptr<Scratch>> scratch_;
  std::atomic<int32_t> tuned_block_tokens_{0};
  void scrape_failed(ScrapeFault fault);
  std::array<TwinCounter, kScrapeFaultKinds> faults_{};
  TwinCounter poll_errors_, extract_errors_;
  struct OwnedSeries {
    MetricId id;
    std::vector<std::string> values;
  };
  std::mutex gauges_mutex_;
  std::unordered_map<std::string, std::vector<OwnedSeries>> owned_series_;  // by endpoint address: they vanish with it
  std::string last_flip_;                                                   // under gauges_mutex_
  bool started_ = false;

 public:
  Admission admission;
  Prober prober;  // last: its tasks use everything above
};

std::unique_ptr<Picker> picker_of(Core& core);  // a Picker over it, which must outlive that

}  // namespace baton::picker
