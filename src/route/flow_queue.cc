#include "route/flow_queue.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "base/result.h"
#include "route/limits.h"

namespace baton::route {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr int64_t kFlowIdleUs = 300'000'000;       // llm-d forgets idle flows after 5 minutes
constexpr size_t kRevocationsMax = 2;              // and its revocations per decision

int64_t after(int64_t now_us, int64_t ms) { return ms <= 0 || ms > (kNever - now_us) / 1000 ? kNever : now_us + ms * 1000; }

}  // namespace

std::string_view flow_refusal_text(FlowRefusal refusal) {
  switch (refusal) {
    case FlowRefusal::kBandFull:
      return "the queue of this priority is full";
    case FlowRefusal::kQueueFull:
      return "the queue is full";
    case FlowRefusal::kTooManyFlows:
      return "too many fairness ids wait at once";
  }
  return "";
}

FlowQueue::FlowQueue(FlowControlParams params) : params_(std::move(params)) {}

BandParams FlowQueue::params_of(int64_t priority) const {
  for (const BandParams& band : params_.bands) {
    if (band.priority == priority) return band;
  }
  BandParams out = priority < 0 ? params_.default_negative_band : params_.default_band;
  out.priority = priority;
  return out;
}

void FlowQueue::set_params(FlowControlParams params) {
  params_ = std::move(params);
  for (auto& [priority, band] : bands_) {
    band.params = params_of(priority);
    band.ready.clear();
    for (auto& [name, flow] : band.flows) {
      if (!flow.waiting.empty()) make_ready(band, flow);
    }
  }
}

FlowQueue::Band& FlowQueue::band_of(int64_t priority) {
  auto [at, fresh] = bands_.try_emplace(priority);
  if (fresh) at->second.params = params_of(priority);
  return at->second;
}

FlowQueue::Flow* FlowQueue::flow_of(Band& band, std::string_view name, int64_t now_us) {
  const auto known = band.flows.find(std::string(name));
  if (known != band.flows.end()) return &known->second;
  if (band.flows.size() >= kFlowsMax) {
    if (band.idle.empty()) return nullptr;
    Flow* oldest = band.idle.front();
    band.idle.pop_front();
    band.flows.erase(std::string(oldest->name));
  }
  Flow& flow = band.flows[std::string(name)];
  flow.name = name;
  flow.service_at_us = now_us;
  flow.turn = band.turn;
  flow.service = band.params.fairness == Fairness::kTokenWeighted ? band.floor : 0;
  for (const auto& [tenant, weight] : params_.tenant_weights) {
    if (tenant == name) flow.weight = weight;
  }
  make_idle(band, flow, now_us);
  return &flow;
}

std::expected<FlowQueue::Ticket, FlowRefusal> FlowQueue::enqueue(const FlowRequest& request, int64_t now_us) {
  last_us_ = std::max(last_us_, now_us);
  const int64_t bytes = std::max<int64_t>(0, request.bytes);
  if ((params_.requests_max > 0 && requests_ >= params_.requests_max) ||
      (params_.bytes_max > 0 && bytes > params_.bytes_max - bytes_)) {
    return std::unexpected(FlowRefusal::kQueueFull);
  }
  Band& band = band_of(request.priority);
  if ((band.params.requests_max > 0 && band.requests >= band.params.requests_max) ||
      (band.params.bytes_max > 0 && bytes > band.params.bytes_max - band.bytes)) {
    return std::unexpected(FlowRefusal::kBandFull);
  }
  Flow* flow = flow_of(band, request.flow, now_us);
  if (flow == nullptr) return std::unexpected(FlowRefusal::kTooManyFlows);

  const Ticket ticket = next_++;
  Item item{.band = &band,
            .flow = flow,
            .key = {},
            .priority = request.priority,
            .bytes = bytes,
            .input_tokens = std::max<int64_t>(0, request.input_tokens),
            .enqueued_us = now_us};
  const int64_t ttl_ms = request.ttl_ms >= 0 ? request.ttl_ms : params_.ttl_ms;
  item.expires_us = after(now_us, ttl_ms);
  item.expires_empty_us = params_.no_endpoint_ttl_ms < 0 ? item.expires_us : after(now_us, params_.no_endpoint_ttl_ms);
  constexpr double kLast = std::numeric_limits<double>::infinity();
  switch (band.params.ordering) {
    case Ordering::kFcfs:
      item.key = {0, ticket};
      break;
    case Ordering::kEdf:
      item.key = {item.expires_us == kNever ? kLast : static_cast<double>(item.expires_us), ticket};
      break;
    case Ordering::kSloDeadline:
      item.key = {request.ttft_slo_ms > 0 ? static_cast<double>(now_us) + request.ttft_slo_ms * 1e3 : kLast, ticket};
      break;
  }
  if (flow->is_idle) {
    band.idle.erase(flow->idle);
    flow->is_idle = false;
    // An idle flow saves nothing up: it returns with the share of those that were served last.
    if (band.params.fairness == Fairness::kTokenWeighted) flow->service = std::max(flow->service, band.floor);
    if (band.params.fairness == Fairness::kRoundRobin) flow->turn = ++band.turn;
  }
  flow->waiting.emplace(item.key, ticket);
  make_ready(band, *flow);
  by_expiry_.emplace(item.expires_us, ticket);
  by_expiry_empty_.emplace(item.expires_empty_us, ticket);
  items_.emplace(ticket, item);
  ++requests_, ++band.requests;
  bytes_ += bytes, band.bytes += bytes;
  return ticket;
}

