#pragma once
// Pool: the endpoints the picker knows, and what it learns of each. Membership comes from ClusterState, numbers from the Prober,
// in-flight counts from the requests themselves. View is immutable and replaced whole; a request keeps the one it started with.
// EndpointState lives as long as anyone holds it, so an InFlight counts on the instance it was made for and a flapping endpoint
// cannot drive a counter below zero. Threads: any; numbers are atomics, everything else is behind one short lock.
// Source: facts sheet "epp" 4.7 inflight-load-producer, 9.13.
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "cost/cost.h"
#include "discovery/members.h"
#include "picker/metrics_scan.h"
#include "route/endpoint.h"

namespace baton::picker {

class Series;

struct ModelCard {
  std::string id;
  std::string json;  // the endpoint's own text
};

// What is counted of one endpoint's requests by tenant and priority, for the gauges of the in-flight producer.
struct InFlightCell {
  std::string fairness_id, priority, target;
  std::atomic<uint64_t> attempts{0};  // requests ever sent there
  std::atomic<int32_t> requests{0};
  std::atomic<int64_t> tokens{0};
};

struct EndpointState {
  std::string host, address, name;
  int port = 0, slot = 0;
  std::string engine;  // value of the engine label, "" = the default
  std::atomic<bool> removed{false};
  std::atomic<bool> healthy{false};     // set by the Prober, cleared by it and by requests that could not connect
  std::atomic<int64_t> scraped_ns{-1};  // when the numbers below were read; -1 = never
  std::atomic<int32_t> waiting{0}, running{0};
  std::atomic<float> kv_usage{0}, kv_usage_max{0};
  std::atomic<int32_t> block_tokens{0};
  std::atomic<int64_t> blocks_total{0};
  mutable std::atomic<bool> capacity_known{false};  // blocks_total was told to the prefix index
  std::atomic<int32_t> inflight_requests{0};
  std::atomic<int64_t> inflight_tokens{0};
  std::atomic<int64_t> context_tokens{0};               // of the requests being decoded, prompt and answer so far
  std::atomic<uint64_t> sent{0}, sent_when_scraped{0};  // requests dispatched ever, and when the last scrape began
  // Requests and tokens that other replicas of this picker have on it.
  std::atomic<int32_t> peer_requests{0};
  std::atomic<int64_t> peer_tokens{0};

  route::Load load(int64_t now_ns) const;  // without LoRA and predictions
  // Dispatched since the numbers were read, and so not in them.
  int32_t unseen() const;
  std::shared_ptr<const ScannedLora> lora() const;
  void set_lora(ScannedLora lora);
  cost::WorkerCost cost() const;
  void set_cost(const cost::WorkerCost& cost);
  InFlightCell& cell(const Series& series);  // made on first use
  void each_cell(const std::function<void(const InFlightCell&)>& f) const;

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const ScannedLora> lora_;
  std::unordered_map<const Series*, std::unique_ptr<InFlightCell>> cells_;
  std::array<std::atomic<double>, 7> cost_{};  // written whole and read piecewise: a mix of two fits is as good as either
};

// One request on one endpoint, from dispatch to its end. release_tokens(): its prompt is computed (first answer byte).
class InFlight {
 public:
  InFlight() = default;
  InFlight(std::shared_ptr<EndpointState> state, int64_t tokens, InFlightCell* cell = nullptr);
  InFlight(InFlight&& other) noexcept;
  InFlight& operator=(InFlight&& other) noexcept;
  ~InFlight() { release(); }
  void release_tokens();
  void release();
  void set_context(int64_t tokens);  // it is being decoded, with this much context
  EndpointState* state() const { return state_.get(); }

 private:
  std::shared_ptr<EndpointState> state_;
  int64_t tokens_ = 0, context_ = 0;
  InFlightCell* cell_ = nullptr;  // the state's
};

struct View {
  std::vector<route::Endpoint> endpoints;
  std::vector<std::shared_ptr<EndpointState>> states;  // parallel
  std::vector<ModelCard> models;                       // of all endpoints, each id once
  std::unordered_map<std::string, int> by_name;        // name and address to index
  bool knows_model(std::string_view id) const;
  int find(const std::string& name_or_address) const;  // -1 if there is none
};

class Pool {
 public:
  Pool();
  struct Change {
    std::vector<std::shared_ptr<EndpointState>> fresh;  // want a probe
    std::vector<int> gone;                              // slots whose prefixes are to be forgotten
  };
  // Members beyond route::kEndpointsMax are ignored, with a log line. healthy: what a new endpoint counts as.
  Change apply(const std::vector<discovery::Member>& members, std::string_view engine_label, bool healthy);
  void set_models(const EndpointState& state, std::vector<ModelCard> cards);
  std::shared_ptr<const View> view() const;

 private:
  struct Entry {
    discovery::Member member;
    route::Role role = route::Role::kBoth;
    bool role_given = true;
    std::vector<ModelCard> cards;  // asked from the endpoint
    std::shared_ptr<EndpointState> state;
  };
  void take_over(std::vector<Entry>& old, const discovery::Member& member);
  void publish();  // with mutex_ held
  int take_slot();

  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
  std::vector<bool> slots_used_;
  std::shared_ptr<const View> view_;
};

}  // namespace baton::picker
