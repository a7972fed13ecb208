#include "picker/admission.h"

#include <algorithm>

#include "base/log.h"
#include "route/decide.h"

namespace baton::picker {

std::string_view outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kDispatched:
      return "Dispatched";
    case Outcome::kRejectedCapacity:
      return "RejectedCapacity";
    case Outcome::kRejectedNoEndpoints:
      return "RejectedNoEndpoints";
    case Outcome::kEvictedTtl:
      return "EvictedTTL";
    case Outcome::kEvictedNoEndpoints:
      return "EvictedNoEndpoints";
    case Outcome::kEvictedCancelled:
      return "EvictedContextCancelled";
    case Outcome::kShutdown:
      return "RejectedOther";
  }
  return "";
}

Admission::Admission(const Clock& clock, PickerMetrics& metrics, Hooks hooks)
    : clock_(clock), metrics_(metrics), hooks_(std::move(hooks)), plan_(std::make_shared<const route::Plan>()), queue_({}) {}

void Admission::set_plan(std::shared_ptr<const route::Plan> plan) {
  {
    std::lock_guard lock(mutex_);
    plan_ = std::move(plan);
    queue_.set_params(plan_->flow_control);
  }
  poke();
}

// O(endpoints), and no lock but the pool's own while the view is fetched.
Admission::Room Admission::room() const {
  const auto view = hooks_.view();
  const int64_t now = clock_.now_ns();
  const route::DetectorParams& detector = plan_->detector;
  std::vector<route::Load> loads;
  loads.reserve(view->states.size());
  int64_t stale = 0, usable = 0;
  for (const auto& state : view->states) {
    loads.push_back(state->load(now));
    route::Load& load = loads.back();
    load.waiting += state->unseen();
    if (!load.healthy) continue;
    ++usable;
    stale += load.age_ms < 0 || load.age_ms > detector.staleness_ms;
  }
  stale_.store(stale, std::memory_order_relaxed);
  if (usable > 0 && stale == usable) {
    for (route::Load& load : loads) {  // nobody's numbers can be trusted: our own counts decide
      load.age_ms = 0;
      load.kv_usage = 0;
      load.waiting = static_cast<int32_t>(static_cast<double>(load.inflight_requests) * detector.queue_depth /
                                          static_cast<double>(std::max<int64_t>(1, detector.concurrency_max)));
    }
  }
  Room room;
  room.empty = usable == 0;
  room.stages = route::saturation_by_stage({view->endpoints, loads}, detector);
  room.saturation = room.stages.effective;
  const bool by_queue = detector.kind == route::DetectorParams::Kind::kUtilization;
  const double capacity =
      by_queue ? std::max(detector.queue_depth, 1e-9) : static_cast<double>(std::max<int64_t>(1, detector.concurrency_max));
  room.per_request = usable > 0 ? 1 / (capacity * static_cast<double>(usable)) : 0;
  return room;
}

double Admission::saturation() const {
  std::lock_guard lock(mutex_);
  const Room r = room();
  return r.saturation + static_cast<double>(pending_) * r.per_request;
}

void Admission::count(Outcome outcome, const Waiter& waiter, int64_t now_us) {
  waiter.series->waited(outcome_name(outcome), static_cast<double>(now_us - waiter.entered_us) * 1e-6);
  const std::string key = cat(outcome_name(outcome), " ", waiter.priority);
  TwinCounter& counter = outcomes_[key];
  if (counter.now == nullptr) {
    counter = counter_of(metrics_.metrics(), MetricId::kFlowRequests,
                         {outcome_name(outcome), std::to_string(waiter.priority), metrics_.pool()});
  }
  counter.inc();
}

