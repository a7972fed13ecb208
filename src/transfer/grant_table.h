#pragma once
// GrantTable: the producer's grants and their states. No I/O, no clock: the caller brings now_ms and acts on what is returned.
//
//   COMPUTING --complete--> OFFERED --open--> READING --last close--> ended (released)
//      |    '------------open-----|--------------^ |
//      |                          |                '--revoke, lease end--> REVOKING --close--> ended (released, or expired if
//      |                          |                                                                   the lease ended)
//      '--------------------------+--decline, revoke--> ended (released);  OFFERED --lease end--> ended (expired)
//
// COMPUTING is a promise: its blocks are named and become ready while the prompt is computed, and it has no lease, for it ends
// with the request. READING may begin before everything is ready.
// Guarantees: every offer and promise ends exactly once, through `ended`, and never while its reader may still take blocks
// (READING, REVOKING). A grant is one-shot: nothing leads back to OFFERED or COMPUTING, and a token that ended is not promised
// again. It belongs to the consumer that first renewed or opened it; when that engine has several ranks, each that FETCH counts
// among `readers` opens it once.
#include <cstdint>
#include <deque>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
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
  enum class State : uint8_t { kComputing, kOffered, kReading, kRevoking };
  struct Entry {
    Offer offer;
    State state = State::kOffered;
    int64_t deadline_ms = INT64_MAX;  // lease end; in REVOKING: when the reader's time to stop is over; COMPUTING has none
    std::string consumer;
    bool lease_ended = false;
    bool complete = true;  // false: only ready_tokens are in place
    int32_t ready_tokens = 0;
    Completion completion;
    std::vector<uint16_t> opened;  // by which of the consumer's ranks
    int reading = 0;               // opens without their close
    uint16_t readers = 0;          // opens to come in all, as the first one said
  };
  using Ended = std::function<void(Event)>;

  GrantTable(const kv::KvLayout& layout, int lease_ms, Stats& stats, Ended ended);
  ~GrantTable();

  void offer(const Token& token, Offer offer, int64_t now_ms);
  // false: the token was used before, or there are too many grants; the promise has ended already.
  bool promise(const Token& token, Offer offer);
  // These give the readers that have more to take now.
  std::vector<Token> progress(uint64_t request, std::vector<int32_t> blocks, int32_t ready_tokens);
  std::vector<Token> complete(uint64_t request, Completion completion, int64_t now_ms);
  const Entry* find(const Token& token) const;
  bool has(uint64_t request) const { return by_request_.contains(request); }
  size_t ready_blocks(const Entry& entry) const;  // leading blocks that may be read
  Result<const Entry*> open(const FetchMsg& fetch, const std::string& consumer, uint16_t rank, int64_t now_ms);
  bool renew(const Token& token, const std::string& consumer, int64_t now_ms);  // false: no such grant for it
  // Ends what is OFFERED or COMPUTING; a token that is of no grant yet will not be promised.
  void decline(const Token& token, const std::string& consumer);
  void remember(const Token& token);  // as ended: never to be promised
  bool ended(const Token& token) const { return ended_tokens_.contains(token); }
  void close(const Token& token);  // of one open
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
  Result<> check_open(const Entry& entry, const FetchMsg& fetch, const std::string& consumer, uint16_t rank) const;
  void end(Map::iterator it);
  std::vector<Token> reading(uint64_t request) const;
  template <class Change>
  void each_incomplete(uint64_t request, Change change);
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
  std::unordered_set<Token, TokenHash> ended_tokens_;
  std::deque<Token> ended_order_;  // oldest first
};

}  // namespace baton::transfer
