// What the simulation holds to be true, checked as events come and time passes.
#include <algorithm>
#include <cstring>

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

void Sim::sent(int consumer, int producer, FrameType type, std::span<const std::byte> body) {
  auto& n = nodes_[static_cast<size_t>(consumer)];
  if (type == FrameType::kFetch) {
    auto m = decode<FetchMsg>(body);
    for (auto& [id, f] : n.fetches) {
      if (f.op != 0 || f.grant->producer != producer || f.grant->grant.token != token_text(m->token)) continue;
      f.op = m->op;
      break;
    }
  } else if (type == FrameType::kOpened) {
    auto m = decode<Opened>(body);
    for (auto& [id, f] : n.fetches) {
      if (f.op != m->op || f.grant->producer != producer) continue;
      f.opened = true;
      if (++f.grant->opened > 1) violation(cat("grant ", f.grant->request, " opened twice"));
    }
  }
}

void Sim::delivered(int consumer, int producer, uint64_t op) {
  for (auto& [id, f] : nodes_[static_cast<size_t>(consumer)].fetches) {
    if (f.op == op && f.grant->producer == producer) f.delivered = true;
  }
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
    if (!holds_prompt(n, f.blocks[static_cast<size_t>(i)], *f.grant->prompt, f.first_token / bt + i))
      violation(cat("fetch ", f.request, ": block ", i, " is reported valid and is not what the producer wrote"));
  }
  bool calm_since = calm(f.consumer, f.grant->producer, f.started_ms);
  bool excused = f.cancelled || f.grant->released || f.grant->declined || f.grant->shared ||
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
  ++(expired ? counts.expired : counts.released);
  if (expired && now_ms() < g->offered_ms + kSimLeaseMs) violation(cat("grant ", g->request, " expired before its lease"));
  if (!expired && g->fetched == 0 && !g->declined && !g->released)
    violation(cat("grant ", g->request, " was released by nobody"));
  if (expired && g->held_by >= 0 && g->hold_sure && !g->shared && !n.draining && calm(g->held_by, n.number, g->held_ms))
    violation(cat("grant ", g->request, " expired while node ", g->held_by, " held it"));
  for (auto& other : nodes_) {
    for (auto& [id, f] : other.fetches) {
      if (f.grant == g && f.opened && f.shm && calm(f.consumer, n.number, f.started_ms))
        violation(cat("blocks of grant ", g->request, " freed while fetch ", id, " still reads them"));
    }
  }
  if (--g->prompt->grants == 0) forget_prompt(n, g->prompt);
}

// After the node's turn: what is due has happened.
void Sim::check_time(SimNode& n) {
  for (auto& [id, f] : n.fetches) {
    if (std::exchange(f.delivered, false)) f.progress_ms = now_ms();
    auto since = std::max(f.progress_ms, n.woken_ms);
    if (now_ms() > since + kSimFetchTimeoutMs + 1)
      violation(cat("fetch ", id, " goes on ", now_ms() - since, " ms after the last sign of the producer"));
  }
  for (auto& [id, g] : n.grants) {
    bool claimed = g->held_by >= 0;
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
  }
  auto until = now_ms() + kHealMs, calm_from = now_ms() + kCalmMs;
  while ((now_ms() < calm_from || !all_quiet()) && failure_.empty()) {
    if (now_ms() > until) return violation("things did not come to rest after the faults had stopped");
    advance(kHealStepMs);
    turn_all();
  }
  for (auto& n : nodes_) check_poison(n);
  if (failure_.empty()) hand_over_everywhere();
  counts.faults += static_cast<uint64_t>(net_.faults_done);
  for (auto& n : nodes_) kill(n);
}

void Sim::hand_over_everywhere() {
  auto want = counts.complete;
  for (auto& p : nodes_) {
    for (auto& d : nodes_) {
      if (p.number == d.number) continue;
      offer(p);
      fetch(p.grants.rbegin()->second, d);
      ++want;
    }
  }
  for (auto until = now_ms() + kSimLeaseMs; now_ms() < until && (counts.complete < want || !all_quiet()); advance(2)) turn_all();
  if (counts.complete != want) violation("a pair does not hand over after the faults had stopped");
  if (!all_quiet()) violation("something is left after the last hand-overs");
}

void Sim::Counts::operator+=(const Counts& o) {
  offers += o.offers, fetches += o.fetches, complete += o.complete, sure += o.sure, partial += o.partial, failed += o.failed;
  refused += o.refused, expired += o.expired, released += o.released, faults += o.faults;
}

std::string Sim::Counts::text() const {
  return cat(offers, " offers (", released, " released, ", expired, " expired), ", fetches, " fetches (", complete, " complete, ",
             sure, " of them had to; ", partial, " in part, ", failed, " failed, ", refused, " had to), ", faults, " faults");
}

}  // namespace baton::transfer::testing
