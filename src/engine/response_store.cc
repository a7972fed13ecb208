#include "engine/response_store.h"

#include <utility>
#include <vector>

namespace baton::engine {

void ResponseStore::put(const std::string& id, StoredResponse response) {
  std::vector<std::function<void()>> ended;  // called without the lock
  {
    std::lock_guard lock(mutex_);
    if (const auto old = entries_.find(id); old != entries_.end()) {
      if (old->second.cancelled) return;
      bytes_ -= bytes_of(old->second.response);
      ages_.erase(old->second.age);
      entries_.erase(old);
    }
    bytes_ += bytes_of(response);
    ages_.push_back(id);
    entries_.emplace(id, Entry{std::move(response), std::prev(ages_.end())});
    while (entries_.size() > responses_max_ || bytes_ > bytes_max_) {
      const auto oldest = entries_.find(ages_.front());
      bytes_ -= bytes_of(oldest->second.response);
      if (oldest->second.response.cancel) ended.push_back(std::move(oldest->second.response.cancel));
      entries_.erase(oldest);
      ages_.pop_front();
    }
  }
  for (const auto& end : ended) end();
}

std::optional<std::string> ResponseStore::json(const std::string& id) const {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  return it == entries_.end() ? std::nullopt : std::optional(it->second.response.json);
}

std::optional<std::string> ResponseStore::messages(const std::string& id) const {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  return it == entries_.end() ? std::nullopt : std::optional(it->second.response.messages);
}

void ResponseStore::settle(Entry& entry, std::string json) {
  StoredResponse& r = entry.response;
  bytes_ -= bytes_of(r);
  r.json = std::move(json);
  r.cancelled_json.clear(), r.failed_json.clear();
  r.cancel = {};
  bytes_ += bytes_of(r);
}

void ResponseStore::failed(const std::string& id) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end() || !it->second.response.cancel) return;
  settle(it->second, it->second.response.failed_json);
}

ResponseStore::Cancelled ResponseStore::cancel(const std::string& id) {
  std::function<void()> end;
  {
    std::lock_guard lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return Cancelled::kUnknown;
    if (!it->second.response.cancel) return Cancelled::kNotRunning;
    end = it->second.response.cancel;
    settle(it->second, it->second.response.cancelled_json);
    it->second.cancelled = true;
  }
  end();
  return Cancelled::kDone;
}

void ResponseStore::cancel_all() {
  std::vector<std::string> ids;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, entry] : entries_) {
      if (entry.response.cancel) ids.push_back(id);
    }
  }
  for (const std::string& id : ids) cancel(id);
}

}  // namespace baton::engine
