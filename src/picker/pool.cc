#include "picker/pool.h"

#include <algorithm>
#include <functional>
#include <set>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "picker/picker_metrics.h"

namespace baton::picker {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// A card for a model that discovery names and the endpoint has not described yet.
std::string plain_card(std::string_view id) {
  JsonWriter w;
  w.object().field("id", id).field("object", "model").field("created", unix_seconds()).field("owned_by", "baton").end();
  return w.take();
}

// Where a worker runs, under the labels Kubernetes uses for it.
void add_topology(const discovery::Member& member, std::map<std::string, std::string>& labels) {
  const std::pair<const char*, const std::string*> places[] = {{"kubernetes.io/hostname", &member.node},
                                                               {"topology.kubernetes.io/rack", &member.rack},
                                                               {"topology.kubernetes.io/zone", &member.zone},
                                                               {"topology.kubernetes.io/region", &member.region}};
  for (const auto& [key, value] : places) {
    if (!value->empty()) labels.emplace(key, *value);
  }
}

}  // namespace

route::Load EndpointState::load(int64_t now_ns) const {
  const int64_t scraped = scraped_ns.load(kRelaxed);
  const int32_t requests = inflight_requests.load(kRelaxed);
  route::Load load;
  load.healthy = healthy.load(kRelaxed) && !removed.load(kRelaxed);
  load.age_ms = scraped < 0 ? -1 : std::max<int64_t>(0, (now_ns - scraped) / 1'000'000);
  load.waiting = waiting.load(kRelaxed);
  load.running = running.load(kRelaxed);
  load.kv_usage = kv_usage.load(kRelaxed);
  load.inflight_requests = requests + peer_requests.load(kRelaxed);
  load.inflight_tokens = inflight_tokens.load(kRelaxed) + peer_tokens.load(kRelaxed);
  load.block_tokens = block_tokens.load(kRelaxed);
  load.blocks_total = blocks_total.load(kRelaxed);
  if (requests > 0) load.mean_context = static_cast<float>(context_tokens.load(kRelaxed)) / static_cast<float>(requests);
  return load;
}

int32_t EndpointState::unseen() const {
  const uint64_t all = sent.load(kRelaxed), seen = sent_when_scraped.load(kRelaxed);
  const int32_t open = inflight_requests.load(kRelaxed);
  return all <= seen ? 0 : static_cast<int32_t>(std::min<uint64_t>(all - seen, static_cast<uint64_t>(std::max(0, open))));
}

std::shared_ptr<const ScannedLora> EndpointState::lora() const {
  std::lock_guard lock(mutex_);
  return lora_;
}

void EndpointState::set_lora(ScannedLora lora) {
  std::lock_guard lock(mutex_);
  if (!lora_ || *lora_ != lora) lora_ = std::make_shared<const ScannedLora>(std::move(lora));
}

cost::WorkerCost EndpointState::cost() const {
  auto at = [&](size_t i) { return cost_[i].load(kRelaxed); };
  return {.prefill = {at(0), at(1), at(2)}, .decode = {at(3), at(4), at(5)}, .kv_bytes_per_token = static_cast<int64_t>(at(6))};
}

void EndpointState::set_cost(const cost::WorkerCost& cost) {
  const double values[] = {cost.prefill.fixed_us,
                           cost.prefill.per_token_us,
                           cost.prefill.per_ctx_us,
                           cost.decode.fixed_us,
                           cost.decode.per_token_us,
                           cost.decode.per_ctx_us,
                           static_cast<double>(cost.kv_bytes_per_token)};
  for (size_t i = 0; i < cost_.size(); ++i) cost_[i].store(values[i], kRelaxed);
}

InFlightCell& EndpointState::cell(const Series& series) {
  std::lock_guard lock(mutex_);
  auto& cell = cells_[&series];
  if (cell) return *cell;
  cell = std::make_unique<InFlightCell>();
  cell->fairness_id = series.fairness_id;
  cell->priority = series.priority;
  cell->target = series.target;
  return *cell;
}

void EndpointState::each_cell(const std::function<void(const InFlightCell&)>& f) const {
  std::lock_guard lock(mutex_);
  for (const auto& [key, cell] : cells_) f(*cell);
}

InFlight::InFlight(std::shared_ptr<EndpointState> state, int64_t tokens, InFlightCell* cell)
    : state_(std::move(state)), tokens_(tokens), cell_(cell) {
  state_->inflight_requests += 1;
  state_->inflight_tokens += tokens_;
  state_->sent.fetch_add(1, kRelaxed);
  if (cell_ == nullptr) return;
  cell_->attempts.fetch_add(1, kRelaxed);
  cell_->requests.fetch_add(1, kRelaxed);
  cell_->tokens.fetch_add(tokens_, kRelaxed);
}

InFlight::InFlight(InFlight&& other) noexcept
    : state_(std::move(other.state_)), tokens_(other.tokens_), context_(other.context_), cell_(other.cell_) {}

InFlight& InFlight::operator=(InFlight&& other) noexcept {
  if (this == &other) return *this;
  release();
  state_ = std::move(other.state_);
  tokens_ = other.tokens_;
  context_ = other.context_;
  cell_ = other.cell_;
  return *this;
}

void InFlight::release_tokens() {
  if (!state_ || tokens_ == 0) return;
  state_->inflight_tokens -= tokens_;
  if (cell_ != nullptr) cell_->tokens.fetch_sub(tokens_, kRelaxed);
  tokens_ = 0;
}