void Admission::dispatch_locked(std::vector<Wake>& wake, int64_t now_us) {
  const Room now = room();
  if (!now.empty || !plan_->flow_control.enabled) {
    for (;;) {
      const double saturation =
          plan_->flow_control.enabled ? now.saturation + static_cast<double>(pending_) * now.per_request : 0;
      const auto next = queue_.dispatch(now_us, saturation);
      if (!next) break;
      const auto at = waiters_.find(next->ticket);
      BATON_CHECK(at != waiters_.end());
      std::shared_ptr<Waiter> waiter = at->second;
      waiter->pending = true;
      ++pending_;
      if (plan_->flow_control.eviction && waiter->priority < 0) {
        waiter->running = true;
        queue_.started(next->ticket, waiter->priority, now_us);
      } else {
        waiters_.erase(at);
      }
      wake.push_back({std::move(waiter), Outcome::kDispatched});
    }
  }
  arm_locked(now.empty);
}

void Admission::evict_locked(std::vector<std::shared_ptr<Waiter>>& out, int64_t now_us) {
  if (!plan_->flow_control.eviction) return;
  const auto head = queue_.head_priority();
  if (!head) return;
  const Room now = room();
  const double full = now.saturation + static_cast<double>(pending_) * now.per_request;
  Metrics& m = metrics_.metrics();
  const std::string& pool = metrics_.pool();
  gauge_of(m, MetricId::kReclaimTarget, {pool}).set(std::max(0.0, full - queue_.ceiling(*head)));
  end_revocations(now_us);
  for (uint64_t id : queue_.evict(*head, now_us)) {
    const auto at = waiters_.find(id);
    if (at == waiters_.end()) continue;
    at->second->revoked_us = now_us;
    revoked_.push_back(at->second);
    counter_of(m, MetricId::kRevocationsIssued, {std::to_string(at->second->priority), pool}).inc();
    out.push_back(at->second);
  }
  gauge_of(m, MetricId::kPendingReclaim, {pool}).set(static_cast<double>(revoked_.size()) * now.per_request);
}

// Those that were given up on: they did not end in time.
void Admission::end_revocations(int64_t now_us) {
  std::erase_if(revoked_, [&](const std::shared_ptr<Waiter>& waiter) {
    if (waiter->revoked_us == 0) return true;
    if (now_us - waiter->revoked_us < route::FlowQueue::kRevocationWaitUs) return false;
    waiter->revoked_us = 0;
    counter_of(metrics_.metrics(), MetricId::kRevocations, {"timed_out", metrics_.pool()}).inc();
    return true;
  });
}

void Admission::arm_locked(bool empty) {
  const int64_t next = queue_.next_expiry_us(empty);
  if (next >= armed_us_ || stopped_) return;
  armed_us_ = next;
  hooks_.arm(next);
}

// Tells each of them, on its own thread; the one that is just entering is told by enter()'s return.
void Admission::wake_all(std::vector<Wake>& wake, const Waiter* inline_one, std::optional<Outcome>& inline_outcome) {
  const int64_t now_us = clock_.now_us();
  for (Wake& w : wake) {
    w.waiter->series->queued(-1, -w.waiter->bytes);
    {
      std::lock_guard lock(mutex_);
      count(w.outcome, *w.waiter, now_us);
    }
    if (w.waiter.get() == inline_one) {
      inline_outcome = w.outcome;
      continue;
    }
    w.waiter->post([waiter = std::weak_ptr<Waiter>(w.waiter), outcome = w.outcome] {
      if (const auto alive = waiter.lock(); alive && alive->resume) std::exchange(alive->resume, nullptr)(outcome);
    });
  }
}

void Admission::round(const Waiter* inline_one, std::optional<Outcome>& inline_outcome) {
  std::vector<Wake> wake;
  std::vector<std::shared_ptr<Waiter>> evicted;
  const int64_t begin = clock_.now_us();
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    dispatch_locked(wake, begin);
    evict_locked(evicted, begin);
    waiting_ = queue_.requests();
  }
  metrics_.observe(MetricId::kDispatchCycle, static_cast<double>(clock_.now_us() - begin) * 1e-6);
  wake_all(wake, inline_one, inline_outcome);
  for (const auto& waiter : evicted) {
    waiter->post([w = std::weak_ptr<Waiter>(waiter)] {
      if (const auto alive = w.lock(); alive && alive->evict) std::exchange(alive->evict, nullptr)();
    });
  }
}

