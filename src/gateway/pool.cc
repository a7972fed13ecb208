#include "gateway/pool.h"

#include <algorithm>
#include <set>

#include "base/json.h"
#include "base/log.h"

namespace baton::gateway {
namespace {

// A card for a model that discovery names and the endpoint has not described yet.
std::string plain_card(std::string_view id) {
  JsonWriter w;
  w.object().field("id", id).field("object", "model").field("created", unix_seconds()).field("owned_by", "baton").end();
  return w.take();
}

}  // namespace

route::Load EndpointState::load(int64_t now_ns) const {
  const int64_t scraped = scraped_ns.load(std::memory_order_relaxed);
  return {.healthy = healthy.load(std::memory_order_relaxed),
          .age_ms = scraped < 0 ? -1 : std::max<int64_t>(0, (now_ns - scraped) / 1'000'000),
          .waiting = waiting.load(std::memory_order_relaxed),
          .running = running.load(std::memory_order_relaxed),
          .kv_usage = kv_usage.load(std::memory_order_relaxed),
          .inflight_requests = inflight_requests.load(std::memory_order_relaxed),
          .inflight_tokens = inflight_tokens.load(std::memory_order_relaxed)};
}

InFlight::InFlight(std::shared_ptr<EndpointState> state, int64_t tokens) : state_(std::move(state)), tokens_(tokens) {
  state_->inflight_requests += 1;
  state_->inflight_tokens += tokens_;
}

InFlight& InFlight::operator=(InFlight&& other) noexcept {
  release();
  state_ = std::move(other.state_);
  tokens_ = other.tokens_;
  return *this;
}

void InFlight::release_tokens() {
  if (state_) state_->inflight_tokens -= tokens_;
  tokens_ = 0;
}

void InFlight::release() {
  release_tokens();
  if (state_) state_->inflight_requests -= 1;
  state_.reset();
}

bool View::knows_model(std::string_view id) const {
  return std::ranges::any_of(models, [&](const ModelCard& card) { return card.id == id; });
}

Pool::Pool() : slots_used_(route::kEndpointsMax, false), view_(std::make_shared<const View>()) {}

int Pool::take_slot() {
  const auto free = std::ranges::find(slots_used_, false);
  BATON_CHECK(free != slots_used_.end());  // there are never more entries than slots
  *free = true;
  return static_cast<int>(free - slots_used_.begin());
}

std::vector<std::shared_ptr<EndpointState>> Pool::apply(const std::vector<discovery::Member>& members) {
  std::vector<std::shared_ptr<EndpointState>> fresh;
  std::vector<int> gone;
  {
    std::lock_guard lock(mutex_);
    std::vector<Entry> old = std::move(entries_);
    entries_.clear();
    // Those that stay keep their state, and so their slot; the others free theirs before new ones take any.
    const size_t n = std::min<size_t>(members.size(), route::kEndpointsMax);
    if (n < members.size()) log_error("endpoints ignored", "given={} max={}", members.size(), route::kEndpointsMax);
    for (const discovery::Member& member : std::span(members).first(n)) {
      Entry entry{.member = member, .role = {}, .cards = {}, .state = nullptr};
      if (!route::role_from(member.role, entry.role))
        log_warn("endpoint has no role of ours, taken as both", "role={}", member.role);
      const auto same = std::ranges::find_if(
          old, [&](const Entry& e) { return e.state && e.member.host == member.host && e.member.port == member.port; });
      if (same != old.end()) {
        entry.state = std::move(same->state);
        entry.cards = std::move(same->cards);
      }
      entries_.push_back(std::move(entry));
    }
    for (const Entry& entry : old) {
      if (!entry.state) continue;
      entry.state->removed = true;
      slots_used_[entry.state->slot] = false;
      gone.push_back(entry.state->slot);
    }
    for (Entry& entry : entries_) {
      if (entry.state) continue;
      entry.state = std::make_shared<EndpointState>();
      entry.state->host = entry.member.host;
      entry.state->port = entry.member.port;
      entry.state->address = route::host_port(entry.member.host, entry.member.port);
      entry.state->slot = take_slot();
      fresh.push_back(entry.state);
    }
    publish();
  }
  if (!gone.empty()) {
    std::unique_lock lock(prefix_mutex_);
    for (int slot : gone) prefix_.forget(slot);
  }
  return fresh;
}

void Pool::set_models(const EndpointState& state, std::vector<ModelCard> cards) {
  std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.state.get() == &state) entry.cards = std::move(cards);
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
                             .address = entry.state->address};
    for (const ModelCard& card : entry.cards) {
      if (entry.member.models.empty()) endpoint.models.push_back(card.id);
      if (ids.insert(card.id).second) next->models.push_back(card);
    }
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

route::PrefixMatch Pool::match(std::span<const uint64_t> chain) const {
  std::shared_lock lock(prefix_mutex_);
  return prefix_.match(chain);
}

void Pool::record(std::span<const uint64_t> chain, int slot) {
  std::unique_lock lock(prefix_mutex_);
  prefix_.record(chain, slot);
}

size_t Pool::prefix_blocks() const {
  std::shared_lock lock(prefix_mutex_);
  return prefix_.size();
}

}  // namespace baton::gateway