void InFlight::set_context(int64_t tokens) {
  if (!state_) return;
  state_->context_tokens.fetch_add(tokens - context_, kRelaxed);
  context_ = tokens;
}

void InFlight::release() {
  if (!state_) return;
  release_tokens();
  set_context(0);
  if (cell_ != nullptr) cell_->requests.fetch_sub(1, kRelaxed);
  state_->inflight_requests -= 1;
  state_.reset();
}

bool View::knows_model(std::string_view id) const {
  return std::ranges::any_of(models, [&](const ModelCard& card) { return card.id == id; });
}

int View::find(const std::string& name_or_address) const {
  const auto at = by_name.find(name_or_address);
  return at == by_name.end() ? -1 : at->second;
}

Pool::Pool() : slots_used_(route::kEndpointsMax, false), view_(std::make_shared<const View>()) {}

int Pool::take_slot() {
  const auto free = std::ranges::find(slots_used_, false);
  BATON_CHECK(free != slots_used_.end());  // there are never more entries than slots
  *free = true;
  return static_cast<int>(free - slots_used_.begin());
}

// A member that was there before keeps its state, and so its slot.
void Pool::take_over(std::vector<Entry>& old, const discovery::Member& member) {
  Entry entry{.member = member, .role = {}, .role_given = !member.role.empty(), .cards = {}, .state = nullptr};
  if (!route::role_from(member.role, entry.role)) {
    entry.role = route::Role::kBoth;
    log_warn("endpoint has no role of ours, taken as both", "endpoint={} role={}", member.host, member.role);
  }
  // The same pod under another name (StatefulSet, address reuse) is another worker with an empty cache.
  const auto same = std::ranges::find_if(old, [&](const Entry& e) {
    return e.state && e.member.host == member.host && e.member.port == member.port && e.member.name == member.name;
  });
  if (same != old.end()) {
    entry.state = std::move(same->state);
    entry.cards = std::move(same->cards);
  }
  entries_.push_back(std::move(entry));
}

Pool::Change Pool::apply(const std::vector<discovery::Member>& members, std::string_view engine_label, bool healthy) {
  Change change;
  std::lock_guard lock(mutex_);
  std::vector<Entry> old = std::move(entries_);
  entries_.clear();
  const size_t n = std::min<size_t>(members.size(), route::kEndpointsMax);
  if (n < members.size()) log_error("endpoints ignored", "given={} max={}", members.size(), route::kEndpointsMax);
  for (const discovery::Member& member : std::span(members).first(n)) take_over(old, member);
  // Those that left free their slots before new ones take any.
  for (const Entry& entry : old) {
    if (!entry.state) continue;
    entry.state->removed = true;
    slots_used_[entry.state->slot] = false;
    change.gone.push_back(entry.state->slot);
  }
  for (Entry& entry : entries_) {
    if (entry.state) continue;
    entry.state = std::make_shared<EndpointState>();
    entry.state->host = entry.member.host;
    entry.state->port = entry.member.port;
    entry.state->name = entry.member.name;
    entry.state->address = route::host_port(entry.member.host, entry.member.port);
    for (std::string_view key : {engine_label, std::string_view("inference.networking.k8s.io/engine-type")}) {
      const auto label = entry.member.labels.find(std::string(key));
      if (label != entry.member.labels.end() && entry.state->engine.empty()) entry.state->engine = label->second;
    }
    entry.state->healthy = healthy;
    entry.state->slot = take_slot();
    change.fresh.push_back(entry.state);
  }
  publish();
  return change;
}

void Pool::set_models(const EndpointState& state, std::vector<ModelCard> cards) {
  std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.state.get() != &state) continue;
    const bool same = std::ranges::equal(entry.cards, cards, {}, &ModelCard::json, &ModelCard::json);
    if (same) return;
    entry.cards = std::move(cards);
  }
  publish();
}

void Pool::publish() {
  auto next = std::make_shared<View>();
  std::set<std::string> ids;
  for (const Entry& entry : entries_) {
    route::Endpoint endpoint{.host = entry.member.host,
                             .port = entry.member.port,
                             .role = entry.role,
                             .slot = entry.state->slot,
                             .models = entry.member.models,
                             .address = entry.state->address,
                             .name = entry.member.name,
                             .role_given = entry.role_given,
                             .rank = entry.member.rank};
    auto labels = entry.member.labels;
    add_topology(entry.member, labels);
    endpoint.labels.assign(labels.begin(), labels.end());
    for (const ModelCard& card : entry.cards) {
      if (entry.member.models.empty()) endpoint.models.push_back(card.id);
      if (ids.insert(card.id).second) next->models.push_back(card);
    }
    const int index = static_cast<int>(next->endpoints.size());
    next->by_name.emplace(endpoint.address, index);
    if (!endpoint.name.empty()) next->by_name.emplace(endpoint.name, index);
    next->endpoints.push_back(std::move(endpoint));
    next->states.push_back(entry.state);
  }
  for (const Entry& entry : entries_) {
    for (const std::string& id : entry.member.models) {
      if (ids.insert(id).second) next->models.push_back({id, plain_card(id)});
    }
  }
  view_ = std::move(next);
}

std::shared_ptr<const View> Pool::view() const {
  std::lock_guard lock(mutex_);
  return view_;
}

}  // namespace baton::picker