FlowQueue::Key FlowQueue::ready_key(const Band& band, const Flow& flow) const {
  switch (band.params.fairness) {
    case Fairness::kRoundRobin:
      return {static_cast<double>(flow.turn), flow.waiting.begin()->first.seq};
    case Fairness::kTokenWeighted:
      return {flow.service, flow.waiting.begin()->first.seq};
    case Fairness::kGlobalStrict:
    case Fairness::kProgramAware:
      break;
  }
  return flow.waiting.begin()->first;
}

void FlowQueue::make_ready(Band& band, Flow& flow) {
  band.ready.erase({flow.ready, &flow});
  flow.ready = ready_key(band, flow);
  band.ready.emplace(flow.ready, &flow);
}

void FlowQueue::make_idle(Band& band, Flow& flow, int64_t now_us) {
  flow.is_idle = true;
  flow.idle_since_us = now_us;
  band.idle.push_back(&flow);
  flow.idle = std::prev(band.idle.end());
}

void FlowQueue::drop_idle(int64_t now_us) {
  for (auto at = bands_.begin(); at != bands_.end();) {
    Band& band = at->second;
    while (!band.idle.empty() && now_us - band.idle.front()->idle_since_us >= kFlowIdleUs) {
      Flow* flow = band.idle.front();
      band.idle.pop_front();
      band.flows.erase(std::string(flow->name));
    }
    at = band.flows.empty() ? bands_.erase(at) : std::next(at);
  }
}

void FlowQueue::remove(Ticket ticket, Item& item, int64_t now_us) {
  Band& band = *item.band;
  Flow& flow = *item.flow;
  flow.waiting.erase({item.key, ticket});
  if (flow.waiting.empty()) {
    band.ready.erase({flow.ready, &flow});
    make_idle(band, flow, now_us);
  } else {
    make_ready(band, flow);
  }
  by_expiry_.erase({item.expires_us, ticket});
  by_expiry_empty_.erase({item.expires_empty_us, ticket});
  --requests_, --band.requests;
  bytes_ -= item.bytes, band.bytes -= item.bytes;
  items_.erase(ticket);
}

bool FlowQueue::cancel(Ticket ticket) {
  const auto at = items_.find(ticket);
  if (at == items_.end()) return false;
  remove(ticket, at->second, last_us_);
  return true;
}

double FlowQueue::decayed(const Flow& flow, int64_t now_us) const {
  if (params_.las_half_life_s <= 0) return flow.service;
  const double halves = static_cast<double>(now_us - flow.service_at_us) / (params_.las_half_life_s * 1e6);
  return flow.service * std::exp2(-std::max(0.0, halves));
}

// Least attained service, tempered by how long the head waits; both relative to the largest in the band.
FlowQueue::Flow* FlowQueue::choose_program_aware(Band& band, int64_t now_us) {
  double service_max = 0, wait_max = 0;
  auto wait_of = [&](const Flow& flow) {
    return static_cast<double>(now_us - items_.find(flow.waiting.begin()->second)->second.enqueued_us);
  };
  for (const auto& [key, flow] : band.ready) {
    service_max = std::max(service_max, decayed(*flow, now_us));
    wait_max = std::max(wait_max, wait_of(*flow));
  }
  Flow* best = nullptr;
  double best_score = -1;
  for (const auto& [key, flow] : band.ready) {  // in order of arrival, so the first of equals waited longest
    const double service = service_max > 0 ? decayed(*flow, now_us) / service_max : 0;
    const double wait = wait_max > 0 ? wait_of(*flow) / wait_max : 0;
    const double score = params_.las_weight_service * (1 - service) + params_.las_weight_head_wait * wait;
    if (score > best_score) best_score = score, best = flow;
  }
  return best;
}

