#include "picker/sessions.h"

#include "picker/limits.h"

namespace baton::picker {

std::shared_ptr<EndpointState> Sessions::find(std::string_view id, int64_t now_ms, int64_t ttl_ms) {
  std::lock_guard lock(mutex_);
  const auto at = by_id_.find(id);
  if (at == by_id_.end()) return nullptr;
  auto state = at->second->state.lock();
  if (state && !state->removed && now_ms - at->second->used_ms <= ttl_ms) return state;
  const auto entry = at->second;
  by_id_.erase(at);
  entries_.erase(entry);
  return nullptr;
}

void Sessions::bind(std::string_view id, std::shared_ptr<EndpointState> state, int64_t now_ms) {
  std::lock_guard lock(mutex_);
  if (const auto at = by_id_.find(id); at != by_id_.end()) {
    at->second->state = state;
    at->second->used_ms = now_ms;
    entries_.splice(entries_.begin(), entries_, at->second);
    return;
  }
  if (entries_.size() >= kSessionsMax) {
    by_id_.erase(entries_.back().id);
    entries_.pop_back();
  }
  entries_.push_front({std::string(id), state, now_ms});
  by_id_.emplace(entries_.front().id, entries_.begin());
}

size_t Sessions::size() const {
  std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace baton::picker
