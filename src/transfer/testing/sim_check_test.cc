// What the simulation holds to be true, checked as events come and time passes.
#include <algorithm>
#include <cstring>

#include "transfer/limits.h"
#include "transfer/testing/sim.h"

namespace baton::transfer::testing {
namespace {

constexpr int64_t kCalmMs = 2500;  // what a disturbance starts (silence, backoff, a lease) is over by then
constexpr int64_t kGraceMs = 100;  // of the grant table at our lease
constexpr int64_t kGrantMs = kSimLeaseMs + kSimHoldMsMax + 3 * kGraceMs + 300;  // a held back heartbeat may still extend a lease
constexpr int64_t kHealMs = 20'000;  // longest backoff, handshake and lease after one another, and some
constexpr int kHealStepMs = 10;
constexpr std::byte kPoison{0x11};  // in every destination that no fetch has

}  // namespace

void Sim::disturbed(int consumer, int producer) {
  disturbed_ms_[static_cast<size_t>(consumer)][static_cast<size_t>(producer)] = now_ms();
}

bool Sim::calm(int consumer, int producer, int64_t since_ms) const {
  return disturbed_ms_[static_cast<size_t>(consumer)][static_cast<size_t>(producer)] + kCalmMs <= since_ms;
}

// --- what the network sees

SimReading* Sim::reading(const SimWire& w, uint64_t op) {
  auto it = readings_.find({w.number, op});
  return it == readings_.end() || !it->second.grant ? nullptr : &it->second;
}

void Sim::sent(const SimWire& w, FrameType type, std::span<const std::byte> body) {
  uint64_t op = 0;
  if (body.size() >= sizeof op) std::memcpy(&op, body.data(), sizeof op);
  auto* r = reading(w, op);
  switch (type) {
    case FrameType::kFetch:
      return on_asked(w, *decode<FetchMsg>(body));
    case FrameType::kAwait:
      return on_asked(w, *decode<Await>(body));
    case FrameType::kOpened:
      return r != nullptr ? on_opened(*r) : void();
    case FrameType::kChunk:
      return r != nullptr ? check_chunk(*r, body) : void();
    case FrameType::kCredit:
      return check_taken(w, op);
    case FrameType::kClose:
      return decode<Close>(body)->complete ? check_taken(w, op) : void();
    default:
      return;
  }
}

void Sim::on_asked(const SimWire& w, const FetchMsg& m) {
  auto g = tokens_.find(m.token);
  readings_[{w.number, m.op}] = {g == tokens_.end() ? nullptr : g->second, m.first_token, m.path};
  for (auto& [id, f] : nodes_[static_cast<size_t>(w.consumer)].fetches) {
    if (f.op != 0 || f.grant->producer != w.producer || f.token != m.token) continue;
    f.op = m.op, f.wire = w.number;
    if (f.push) f.progress_ms = now_ms();  // it may have waited for the handshake
    return;
  }
}

void Sim::on_opened(SimReading& r) {
  r.opened = true;
  if (++r.grant->opened > 1) violation(cat("grant ", r.grant->request, " opened twice"));
  if (r.grant->dead) violation(cat("promise ", r.grant->request, " opened though it had been refused"));
}

void Sim::delivered(const SimWire& w, std::span<const uint64_t> ops) {
  for (auto& [id, f] : nodes_[static_cast<size_t>(w.consumer)].fetches) {
    if (f.wire == w.number && std::ranges::find(ops, f.op) != ops.end()) f.delivered = true;
  }
}

void Sim::closed(const SimWire& w, uint64_t op) {
  if (auto* r = reading(w, op)) r->closed = true;
}

// What leaves a producer is what it wrote, and computed already.
void Sim::check_chunk(const SimReading& r, std::span<const std::byte> body) {
  ChunkHead head;
  Decoder decoder(body.first(kChunkHeadBytes));
  head.fields(decoder);
  auto payload = body.subspan(kChunkHeadBytes);
  auto each = payload.size() / head.n_blocks;
  const auto& g = *r.grant;
  for (uint32_t i = 0; i < head.n_blocks; ++i) {
    auto index = r.first_token / layout_.block_tokens + static_cast<int32_t>(head.first_block + i);
    auto part = payload.subspan(i * each, each);
    uint32_t number = 0;
    std::memcpy(&number, part.data(), sizeof number);
    auto at = static_cast<size_t>(index);
    bool there = at < g.prompt->blocks.size();
    bool right =
        there && (r.path == Path::kTcp ? is_block_of(part, *g.prompt, index) : std::cmp_equal(number, g.prompt->blocks[at]));
    bool ready = g.push != SimGrant::Push::kComputing || (index + 1) * layout_.block_tokens <= g.ready;
    if (!right || !ready)
      return violation(
          cat("block ", index, " of grant ", g.request,
              ready ? " leaves its producer and is not what was written" : " leaves its producer before it is computed"));
  }
}

// A reader that acknowledges blocks has just taken them, in its last turn or, if its socket was full, the one before.
void Sim::check_taken(const SimWire& w, uint64_t op) {
  auto* r = reading(w, op);
  if (r == nullptr || r->grant->expired_ms < 0 || damaged_.contains(w.number)) return;
  if (before_ms_ > r->grant->expired_ms)
    violation(cat("blocks of grant ", r->grant->request, " taken after its lease had ended"));
}

// Its blocks are free now: nobody may be in them who can still be told so.
void Sim::check_readers(const SimGrant& ended) {
  for (const auto& [key, r] : readings_) {
    if (r.grant.get() == &ended && r.path == Path::kShm && r.opened && !r.closed && net_.serves(key.first))
      violation(cat("blocks of grant ", ended.request, " freed under its reader"));
  }
}

// --- what the engines are told

void Sim::on_event(SimNode& n, const Event& e) {
  switch (e.kind) {
    case Event::Kind::kFetched:
      return on_fetched(n, e);
    case Event::Kind::kCompletion:
      return on_completion(n, e);
    case Event::Kind::kPromiseGone:  // the engine had not looked at the promise's end when it named blocks
      ++counts.gone;
      if (n.grants.contains(e.request)) violation(cat("promise ", e.request, " is gone and has not ended"));
      return;
    default:
      return on_grant_ended(n, e);
  }
}

void Sim::on_completion(SimNode& n, const Event& e) {
  auto it = n.fetches.find(e.request);
  if (it == n.fetches.end()) return violation(cat("completion of fetch ", e.request, ", which has ended"));
  auto& f = it->second;
  note(cat("fetch ", f.request, " learns the first token"));
  if (std::exchange(f.completed, true)) violation(cat("fetch ", f.request, " completed twice"));
  if (f.must_fail || f.grant->push != SimGrant::Push::kComplete || e.completion.first_token != f.grant->first_token)
    violation(cat("fetch ", f.request, " learns a first token that is none"));
}

void Sim::on_fetched(SimNode& n, const Event& e) {
  auto it = n.fetches.find(e.request);
  if (it == n.fetches.end()) return violation(cat("fetch ", e.request, " ended twice, or never was"));
  auto f = std::move(it->second);
  n.fetches.erase(it);
  note(cat("fetch ", f.request, " ends: ", e.valid_tokens, " of ", f.n_tokens, e.error ? cat(", ", e.error->message) : ""));
  if (e.valid_tokens < 0 || e.valid_tokens > f.n_tokens || (!e.error && e.valid_tokens != f.n_tokens))
    violation(cat("fetch ", f.request, ": ", e.valid_tokens, " of ", f.n_tokens, " tokens", e.error ? "" : " and no error"));
  if (f.must_fail && (!e.error || e.valid_tokens > 0)) violation(cat("fetch ", f.request, " should have been refused"));
  auto bt = layout_.block_tokens;
  for (int32_t i = 0; i * bt < e.valid_tokens && !f.must_fail; ++i) {
    if (!is_block_of(block(n, f.blocks[static_cast<size_t>(i)]), *f.grant->prompt, f.first_token / bt + i))
      violation(cat("fetch ", f.request, ": block ", i, " is reported valid and is not what the producer wrote"));
  }
  if (!e.error && f.push && !f.completed) violation(cat("fetch ", f.request, " ends well without the first token"));
  bool calm_since = calm(f.consumer, f.grant->producer, f.started_ms);
  bool never = f.push && (f.grant->refused_by != 0 || f.grant->promised_ms == 0 ||
                          f.grant->promised_ms > f.started_ms + kAwaitMs - kCalmMs);
  bool excused = never || f.cancelled || f.grant->released || f.grant->declined || f.grant->shared ||
                 nodes_[static_cast<size_t>(f.grant->producer)].draining;
  if (e.error && f.must_succeed && calm_since && !excused)
    violation(cat("fetch ", f.request, " failed though nothing disturbed it: ", e.error->message));
  if (e.error && e.error->code == Code::kDataLoss && calm_since)
    violation(cat("fetch ", f.request, ": bytes changed on their way though no fault changed them"));
  counts.complete += !e.error;
  counts.sure += !e.error && f.must_succeed;
  counts.partial += e.error && e.valid_tokens > 0;
  counts.failed += e.error && e.valid_tokens == 0 && !f.must_fail;
  counts.refused += f.must_fail;
  counts.pushed += f.push && !e.error;
  counts.push_sure += f.push && !e.error && f.must_succeed;
  f.grant->claimed_ms = now_ms();
  for (auto b : f.blocks) {
    std::ranges::fill(block(n, b), kPoison);
    n.target_free.push_back(b);
  }
}

void Sim::on_grant_ended(SimNode& n, const Event& e) {
  auto it = n.grants.find(e.request);
  if (it == n.grants.end()) return violation(cat("grant ", e.request, " ended twice, or never was"));
  auto g = std::move(it->second);
  n.grants.erase(it);
  bool expired = e.kind == Event::Kind::kGrantExpired;
  note(cat("grant ", g->request, expired ? " expires" : " is released"));
  g->ended = true;
  if (expired) g->expired_ms = now_ms();
  check_readers(*g);
  ++(expired ? counts.expired : counts.released);
  if (expired && now_ms() < g->offered_ms + kSimLeaseMs) violation(cat("grant ", g->request, " expired before its lease"));
  if (expired && g->push == SimGrant::Push::kComputing && g->fetched == 0)
    violation(cat("promise ", g->request, " expired while its prompt was computed"));
  if (!expired && g->fetched == 0 && !g->declined && !g->released && !g->dead)
    violation(cat("grant ", g->request, " was released by nobody"));
  if (expired && g->held_by >= 0 && g->hold_sure && !g->shared && !n.draining && calm(g->held_by, n.number, g->held_ms))
    violation(cat("grant ", g->request, " expired while node ", g->held_by, " held it"));
  if (--g->prompt->grants == 0) forget_prompt(n, g->prompt);
}

// After the node's turn: what is due has happened.
void Sim::check_time(SimNode& n) {
  for (auto& [id, f] : n.fetches) {
    if (std::exchange(f.delivered, false)) f.progress_ms = now_ms();
    auto since = std::max(f.progress_ms, n.woken_ms);
    auto patience = f.push && f.op == 0 ? kHandshakeMs : kSimFetchTimeoutMs;
    if (now_ms() > since + patience + 1)
      violation(cat("fetch ", id, " goes on ", now_ms() - since, " ms after the last sign of the producer"));
    auto asked = std::max(f.started_ms + kHandshakeMs, n.woken_ms);
    if (f.push && f.grant->promised_ms == 0 && now_ms() > asked + kAwaitMs + kSimHoldMsMax + kSimFetchTimeoutMs)
      violation(cat("fetch ", id, " still waits for what nobody promises"));
  }
  for (auto& [id, g] : n.grants) {
    bool computed = g->push == SimGrant::Push::kComputing && !g->released && !g->dead;  // it ends with its request
    bool claimed = g->held_by >= 0 || computed;
    for (auto& other : nodes_) {
      for (auto& [request, f] : other.fetches) claimed = claimed || f.grant == g;
    }
    if (claimed) g->claimed_ms = now_ms();
    auto since = std::max(g->claimed_ms, n.woken_ms);
    if (now_ms() > since + kGrantMs) violation(cat("grant ", id, " lives ", now_ms() - since, " ms after its last claim"));
  }
}

void Sim::check_poison(SimNode& n) {
  for (auto b : n.target_free) {
    auto bytes = block(n, b);
    bool untouched = bytes[0] == kPoison && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
    if (!untouched) return violation(cat("block ", b, " of node ", n.number, " was written after its event"));
  }
}

bool Sim::all_quiet() {
  for (auto& n : nodes_) {
    if (!n.grants.empty() || !n.fetches.empty() || n.node->grants_live() != 0) return false;
    for (auto& other : nodes_) {
      if (other.number != n.number && !connected(n, other.number)) return false;
    }
  }
  return true;
}

// Faults stop; everything heals and nothing is left.
void Sim::finish() {
  note("faults stop");
  net_.heal();
  for (auto& n : nodes_) {
    if (!n.node) start(n);
    if (n.frozen) freeze(n, false);
    n.node->set_peers(addresses(n.number));
    for (auto& [id, f] : n.fetches) {
      if (prng.chance(0.5)) cancel(f);
    }
    for (auto& [id, g] : n.grants) {
      if (g->held_by >= 0) decline(*g, nodes_[static_cast<size_t>(g->held_by)]);
    }
    finish_promises(n);
  }
  auto until = now_ms() + kHealMs, calm_from = now_ms() + kCalmMs;
  while ((now_ms() < calm_from || !all_quiet()) && failure_.empty()) {
    if (now_ms() > until) return violation("things did not come to rest after the faults had stopped");
    advance(kHealStepMs);
    turn_all();
  }
  for (auto& n : nodes_) check_poison(n);
  for (bool push : {false, true}) {
    if (failure_.empty()) hand_over_everywhere(push);
  }
  counts.faults += static_cast<uint64_t>(net_.faults_done);
  for (auto& n : nodes_) kill(n);
}

void Sim::hand_over_everywhere(bool push) {
  auto want = counts.complete;
  for (auto& p : nodes_) {
    for (auto& d : nodes_) {
      if (p.number == d.number) continue;
      ++want;
      if (push) {
        auto g = plan(p);
        fetch(g, d);
        promise(g);
        complete(*g);
      } else {
        offer(p);
        fetch(p.grants.rbegin()->second, d);
      }
    }
  }
  for (auto until = now_ms() + kSimLeaseMs; now_ms() < until && (counts.complete < want || !all_quiet()); advance(2)) turn_all();
  if (counts.complete != want) violation("a pair does not hand over after the faults had stopped");
  if (!all_quiet()) violation("something is left after the last hand-overs");
}

void Sim::Counts::operator+=(const Counts& o) {
  offers += o.offers, fetches += o.fetches, complete += o.complete, sure += o.sure, partial += o.partial, failed += o.failed;
  refused += o.refused, expired += o.expired, released += o.released, faults += o.faults;
  promises += o.promises, pushed += o.pushed, push_sure += o.push_sure, dead += o.dead, gone += o.gone;
}

std::string Sim::Counts::text() const {
  return cat(offers, " offers and ", promises, " promises (", released, " released, ", expired, " expired), ", fetches,
             " fetches (", complete, " complete, ", sure, " of them had to; ", partial, " in part, ", failed, " failed, ",
             refused, " had to; ", pushed, " pushed, ", push_sure, " of them had to), ", dead, " promises came too late, ", gone,
             " named blocks for nobody, ", faults, " faults");
}

}  // namespace baton::transfer::testing