FlowQueue::Flow* FlowQueue::choose(Band& band, int64_t now_us) {
  if (band.params.fairness == Fairness::kProgramAware) return choose_program_aware(band, now_us);
  return band.ready.begin()->second;
}

std::optional<FlowQueue::Dispatched> FlowQueue::dispatch(int64_t now_us, double saturation) {
  last_us_ = std::max(last_us_, now_us);
  last_saturation_ = saturation;
  const bool open = reflective_tick(saturation);
  for (auto& [priority, band] : bands_) {
    if (band.ready.empty()) continue;
    if (!lets_through(priority, saturation, open)) return std::nullopt;
    Flow& flow = *choose(band, now_us);
    const Ticket ticket = flow.waiting.begin()->second;
    Item item = items_.find(ticket)->second;
    if (band.params.fairness == Fairness::kTokenWeighted) {
      band.floor = std::max(band.floor, flow.service);
      flow.service += static_cast<double>(item.input_tokens) / flow.weight;
    }
    if (band.params.fairness == Fairness::kRoundRobin) flow.turn = ++band.turn;
    flow.waited_us += now_us - item.enqueued_us, ++flow.dispatched;
    remove(ticket, item, now_us);
    return Dispatched{ticket, priority, now_us - item.enqueued_us};
  }
  return std::nullopt;
}

void FlowQueue::expire(int64_t now_us, bool pool_empty, std::vector<Ticket>& out) {
  last_us_ = std::max(last_us_, now_us);
  auto& order = pool_empty ? by_expiry_empty_ : by_expiry_;
  while (!order.empty() && order.begin()->first <= now_us) {
    const Ticket ticket = order.begin()->second;
    out.push_back(ticket);
    Item item = items_.find(ticket)->second;
    remove(ticket, item, now_us);
  }
  drop_idle(now_us);
}

int64_t FlowQueue::next_expiry_us(bool pool_empty) const {
  const auto& order = pool_empty ? by_expiry_empty_ : by_expiry_;
  return order.empty() ? kNever : order.begin()->first;
}

void FlowQueue::flush(std::vector<Ticket>& out) {
  while (!items_.empty()) {
    const Ticket ticket = by_expiry_.begin()->second;
    out.push_back(ticket);
    Item item = items_.find(ticket)->second;
    remove(ticket, item, last_us_);
  }
}

void FlowQueue::served(int64_t priority, std::string_view name, int64_t input_tokens, int64_t output_tokens, int64_t now_us) {
  const auto at = bands_.find(priority);
  if (at == bands_.end()) return;
  Band& band = at->second;
  const auto found = band.flows.find(std::string(name));
  if (found == band.flows.end()) return;  // idle for so long that nobody remembers it
  Flow& flow = found->second;
  const auto output = static_cast<double>(std::max<int64_t>(0, output_tokens));
  switch (band.params.fairness) {
    case Fairness::kProgramAware:
      flow.service = decayed(flow, now_us) + static_cast<double>(std::max<int64_t>(0, input_tokens)) + 2 * output;
      flow.service_at_us = now_us;
      break;
    case Fairness::kTokenWeighted:  // its input was counted when it was dispatched
      flow.service += params_.output_token_weight * output / flow.weight;
      break;
    case Fairness::kGlobalStrict:
    case Fairness::kRoundRobin:
      return;
  }
  if (!flow.waiting.empty()) make_ready(band, flow);
}

void FlowQueue::started(uint64_t id, int64_t priority, int64_t now_us) {
  if (!running_.emplace(id, Running{priority, now_us}).second) return;
  if (priority < 0) evictable_.emplace(priority, -now_us, id);
}

void FlowQueue::ended(uint64_t id) {
  const auto at = running_.find(id);
  if (at == running_.end()) return;
  evictable_.erase({at->second.priority, -at->second.started_us, id});
  running_.erase(at);
  std::erase_if(revoked_, [id](const Revoked& r) { return r.id == id; });
}

