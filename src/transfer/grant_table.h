#pragma once
// GrantTable: the producer's grants and their states. No I/O, no clock: the caller brings now_ms and acts on what is returned.
//
//   OFFERED --open--> READING --close--> ended (released)
//      |                 '--revoke, lease end--> REVOKING --close--> ended (released, or expired if the lease ended)
//      '--decline, revoke--> ended (released);  '--lease end--> ended (expired)
//
// Guarantees: every offer ends exactly once, through `ended`, and never while its reader may still take blocks (READING,
// REVOKING). A grant is one-shot: nothing leads back to OFFERED. It belongs to the consumer that first renewed or opened it.
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "transfer/frame.h"
#include "transfer/stats.h"
#include "transfer/transfer.h"

namespace baton::transfer {

struct TokenHash {
  size_t operator()(const Token& t) const {
    size_t h = 0;
    std::memcpy(&h, t.data(), sizeof h);  // tokens are random already
    return h;
  }
};

class GrantTable {
 public:
  enum class State : uint8_t { kOffered, kReading, kRevoking };
  struct Entry {
    Offer offer;
    State state{};
    int64_t deadline_ms = 0;  // lease end; in REVOKING: when the reader's time to stop is over
    std::string consumer;
    bool lease_ended = false;
  };
  using Ended = std::function<void(Event)>;

  GrantTable(const kv::KvLayout& layout, int lease_ms, Stats& stats, Ended ended);
  ~GrantTable();

  void offer(const Token& token, Offer offer, int64_t now_ms);
  Result<const Entry*> open(const FetchMsg& fetch, const std::string& consumer);
  bool renew(const Token& token, const std::string& consumer, int64_t now_ms);  // false: no such grant for it
  void decline(const Token& token, const std::string& consumer);                // only ends what is OFFERED
  void close(const Token& token);
  // These give the readers that must stop now; close() follows when each has. READING becomes REVOKING.
  std::vector<Token> revoke(uint64_t request, int64_t now_ms);
  struct Due {
    std::vector<Token> stop;     // lease ended while READING
    std::vector<Token> overdue;  // was told to stop and did not: cut it off, then close()
  };
  Due expire(int64_t now_ms);
  int64_t next_deadline_ms() const { return deadlines_.empty() ? INT64_MAX : deadlines_.begin()->first; }
  int64_t left_ms(const Token& token, int64_t now_ms) const;
  void stop_renewals() { renewals_ = false; }
  bool renewals() const { return renewals_; }
  size_t size() const { return entries_.size(); }

 private:
  using Map = std::unordered_map<Token, Entry, TokenHash>;
  void set_deadline(const Token& token, Entry& entry, int64_t deadline_ms);
  void set_state(Entry& entry, State state);
  void end(Map::iterator it);
  Gauge& gauge(State state);
  int64_t grace_ms() const { return std::max(lease_ms_ / kHeartbeatsPerLease, 20); }

  kv::KvLayout layout_;
  int lease_ms_;
  Stats& stats_;
  Ended ended_;
  bool renewals_ = true;
  Map entries_;
  std::set<std::pair<int64_t, Token>> deadlines_;
  std::unordered_map<uint64_t, std::vector<Token>> by_request_;
};

}  // namespace baton::transfer
