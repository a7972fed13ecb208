#include "engine/response_store.h"

#include <utility>
#include <vector>

namespace baton::engine {

// Takes the log of the oldest response that has ended if there are too many.
bool ResponseStore::room_for_log() {
  size_t logs = 0;
  StoredResponse* oldest = nullptr;
  for (const std::string& id : ages_) {
    StoredResponse& r = entries_.find(id)->second.response;
    logs += r.log != nullptr;
    if (r.log && !oldest && r.log->ended()) oldest = &r;
  }
  if (logs < logs_max_) return true;
  if (oldest == nullptr) return false;
  oldest->log.reset();
  return true;
}

bool ResponseStore::put(const std::string& id, StoredResponse response) {
  std::vector<std::function<void()>> ended;  // called without the lock
  {
    std::lock_guard lock(mutex_);
    if (response.log && !room_for_log()) return false;
    if (const auto old = entries_.find(id); old != entries_.end()) {
      if (old->second.cancelled) return true;
      if (!response.log) response.log = std::move(old->second.response.log);
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
  return true;
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

std::shared_ptr<EventLog> ResponseStore::log(const std::string& id) const {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : it->second.response.log;
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
