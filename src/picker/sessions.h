#pragma once
// Sessions: which endpoint a session id was sent to last; forgotten after a time without requests, or when kSessionsMax others
// are newer. Holds the endpoint's instance, so one that went away is nobody's session. Any thread; one short lock. ColdOrder:
// when each endpoint last took a request without any prefix hit, for no-hit-lru-scorer. Any thread; atomics. Source: facts sheet
// "epp" 4.6.
#include <array>
#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>

#include "picker/pool.h"

namespace baton::picker {

class Sessions {
 public:
  std::shared_ptr<EndpointState> find(std::string_view id, int64_t now_ms, int64_t ttl_ms);  // nullptr: none, or too old
  void bind(std::string_view id, std::shared_ptr<EndpointState> state, int64_t now_ms);
  size_t size() const;

 private:
  struct Entry {
    std::string id;
    std::weak_ptr<EndpointState> state;
    int64_t used_ms = 0;
  };
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // newest first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_id_;
};

class ColdOrder {
 public:
  void took(int slot) {
    at_[static_cast<size_t>(slot)].store(next_.fetch_add(1, std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  void forget(int slot) { at_[static_cast<size_t>(slot)].store(0, std::memory_order_relaxed); }
  void copy(std::span<uint32_t> out) const {
    for (size_t i = 0; i < out.size(); ++i) out[i] = at_[i].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<uint32_t>, route::kEndpointsMax> at_{};
  std::atomic<uint32_t> next_{0};
};

}  // namespace baton::picker
