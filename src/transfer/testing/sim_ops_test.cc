// What may happen in the simulation: one row an operation. Weights are relative.
#include <algorithm>

#include "transfer/testing/sim.h"

namespace baton::transfer::testing {
namespace {

using Kind = SimFault::Kind;

void with_grant(Sim& sim, void (*act)(Sim&, std::shared_ptr<SimGrant>, SimNode&)) {
  auto g = sim.random_grant();
  auto* by = g ? sim.other_up(g->producer) : nullptr;
  if (by != nullptr) act(sim, std::move(g), *by);
}

// As engines do it: the one that holds a grant fetches it.
void fetch(Sim& sim) {
  with_grant(sim, [](Sim& s, auto g, SimNode& by) {
    auto& holder = g->held_by >= 0 ? s.nodes()[static_cast<size_t>(g->held_by)] : by;
    if (g->fetched > 0 && s.prng.chance(0.8)) return;
    if (!holder.frozen) s.fetch(std::move(g), holder);
  });
}

// Half of them while it is being read.
void release(Sim& sim) {
  auto* f = sim.prng.chance(0.5) ? sim.random_fetch() : nullptr;
  if (auto g = f != nullptr ? f->grant : sim.random_grant()) sim.release(*g);
}

void fault(Sim& sim, Kind kind, SimFault::What what = SimFault::What::kAny, int64_t hold_ms = 0) {
  if (sim.net().size() == 0) return;
  SimFault f{.kind = kind, .what = what, .to_consumer = sim.prng.chance(0.5), .hold_ms = hold_ms};
  auto wire = sim.prng.below(sim.net().size());
  if (sim.net().arm(f, wire)) sim.note(cat("fault on wire ", wire, ": ", describe(f)));
}

template <auto... kArgs>
void fault_row(Sim& sim) {
  fault(sim, kArgs...);
}

// A reading that the end of the lease meets.
void fetch_late(Sim& sim) {
  for (int tries = 0; tries < 10; ++tries) {
    auto g = sim.random_grant();
    auto* by = g ? sim.other_up(g->producer) : nullptr;
    if (by == nullptr || g->held_by >= 0 || g->fetched > 0 || g->push != SimGrant::Push::kNo) continue;
    auto left = g->offered_ms + kSimLeaseMs - sim.now_ms();
    if (left > 0 && left < 40) return void(sim.fetch(std::move(g), *by));
  }
}

void stale(Fetch& f, Sim&) { f.grant.incarnation ^= 1; }
void impostor(Fetch& f, Sim&) { f.grant.engine_id += "-other"; }

template <void (*kTwist)(Fetch&, Sim&)>
void twisted(Sim& sim) {
  with_grant(sim, [](Sim& s, auto g, SimNode& by) {
    if ((kTwist == stale || kTwist == impostor) && g->push != SimGrant::Push::kNo) return;  // a push asks whoever is there
    if (g->held_by != by.number) s.fetch(std::move(g), by, kTwist);  // its holder would hold on under the true name
  });
}

void other_prompt(Fetch& f, Sim& sim) { f.prompt_digest[sim.prng.below(f.prompt_digest.size())] ^= 1; }
void forged(Fetch& f, Sim& sim) {
  Token token;
  for (auto& b : token) b = static_cast<uint8_t>(sim.prng.next());
  f.grant.token = token_text(token);
}
void out_of_range(Fetch& f, Sim& sim) { f.n_tokens += static_cast<int32_t>(16 * sim.prng.between(1, 3)); }
// Push. A prompt is promised to nobody yet, is asked for before or after that, is computed bit by bit, and given up at any time.
void with_plan(Sim& sim, void (*act)(Sim&, std::shared_ptr<SimGrant>)) {
  if (auto g = sim.random_plan()) act(sim, std::move(g));
}
void await(Sim& sim) {
  with_plan(sim, [](Sim& s, auto g) {
    auto* by = s.other_up(g->producer);
    if (by != nullptr && (g->fetched == 0 || s.prng.chance(0.1))) s.fetch(std::move(g), *by);
  });
}
void decline_plan(Sim& sim) {
  with_plan(sim, [](Sim& s, auto g) {
    if (auto* by = s.other_up(g->producer)) s.decline(*g, *by);
  });
}
void compute(Sim& sim) {
  if (auto g = sim.random_promise()) static_cast<void>(sim.compute(*g, static_cast<int32_t>(sim.prng.between(1, 64))));
}
void complete(Sim& sim) {
  if (auto g = sim.random_promise()) sim.complete(*g);
}
void abort_prefill(Sim& sim) {
  if (auto g = sim.random_promise()) sim.release(*g);
}

void die_and_come_back(Sim& sim) {
  auto& n = sim.nodes()[sim.prng.below(sim.nodes().size())];
  if (n.node) sim.kill(n);
  if (sim.prng.chance(0.6)) sim.start(n);
}
void come_back(Sim& sim) {
  for (auto& n : sim.nodes()) {
    if (!n.node) return sim.start(n);
  }
}
void stop(Sim& sim) {
  if (auto* n = sim.random_up()) sim.freeze(*n, true);
}
void go_on(Sim& sim) {
  for (auto& n : sim.nodes()) {
    if (n.frozen) return sim.freeze(n, false);
  }
}
void change_peers(Sim& sim) {
  auto* n = sim.random_up();
  if (n == nullptr) return;
  auto peers = sim.addresses(n->number);
  if (sim.prng.chance(0.5)) peers.erase(peers.begin() + static_cast<ptrdiff_t>(sim.prng.below(peers.size())));
  sim.note(cat("node ", n->number, " is told of ", peers.size(), " peers"));
  sim.disturb_node(n->number);
  n->node->set_peers(std::move(peers));
}
void drain(Sim& sim) {
  auto* n = sim.random_up();
  if (n == nullptr) return;
  sim.note(cat("node ", n->number, " drains"));
  n->draining = true;
  n->node->drain();
}
void latency(Sim& sim) {
  if (sim.net().size() > 0) sim.net().set_latency(sim.prng.below(sim.net().size()), sim.prng.between(0, 30));
}

const SimOperation kOperations[] = {
    {"nothing", 250, [](Sim&) {}},
    {"a while", 25, [](Sim& s) { s.advance(s.prng.between(5, 30)); }},
    {"offer", 90,
     [](Sim& s) {
       if (auto* n = s.random_up()) s.offer(*n);
     }},
    {"hold", 40, [](Sim& s) { with_grant(s, [](Sim& sim, auto g, SimNode& by) { sim.hold(*g, by); }); }},
    {"fetch", 120, fetch},
    {"cancel", 10,
     [](Sim& s) {
       if (auto* f = s.random_fetch()) s.cancel(*f);
     }},
    {"decline", 10, [](Sim& s) { with_grant(s, [](Sim& sim, auto g, SimNode& by) { sim.decline(*g, by); }); }},
    {"release", 12, release},
    {"fetch late", 20, fetch_late},
    {"fetch by anybody", 8, [](Sim& s) { with_grant(s, [](Sim& sim, auto g, SimNode& by) { sim.fetch(std::move(g), by); }); }},
    // Push.
    {"plan", 40,
     [](Sim& s) {
       if (auto* n = s.random_up()) static_cast<void>(s.plan(*n));
     }},
    {"await", 60, await},
    {"promise", 60, [](Sim& s) { with_plan(s, [](Sim& sim, auto g) { sim.promise(g); }); }},
    {"refuse", 4, [](Sim& s) { with_plan(s, [](Sim& sim, auto g) { sim.refuse(*g); }); }},
    {"decline a plan", 2, decline_plan},
    {"compute", 150, compute},
    {"complete", 50, complete},
    {"abort a prefill", 6, abort_prefill},
    // Refused.
    {"fetch with another prompt", 4, twisted<other_prompt>},
    {"fetch with a forged token", 4, twisted<forged>},
    {"fetch of an earlier life", 4, twisted<stale>},
    {"fetch out of range", 4, twisted<out_of_range>},
    {"fetch in another engine's name", 2, twisted<impostor>},
    // Nodes.
    {"restart", 2, die_and_come_back},
    {"come back", 12, come_back},
    {"stop", 2, stop},
    {"go on", 16, go_on},
    {"peers", 1, change_peers},
    {"drain", 1, drain},
    // Network.
    {"latency", 4, latency},
    {"cut", 3, fault_row<Kind::kCut>},
    {"cut in a frame", 3, fault_row<Kind::kCutInside>},
    {"lost control", 3, fault_row<Kind::kDrop, SimFault::What::kControl>},
    {"lost blocks", 2, fault_row<Kind::kDrop, SimFault::What::kBlocks>},
    {"doubled control", 3, fault_row<Kind::kDouble, SimFault::What::kControl>},
    {"doubled blocks", 2, fault_row<Kind::kDouble, SimFault::What::kBlocks>},
    {"reordered", 4, fault_row<Kind::kSwap>},
    {"corrupt control", 3, fault_row<Kind::kFlip, SimFault::What::kControl>},
    {"corrupt blocks", 4, fault_row<Kind::kFlip, SimFault::What::kBlocks>},
    {"held back", 4, [](Sim& s) { fault(s, Kind::kHold, {}, s.prng.between(20, kSimHoldMsMax)); }},
    // Time.
    {"time jumps", 1, [](Sim& s) { s.jump(s.prng.between(100, 4000)); }},
    // Calm: what is sure can be known only after one.
    {"quiet time", 3,
     [](Sim& s) {
       for (int i = 0; i < 260; ++i) s.quiet_turn();
     }},
};

}  // namespace

std::span<const SimOperation> sim_operations() { return kOperations; }

}  // namespace baton::transfer::testing