std::optional<Outcome> Admission::enter(const std::shared_ptr<Waiter>& waiter, const route::FlowRequest& request) {
  std::optional<Outcome> at_once;
  const int64_t begin_ns = clock_.now_ns();
  const auto stood = [&](std::string_view outcome) {
    waiter->series->enqueued(outcome, static_cast<double>(clock_.now_ns() - begin_ns) * 1e-9);
  };
  {
    std::lock_guard lock(mutex_);
    const int64_t now_us = begin_ns / 1'000;
    waiter->entered_us = now_us;
    waiter->priority = request.priority;
    waiter->bytes = request.bytes;
    waiter->flow = request.flow;
    if (stopped_) return Outcome::kShutdown;
    const auto ticket = queue_.enqueue(request, now_us);
    if (!ticket) {
      stood(outcome_name(Outcome::kRejectedCapacity));
      count(Outcome::kRejectedCapacity, *waiter, now_us);
      return Outcome::kRejectedCapacity;
    }
    waiter->ticket = *ticket;
    waiters_.emplace(*ticket, waiter);
    waiting_ = queue_.requests();
  }
  stood("NotYetFinalized");  // llm-d's word for "it waits"
  waiter->series->queued(1, waiter->bytes);
  round(waiter.get(), at_once);
  return at_once;
}

void Admission::placed(Waiter& waiter) {
  std::lock_guard lock(mutex_);
  if (std::exchange(waiter.pending, false)) --pending_;
}

void Admission::leave(Waiter& waiter) {
  bool cancelled = false;
  {
    std::lock_guard lock(mutex_);
    if (waiter.ticket == 0) return;
    if (std::exchange(waiter.pending, false)) --pending_;
    cancelled = queue_.cancel(waiter.ticket);
    if (waiter.running) queue_.ended(waiter.ticket);
    if (const int64_t revoked_us = std::exchange(waiter.revoked_us, 0); revoked_us != 0) {
      counter_of(metrics_.metrics(), MetricId::kRevocations, {"confirmed", metrics_.pool()}).inc();
      histogram_of(metrics_.metrics(), MetricId::kRevocationConfirmed, {metrics_.pool()})
          .observe(static_cast<double>(clock_.now_us() - revoked_us) * 1e-6);
    }
    waiters_.erase(waiter.ticket);
    waiter.ticket = 0;
    if (cancelled) count(Outcome::kEvictedCancelled, waiter, clock_.now_us());
    waiting_ = queue_.requests();
  }
  if (cancelled) waiter.series->queued(-1, -waiter.bytes);
  poke();
}

void Admission::served(const Waiter& waiter, int64_t input_tokens, int64_t output_tokens) {
  std::lock_guard lock(mutex_);
  queue_.served(waiter.priority, waiter.flow, input_tokens, output_tokens, clock_.now_us());
}

// Sequentially consistent on both sides: whoever enters stores waiting_ before it looks for room, whoever leaves gives room back
// before it looks at waiting_; so one of the two sees the other.
void Admission::poke() {
  if (waiting_ == 0) return;
  std::optional<Outcome> nobody;
  round(nullptr, nobody);
}

void Admission::expire() {
  std::vector<Wake> wake;
  {
    std::lock_guard lock(mutex_);
    armed_us_ = INT64_MAX;
    const bool empty = room().empty;
    std::vector<route::FlowQueue::Ticket> over;
    queue_.expire(clock_.now_us(), empty, over);
    for (const auto ticket : over) {
      const auto at = waiters_.find(ticket);
      if (at == waiters_.end()) continue;
      wake.push_back({at->second, empty ? Outcome::kEvictedNoEndpoints : Outcome::kEvictedTtl});
      at->second->ticket = 0;
      waiters_.erase(at);
    }
    arm_locked(empty);
    waiting_ = queue_.requests();
  }
  std::optional<Outcome> nobody;
  wake_all(wake, nullptr, nobody);
}