std::vector<uint64_t> FlowQueue::evict(int64_t for_priority, int64_t now_us) {
  std::vector<uint64_t> out;
  if (!params_.eviction) return out;
  std::erase_if(revoked_, [now_us](const Revoked& r) { return now_us - r.at_us >= kRevocationWaitUs; });
  for (const auto& candidate : evictable_) {
    if (std::get<0>(candidate) >= for_priority || revoked_.size() >= kRevocationsMax) break;
    const uint64_t id = std::get<2>(candidate);
    if (std::ranges::find(revoked_, id, &Revoked::id) != revoked_.end()) continue;
    revoked_.push_back({id, now_us});
    out.push_back(id);
  }
  return out;
}

std::optional<int64_t> FlowQueue::head_priority() const {
  for (const auto& [priority, band] : bands_) {
    if (!band.ready.empty()) return priority;
  }
  return std::nullopt;
}

// soft-reflective-ceiling-policy: 1 for the highest band, falling with the rank as saturation rises.
double FlowQueue::reflective(int64_t priority, double saturation) const {
  const auto at = bands_.find(priority);
  if (bands_.size() < 2 || at == bands_.end()) return 1;
  const auto rank = static_cast<double>(std::distance(bands_.begin(), at));
  return 1 - rank * saturation / static_cast<double>(bands_.size() - 1);
}

// Bands past their reflective ceiling share one gate, open at one dispatch in saturation / (1 - saturation): were each to have
// its own, a lower band's turns would meet a higher one's closed gate. Returns whether it is open at this dispatch.
bool FlowQueue::reflective_tick(double saturation) {
  if (params_.ceiling != Ceiling::kSoftReflective || saturation < 0.5 || saturation >= 1) return true;
  const auto period = static_cast<int64_t>(std::max(1.0, std::round(saturation / (1 - saturation + 1e-9))));
  return ++tick_ % period == 0;
}

bool FlowQueue::lets_through(int64_t priority, double saturation, bool open) const {
  if (params_.ceiling != Ceiling::kSoftReflective) return saturation < ceiling(priority);
  const bool top = bands_.begin()->first == priority;
  return saturation < 1 && (top || open || saturation < reflective(priority, saturation));
}

double FlowQueue::ceiling(int64_t priority) const {
  if (params_.ceiling == Ceiling::kSoftReflective) return reflective(priority, last_saturation_);
  if (params_.ceiling != Ceiling::kHoldback) return params_.ceiling_threshold;
  // From holdback_min for the lowest band there is to holdback_max for the highest, by rank or by value.
  if (bands_.size() < 2 || !bands_.contains(priority)) return params_.holdback_max;
  double share = 0;
  if (params_.holdback_by_rank) {
    const auto rank = std::distance(bands_.find(priority), bands_.end()) - 1;
    share = static_cast<double>(rank) / static_cast<double>(bands_.size() - 1);
  } else {
    const auto high = static_cast<double>(bands_.begin()->first), low = static_cast<double>(bands_.rbegin()->first);
    share = (static_cast<double>(priority) - low) / (high - low);
  }
  return params_.holdback_min + share * (params_.holdback_max - params_.holdback_min);
}

std::vector<FlowQueue::BandView> FlowQueue::bands() const {
  std::vector<BandView> out;
  for (const auto& [priority, band] : bands_) {
    out.push_back({priority, band.requests, band.bytes, band.params.requests_max, band.params.bytes_max, band.flows.size(),
                   ceiling(priority), band.params.fairness == Fairness::kProgramAware});
  }
  return out;
}

std::vector<FlowQueue::FlowView> FlowQueue::flows(int64_t priority, int64_t now_us) const {
  std::vector<FlowView> out;
  const auto at = bands_.find(priority);
  if (at == bands_.end()) return out;
  for (const auto& [name, flow] : at->second.flows) {
    const double waits = static_cast<double>(std::max<int64_t>(1, flow.dispatched));
    out.push_back({.name = name, .service = decayed(flow, now_us), .mean_wait_ms = static_cast<double>(flow.waited_us) * 1e-3 / waits});
  }
  return out;
}

double FlowQueue::fairness_index(int64_t priority, int64_t now_us) const {
  const auto at = bands_.find(priority);
  if (at == bands_.end()) return 1;
  double sum = 0, squares = 0;
  size_t n = 0;
  for (const auto& [name, flow] : at->second.flows) {
    const double x = at->second.params.fairness == Fairness::kTokenWeighted ? flow.service : decayed(flow, now_us);
    sum += x, squares += x * x, ++n;
  }
  return squares > 0 ? sum * sum / (static_cast<double>(n) * squares) : 1;
}

}  // namespace baton::route
