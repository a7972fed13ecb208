#pragma once
// FlowQueue: requests that wait for the pool to have room. Bands strictly by priority; inside a band flows (tenants) share by the
// fairness policy; inside a flow requests go by the ordering policy. Pure and event driven: the caller says when something
// happened and what time it is; nothing ticks. Requires: one thread at a time; `now_us` never goes back. Guarantees: a ticket
// leaves exactly once, by dispatch(), cancel(), expire() or flush(); O(log n) in requests and flows for every call (program-aware
// fairness: linear in the band's waiting flows); bounded by bytes, requests and kFlowsMax. Owner: picker, around its own lock.
// Token-weighted fairness is the virtual token counter of Sheng et al., "Fairness in serving large language models", OSDI 2024.
// Source: facts sheet "epp" 4.9.
#include <cstdint>
#include <expected>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "route/plan.h"

namespace baton::route {

struct FlowRequest {
  int64_t priority = 0;
  std::string_view flow;  // fairness id
  int64_t bytes = 0, input_tokens = 0;
  int64_t ttl_ms = -1;     // -1 = the plan's; 0 = waits for ever
  double ttft_slo_ms = 0;  // slo-deadline-ordering-policy; 0 = none
};

enum class FlowRefusal : uint8_t { kBandFull, kQueueFull, kTooManyFlows };  // all: 429 rejected-saturated
std::string_view flow_refusal_text(FlowRefusal refusal);

class FlowQueue {
 public:
  using Ticket = uint64_t;  // never 0, never used twice
  struct Dispatched {
    Ticket ticket = 0;
    int64_t priority = 0, waited_us = 0;
  };
  struct BandView {
    int64_t priority = 0, requests = 0, bytes = 0, requests_max = 0, bytes_max = 0;
    size_t flows = 0;
    double ceiling = 1;
    bool program_aware = false;
  };
  struct FlowView {
    std::string_view name;  // until the next call
    double service = 0, mean_wait_ms = 0;
  };
  static constexpr int64_t kRevocationWaitUs = 10'000'000;  // for a request that was told to end; as llm-d

  explicit FlowQueue(FlowControlParams params);
  void set_params(FlowControlParams params);  // hot reload: what waits keeps its place and its deadline

  std::expected<Ticket, FlowRefusal> enqueue(const FlowRequest& request, int64_t now_us);
  bool cancel(Ticket ticket);  // the client went away; false: it is not waiting (any more)
  // The request whose turn it is, if the pool's saturation is below its band's ceiling; a band that must wait stops those below
  // it. Call again until nothing comes; add what you dispatch to the saturation you pass next.
  std::optional<Dispatched> dispatch(int64_t now_us, double saturation);
  // Tickets whose time is over, appended to `out`. With an empty pool (no endpoints) noEndpointRequestTTL holds instead.
  void expire(int64_t now_us, bool pool_empty, std::vector<Ticket>& out);
  int64_t next_expiry_us(bool pool_empty) const;  // INT64_MAX = never
  void flush(std::vector<Ticket>& out);           // shutting down

  // What a dispatched request turned out to cost; program-aware and token-weighted fairness learn from it.
  void served(int64_t priority, std::string_view flow, int64_t input_tokens, int64_t output_tokens, int64_t now_us);

  // Eviction of running requests (enableEviction). id: the caller's own. evict() names some to end for the sake of a waiting
  // request of this priority: negative and lower priorities only, lowest first, newest first. A named one is on its way out for
  // 10 s or until ended(), and no more than two are at a time, whoever started since.
  void started(uint64_t id, int64_t priority, int64_t now_us);
  void ended(uint64_t id);
  std::vector<uint64_t> evict(int64_t for_priority, int64_t now_us);

  int64_t requests() const { return requests_; }
  int64_t bytes() const { return bytes_; }
  std::optional<int64_t> head_priority() const;  // of the first band in which someone waits
  double ceiling(int64_t priority) const;
  std::vector<BandView> bands() const;  // highest priority first
  std::vector<FlowView> flows(int64_t priority, int64_t now_us) const;  // of one band
  // Jain's index over the attained service of the band's known flows: 1 = all equal.
  double fairness_index(int64_t priority, int64_t now_us) const;

 private:
  struct Key {
    double value = 0;
    uint64_t seq = 0;
    auto operator<=>(const Key&) const = default;
  };
  struct Flow {
    std::string name;
    std::set<std::pair<Key, Ticket>> waiting;
    Key ready;           // its key in Band::ready while something waits
    double service = 0;  // attained tokens: decayed (program-aware) or since ever, by weight (token-weighted)
    int64_t service_at_us = 0;
    uint64_t turn = 0;  // round-robin: when it was last served
    int64_t waited_us = 0, dispatched = 0;
    double weight = 1;
    int64_t idle_since_us = 0;
    std::list<Flow*>::iterator idle;  // in Band::idle while nothing waits
    bool is_idle = false;
  };
  struct Band {
    BandParams params;
    std::unordered_map<std::string, Flow> flows;
    std::set<std::pair<Key, Flow*>> ready;
    std::list<Flow*> idle;  // longest idle first
    int64_t requests = 0, bytes = 0;
    uint64_t turn = 0;
    double floor = 0;  // token-weighted: counter of the last flow served; nobody returns below it
  };
  struct Item {
    Band* band = nullptr;
    Flow* flow = nullptr;
    Key key;
    int64_t priority = 0, bytes = 0, input_tokens = 0, enqueued_us = 0, expires_us = 0, expires_empty_us = 0;
  };
  struct Running {
    int64_t priority = 0, started_us = 0;
  };
  struct Revoked {
    uint64_t id = 0;
    int64_t at_us = 0;
  };

  double reflective(int64_t priority, double saturation) const;
  bool lets_through(int64_t priority, double saturation, bool open) const;
  bool reflective_tick(double saturation);
  Band& band_of(int64_t priority);
  BandParams params_of(int64_t priority) const;
  Flow* flow_of(Band& band, std::string_view name, int64_t now_us);
  Key ready_key(const Band& band, const Flow& flow) const;
  void make_ready(Band& band, Flow& flow);
  void make_idle(Band& band, Flow& flow, int64_t now_us);
  void drop_idle(int64_t now_us);
  Flow* choose(Band& band, int64_t now_us);
  Flow* choose_program_aware(Band& band, int64_t now_us);
  double decayed(const Flow& flow, int64_t now_us) const;
  void remove(Ticket ticket, Item& item, int64_t now_us);

  FlowControlParams params_;
  std::map<int64_t, Band, std::greater<>> bands_;
  std::unordered_map<Ticket, Item> items_;
  std::set<std::pair<int64_t, Ticket>> by_expiry_, by_expiry_empty_;
  std::unordered_map<uint64_t, Running> running_;
  std::set<std::tuple<int64_t, int64_t, uint64_t>> evictable_;  // (priority, -started, id)
  std::vector<Revoked> revoked_;                                // on their way out: two at most
  Ticket next_ = 1;
  int64_t requests_ = 0, bytes_ = 0, last_us_ = 0, tick_ = 0;
  double last_saturation_ = 0;
};

}  // namespace baton::route