void Admission::stop() {
  std::vector<Wake> wake;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
    std::vector<route::FlowQueue::Ticket> all;
    queue_.flush(all);
    for (const auto ticket : all) {
      const auto at = waiters_.find(ticket);
      if (at == waiters_.end()) continue;
      wake.push_back({at->second, Outcome::kShutdown});
      at->second->ticket = 0;
      waiters_.erase(at);
    }
    waiting_ = 0;
  }
  std::optional<Outcome> nobody;
  wake_all(wake, nullptr, nobody);
}

std::vector<route::FlowQueue::BandView> Admission::bands() const {
  std::lock_guard lock(mutex_);
  return queue_.bands();
}

void Admission::refresh_gauges() {
  Metrics& m = metrics_.metrics();
  const std::string& pool = metrics_.pool();
  std::lock_guard lock(mutex_);
  const Room now = room();
  const auto stage = [&](std::string_view name, double value) { gauge_of(m, MetricId::kSaturation, {pool, name}).set(value); };
  stage("prefill", now.stages.prefill);
  stage("decode", now.stages.decode);
  stage("effective", now.saturation + static_cast<double>(pending_) * now.per_request);
  const bool by_queue = plan_->detector.kind == route::DetectorParams::Kind::kUtilization;
  gauge_of(m, MetricId::kStaleEndpoints, {by_queue ? "utilization-detector" : "concurrency-detector"})
      .set(static_cast<double>(stale_.load()));
  const auto share = [](int64_t used, int64_t max) {
    return max > 0 ? static_cast<double>(used) / static_cast<double>(max) : 0.0;
  };
  for (const auto& band : queue_.bands()) {
    const std::string priority = std::to_string(band.priority);
    gauge_of(m, MetricId::kBandRequests, {priority, pool}).set(share(band.requests, band.requests_max));
    gauge_of(m, MetricId::kBandBytes, {priority, pool}).set(share(band.bytes, band.bytes_max));
  }
  const route::FlowControlParams& limits = plan_->flow_control;
  if (limits.requests_max > 0) gauge_of(m, MetricId::kGlobalRequests, {pool}).set(share(queue_.requests(), limits.requests_max));
  if (limits.bytes_max > 0) gauge_of(m, MetricId::kGlobalBytes, {pool}).set(share(queue_.bytes(), limits.bytes_max));
  end_revocations(clock_.now_us());
  if (limits.eviction) gauge_of(m, MetricId::kPendingReclaim, {pool}).set(static_cast<double>(revoked_.size()) * now.per_request);
  program_gauges(clock_.now_us());
}

// program-aware-fairness: what its programs (flows) had so far. A flow that is forgotten takes its series with it.
void Admission::program_gauges(int64_t now_us) {
  Metrics& m = metrics_.metrics();
  std::set<std::string> seen;
  bool any = false;
  for (const auto& band : queue_.bands()) {
    if (!band.program_aware) continue;
    any = true;
    for (const auto& flow : queue_.flows(band.priority, now_us)) {
      const std::string id(metrics_.safe(PickerMetrics::kTenant, flow.name));
      if (!seen.insert(id).second) continue;  // "other" is nobody in particular: the first stands for it
      gauge_of(m, MetricId::kProgramWait, {id}).set(flow.mean_wait_ms);
      gauge_of(m, MetricId::kProgramService, {id}).set(flow.service);
    }
    gauge_of(m, MetricId::kJainIndex).set(queue_.fairness_index(band.priority, now_us));
  }
  if (!any && programs_.empty()) return;
  for (const std::string& id : programs_) {
    if (seen.contains(id)) continue;
    const std::string_view value = id;
    drop_series(m, MetricId::kProgramWait, {&value, 1});
    drop_series(m, MetricId::kProgramService, {&value, 1});
  }
  programs_ = std::move(seen);
}

}  // namespace baton::picker
