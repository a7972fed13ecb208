#pragma once
// ResponseStore: what /v1/responses keeps of its answers with VLLM_ENABLE_RESPONSES_API_STORE: for the next turn of a
// conversation (previous_response_id), for who fetches an answer again, and for those that are made in the background. In memory,
// bounded in number and bytes (limits.h); the oldest goes first, and ends if it still runs. Any thread.
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "engine/event_log.h"

namespace baton::engine {

struct StoredResponse {
  std::string json{};      // the response object as a client gets it
  std::string messages{};  // the conversation up to its end: chat messages, comma separated, without instructions
  // Of one that still runs: what it is once cancelled or failed, and what ends it; empty otherwise.
  std::string cancelled_json{}, failed_json{};
  std::function<void()> cancel{};
  std::shared_ptr<EventLog> log{};  // of one that is streamed in the background
};

class ResponseStore {
 public:
  ResponseStore(size_t responses_max, size_t bytes_max, size_t logs_max)
      : responses_max_(responses_max), bytes_max_(bytes_max), logs_max_(logs_max) {}
  // Replaces, unless a cancelled one is there; what was logged stays. False, and nothing is done: no room for one more log.
  bool put(const std::string& id, StoredResponse response);
  std::optional<std::string> json(const std::string& id) const;
  std::optional<std::string> messages(const std::string& id) const;
  std::shared_ptr<EventLog> log(const std::string& id) const;  // nullptr: it has none, or is not known
  void failed(const std::string& id);  // a running one ended without an answer
  enum class Cancelled : uint8_t { kUnknown, kNotRunning, kDone };
  Cancelled cancel(const std::string& id);
  void cancel_all();

 private:
  struct Entry {
    StoredResponse response;
    std::list<std::string>::iterator age;
    bool cancelled = false;
  };
  using Entries = std::unordered_map<std::string, Entry>;
  static size_t bytes_of(const StoredResponse& r) {
    return r.json.size() + r.messages.size() + r.cancelled_json.size() + r.failed_json.size();
  }
  void settle(Entry& entry, std::string json);
  bool room_for_log();

  const size_t responses_max_, bytes_max_, logs_max_;
  mutable std::mutex mutex_;
  Entries entries_;
  std::list<std::string> ages_;  // oldest first
  size_t bytes_ = 0;
};

}  // namespace baton::engine
