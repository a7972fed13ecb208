#pragma once
// Pool: the endpoints the gateway knows, and what it learns of each. Membership comes from discovery, numbers from the Prober,
// in-flight counts from the requests themselves. View is immutable and replaced whole; a request keeps the one it started with.
// EndpointState lives as long as anyone holds it, so an InFlight counts on the instance it was made for and a flapping endpoint
// cannot drive a counter below zero. Threads: any; numbers are atomics, everything else is behind one short lock.
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "discovery/members.h"
#include "route/pick.h"

namespace baton::gateway {

struct ModelCard {
  std::string id;
  std::string json;  // the endpoint's own text
};

struct EndpointState {
  std::string host, address;
  int port = 0;
  int slot = 0;
  std::atomic<bool> removed{false};
  std::atomic<bool> healthy{false};     // set by the Prober, cleared by it and by requests that could not connect
  std::atomic<int64_t> scraped_ns{-1};  // when the numbers below were read; -1 = never
  std::atomic<int32_t> waiting{0}, running{0};
  std::atomic<float> kv_usage{0};
  std::atomic<int32_t> inflight_requests{0};
  std::atomic<int64_t> inflight_tokens{0};
  route::Load load(int64_t now_ns) const;
};

// One request on one endpoint, from dispatch to its end. release_tokens(): its prompt is computed (first answer byte).
class InFlight {
 public:
  InFlight() = default;
  InFlight(std::shared_ptr<EndpointState> state, int64_t tokens);
  InFlight(InFlight&&) noexcept = default;
  InFlight& operator=(InFlight&& other) noexcept;
  ~InFlight() { release(); }
  void release_tokens();
  void release();

 private:
  std::shared_ptr<EndpointState> state_;
  int64_t tokens_ = 0;
};

struct View {
  std::vector<route::Endpoint> endpoints;
  std::vector<std::shared_ptr<EndpointState>> states;  // parallel
  std::vector<ModelCard> models;                       // of all endpoints, each id once
  bool knows_model(std::string_view id) const;
};

class Pool {
 public:
  Pool();
  // Returns the endpoints that are new and want a probe. Members beyond route::kEndpointsMax are ignored, with a log line.
  std::vector<std::shared_ptr<EndpointState>> apply(const std::vector<discovery::Member>& members);
  void set_models(const EndpointState& state, std::vector<ModelCard> cards);
  std::shared_ptr<const View> view() const;

  route::PrefixMatch match(std::span<const uint64_t> chain) const;
  void record(std::span<const uint64_t> chain, int slot);
  size_t prefix_blocks() const;

 private:
  struct Entry {
    discovery::Member member;
    route::Role role = route::Role::kBoth;
    std::vector<ModelCard> cards;  // asked from the endpoint
    std::shared_ptr<EndpointState> state;
  };
  void publish();  // with mutex_ held
  int take_slot();

  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
  std::vector<bool> slots_used_;
  std::shared_ptr<const View> view_;
  mutable std::shared_mutex prefix_mutex_;
  route::PrefixIndex prefix_;
};

}  // namespace baton::gateway
