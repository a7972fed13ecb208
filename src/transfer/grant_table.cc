#include "transfer/grant_table.h"

#include <algorithm>
#include <utility>

namespace baton::transfer {

GrantTable::GrantTable(const kv::KvLayout& layout, int lease_ms, Stats& stats, Ended ended)
    : layout_(layout), lease_ms_(lease_ms), stats_(stats), ended_(std::move(ended)) {}

GrantTable::~GrantTable() {
  while (!entries_.empty()) end(entries_.begin());
}

Gauge& GrantTable::gauge(State state) {
  switch (state) {
    case State::kComputing:
      return stats_.computing;
    case State::kOffered:
      return stats_.offered;
    case State::kReading:
      return stats_.reading;
    case State::kRevoking:
      break;
  }
  return stats_.revoking;
}

void GrantTable::set_state(Entry& entry, State state) {
  gauge(entry.state).add(-1);
  gauge(entry.state = state).add(1);
}

void GrantTable::set_deadline(const Token& token, Entry& entry, int64_t deadline_ms) {
  deadlines_.erase({entry.deadline_ms, token});
  deadlines_.emplace(entry.deadline_ms = deadline_ms, token);
}

void GrantTable::offer(const Token& token, Offer offer, int64_t now_ms) {
  auto [it, fresh] = entries_.try_emplace(token);
  BATON_CHECK(fresh);
  auto& entry = it->second;
  entry.offer = std::move(offer);
  by_request_[entry.offer.request].push_back(token);
  gauge(State::kOffered).add(1);
  stats_.retained_bytes.add(static_cast<double>(entry.offer.blocks.size() * layout_.block_bytes()));
  entry.deadline_ms = now_ms + lease_ms_;
  deadlines_.emplace(entry.deadline_ms, token);
  if (entries_.size() <= kGrantsMax) return;
  entry.lease_ended = true;
  end(it);
}

bool GrantTable::promise(const Token& token, Offer offer) {
  bool used = ended(token) || entries_.contains(token);
  if (used || entries_.size() >= kGrantsMax) {
    Event event;
    event.kind = Event::Kind::kGrantReleased;
    event.request = offer.request;
    ended_(std::move(event));
    return false;
  }
  auto& entry = entries_[token];
  entry.offer = std::move(offer);
  entry.offer.blocks.clear();
  entry.state = State::kComputing;
  entry.complete = false;
  by_request_[entry.offer.request].push_back(token);
  gauge(entry.state).add(1);
  return true;
}

template <class Change>
void GrantTable::each_incomplete(uint64_t request, Change change) {
  auto tokens = by_request_.find(request);
  if (tokens == by_request_.end()) return;
  for (const auto& token : tokens->second) {
    auto& entry = entries_.at(token);
    if (!entry.complete) change(token, entry);
  }
}

std::vector<Token> GrantTable::reading(uint64_t request) const {
  std::vector<Token> out;
  auto tokens = by_request_.find(request);
  if (tokens == by_request_.end()) return out;
  for (const auto& token : tokens->second) {
    if (entries_.at(token).state == State::kReading) out.push_back(token);
  }
  return out;
}

std::vector<Token> GrantTable::progress(uint64_t request, std::vector<int32_t> blocks, int32_t ready_tokens) {
  each_incomplete(request, [&](const Token&, Entry& entry) {
    if (entry.offer.blocks.empty() && !blocks.empty()) {
      entry.offer.blocks = blocks;
      stats_.retained_bytes.add(static_cast<double>(blocks.size() * layout_.block_bytes()));
    }
    entry.ready_tokens = std::clamp(ready_tokens, entry.ready_tokens, entry.offer.n_tokens);
  });
  return reading(request);
}

std::vector<Token> GrantTable::complete(uint64_t request, Completion completion, int64_t now_ms) {
  each_incomplete(request, [&](const Token& token, Entry& entry) {
    BATON_CHECK(
        std::cmp_greater_equal(entry.offer.blocks.size() * static_cast<size_t>(layout_.block_tokens), entry.offer.n_tokens));
    entry.complete = true;
    entry.completion = completion;
    if (entry.state != State::kComputing) return;
    set_state(entry, State::kOffered);
    set_deadline(token, entry, now_ms + lease_ms_);
  });
  return reading(request);
}

const GrantTable::Entry* GrantTable::find(const Token& token) const {
  auto it = entries_.find(token);
  return it == entries_.end() ? nullptr : &it->second;
}

size_t GrantTable::ready_blocks(const Entry& entry) const {
  if (entry.complete) return entry.offer.blocks.size();
  return std::min(entry.offer.blocks.size(), static_cast<size_t>(entry.ready_tokens / layout_.block_tokens));
}

void GrantTable::remember(const Token& token) {
  if (!ended_tokens_.insert(token).second) return;
  ended_order_.push_back(token);
  if (ended_order_.size() <= kEndedTokensMax) return;
  ended_tokens_.erase(ended_order_.front());
  ended_order_.pop_front();
}

void GrantTable::end(Map::iterator it) {
  auto entry = std::move(it->second);
  auto token = it->first;
  remember(token);
  deadlines_.erase({entry.deadline_ms, token});
  entries_.erase(it);
  auto tokens = by_request_.find(entry.offer.request);
  std::erase(tokens->second, token);
  if (tokens->second.empty()) by_request_.erase(tokens);
  gauge(entry.state).add(-1);
  stats_.retained_bytes.add(-static_cast<double>(entry.offer.blocks.size() * layout_.block_bytes()));
  if (entry.lease_ended) {
    stats_.lease_expired.inc();
    stats_.expired_requests.inc();
  }
  Event event;
  event.kind = entry.lease_ended ? Event::Kind::kGrantExpired : Event::Kind::kGrantReleased;
  event.request = entry.offer.request;
  ended_(std::move(event));
}

Result<> GrantTable::check_open(const Entry& entry, const FetchMsg& fetch, const std::string& consumer, uint16_t rank) const {
  if (!entry.consumer.empty() && entry.consumer != consumer)
    return fail(Code::kPermissionDenied, "the grant belongs to another engine");
  bool another_rank = entry.state == State::kReading && entry.opened.size() < entry.readers &&
                      std::find(entry.opened.begin(), entry.opened.end(), rank) == entry.opened.end();
  if (entry.state != State::kOffered && entry.state != State::kComputing && !another_rank)
    return fail(Code::kAlreadyExists, "the grant is being read or was revoked");
  if (fetch.readers == 0 || fetch.readers > kReadersMax || (another_rank && fetch.readers != entry.readers))
    return fail(Code::kInvalidArgument, fetch.readers, " readers of one grant");
  if (fetch.digest != entry.offer.prompt_digest) return fail(Code::kFailedPrecondition, "the grant is for another prompt");
  auto first = int64_t{fetch.first_token}, last = first + fetch.n_tokens;
  if (first < 0 || fetch.n_tokens <= 0 || first % layout_.block_tokens != 0 || last > entry.offer.n_tokens)
    return fail(Code::kOutOfRange, "tokens [", first, ", ", last, ") of a grant for ", entry.offer.n_tokens);
  return {};
}

Result<const GrantTable::Entry*> GrantTable::open(const FetchMsg& fetch, const std::string& consumer, uint16_t rank,
                                                  int64_t now_ms) {
  auto it = entries_.find(fetch.token);
  if (it == entries_.end()) return fail(Code::kNotFound, "no such grant: expired, released or already read");
  auto& entry = it->second;
  BATON_OK(check_open(entry, fetch, consumer, rank));
  entry.consumer = consumer;
  if (entry.state == State::kComputing)
    set_deadline(fetch.token, entry, now_ms + lease_ms_);  // its reader must show that it lives
  entry.readers = fetch.readers;
  entry.opened.push_back(rank);
  ++entry.reading;
  if (entry.state != State::kReading) set_state(entry, State::kReading);
  return &entry;
}

bool GrantTable::renew(const Token& token, const std::string& consumer, int64_t now_ms) {
  auto it = entries_.find(token);
  if (it == entries_.end()) return false;
  auto& entry = it->second;
  if (entry.consumer.empty()) entry.consumer = consumer;
  if (entry.consumer != consumer) return false;
  if (entry.state == State::kComputing) return true;
  auto until = now_ms + lease_extension_ms(lease_ms_);
  if (renewals_ && entry.state != State::kRevoking && until > entry.deadline_ms) set_deadline(token, entry, until);
  return true;
}

void GrantTable::decline(const Token& token, const std::string& consumer) {
  auto it = entries_.find(token);
  if (it == entries_.end()) return remember(token);
  auto& entry = it->second;
  if (entry.state != State::kOffered && entry.state != State::kComputing) return;
  if (entry.consumer.empty() || entry.consumer == consumer) end(it);
}

void GrantTable::close(const Token& token) {
  auto it = entries_.find(token);
  if (it == entries_.end()) return;
  auto& entry = it->second;
  bool more_to_come = entry.state == State::kReading && entry.opened.size() < entry.readers;
  if (--entry.reading == 0 && !more_to_come) end(it);
}

std::vector<Token> GrantTable::revoke(uint64_t request, int64_t now_ms) {
  std::vector<Token> stop;
  auto tokens = by_request_.find(request);
  if (tokens == by_request_.end()) return stop;
  for (const auto& token : std::vector<Token>(tokens->second)) {
    auto it = entries_.find(token);
    if (it->second.reading == 0) {
      end(it);
    } else if (it->second.state == State::kReading) {
      set_state(it->second, State::kRevoking);
      set_deadline(token, it->second, now_ms + grace_ms());
      stop.push_back(token);
    }
  }
  return stop;
}

GrantTable::Due GrantTable::expire(int64_t now_ms) {
  Due due;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_ms) {
    auto token = deadlines_.begin()->second;
    auto it = entries_.find(token);
    auto& entry = it->second;
    if (entry.state == State::kRevoking) {
      due.overdue.push_back(token);
      set_deadline(token, entry, now_ms + grace_ms());
      continue;
    }
    entry.lease_ended = true;
    if (entry.reading == 0) {
      end(it);
      continue;
    }
    set_state(entry, State::kRevoking);
    set_deadline(token, entry, now_ms + grace_ms());
    due.stop.push_back(token);
  }
  return due;
}

int64_t GrantTable::left_ms(const Token& token, int64_t now_ms) const {
  auto it = entries_.find(token);
  return it == entries_.end() ? 0 : std::max<int64_t>(0, it->second.deadline_ms - now_ms);
}

}  // namespace baton::transfer
