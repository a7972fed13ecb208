// The simulated world, push: what a prefill engine does under a token that both legs knew before.
#include "transfer/testing/sim.h"

#include <algorithm>

namespace baton::transfer::testing {

constexpr size_t kPlansMax = 12;  // further ones are forgotten, oldest first: a leg of theirs never came

std::shared_ptr<SimGrant> Sim::plan(SimNode& producer) {
  auto g = std::make_shared<SimGrant>();
  g->push = SimGrant::Push::kPlanned;
  g->request = next_request_++;
  g->producer = producer.number;
  g->prompt = new_prompt(static_cast<size_t>(prng.between(1, 12)));
  g->prompt->grants = 1;
  g->first_token = static_cast<int32_t>(prng.below(1000));
  Token token;
  for (auto& b : token) b = static_cast<uint8_t>(prng.next());
  g->grant = {.token = token_text(token), .engine_id = {}, .host = "127.0.0.1", .port = producer.node->port()};
  tokens_[token] = g;
  note(cat("push ", g->request, " is planned at node ", producer.number, ", ", g->prompt->n_tokens, " tokens"));
  planned_.push_back(g);
  if (planned_.size() > kPlansMax) planned_.erase(planned_.begin());
  return g;
}

std::shared_ptr<SimGrant> Sim::random_plan() {
  if (planned_.empty()) return nullptr;
  auto& g = planned_[prng.below(planned_.size())];
  auto& n = nodes_[static_cast<size_t>(g->producer)];
  return n.node && !n.frozen ? g : nullptr;
}

std::shared_ptr<SimGrant> Sim::random_promise() {
  auto& n = nodes_[prng.below(nodes_.size())];
  if (!n.node || n.frozen) return nullptr;
  std::vector<std::shared_ptr<SimGrant>> all;
  for (auto& [id, g] : n.grants) {
    if (g->push == SimGrant::Push::kComputing && !g->released) all.push_back(g);
  }
  return all.empty() ? nullptr : all[prng.below(all.size())];
}

void Sim::promise(const std::shared_ptr<SimGrant>& g) {
  auto& n = nodes_[static_cast<size_t>(g->producer)];
  note(cat("node ", n.number, " promises ", g->request));
  auto promised = n.node->promise(g->grant.token, {g->request, {}, g->prompt->n_tokens, g->prompt->digest});
  BATON_CHECK(promised.has_value());
  std::erase(planned_, g);
  g->push = SimGrant::Push::kComputing;
  g->promised = *promised;
  g->promised_ms = g->offered_ms = g->claimed_ms = now_ms();
  g->dead = g->refused_by == n.node->incarnation();
  counts.dead += g->dead;
  n.grants.emplace(g->request, g);
  ++counts.promises;
}

// Whoever waits is told; a promise that comes all the same, as after a retry, ends at once.
void Sim::refuse(SimGrant& g) {
  auto& n = nodes_[static_cast<size_t>(g.producer)];
  note(cat("node ", n.number, " refuses ", g.request));
  g.refused_by = n.node->incarnation();
  n.node->refuse(g.grant.token, {Code::kAborted, "the prefill request was refused"});
  if (prng.chance(0.7)) std::erase_if(planned_, [&](const auto& p) { return p.get() == &g; });
}

bool Sim::compute(SimGrant& g, int32_t tokens) {
  auto& n = nodes_[static_cast<size_t>(g.producer)];
  auto& p = *g.prompt;
  auto want = blocks_of(p.n_tokens);
  bool first = p.blocks.empty();
  if (first && n.offered_free.size() < want) return false;
  if (first) p.blocks = take_blocks(n, want);
  auto ready = std::min(g.ready + tokens, p.n_tokens);
  auto whole = [&](int32_t t) { return t == p.n_tokens ? want : static_cast<size_t>(t / layout_.block_tokens); };
  write_prompt(n, p, whole(g.ready), whole(ready));
  g.ready = ready;
  note(cat("node ", n.number, " has ", ready, " of ", p.n_tokens, " tokens of ", g.request));
  n.node->progress(g.request, first ? p.blocks : std::vector<int32_t>{}, ready);
  return true;
}

void Sim::complete(SimGrant& g) {
  auto& n = nodes_[static_cast<size_t>(g.producer)];
  if (g.ready < g.prompt->n_tokens && !compute(g, g.prompt->n_tokens)) return;
  note(cat("node ", n.number, " completes ", g.request));
  g.push = SimGrant::Push::kComplete;
  g.completed_ms = g.claimed_ms = now_ms();
  n.node->complete(g.request, {.first_token = g.first_token});
  n.prompts.push_back(g.prompt);
}

// Every prompt is computed to its end or given up.
void Sim::finish_promises(SimNode& n) {
  planned_.clear();
  std::vector<std::shared_ptr<SimGrant>> all;
  for (auto& [id, g] : n.grants) {
    if (g->push == SimGrant::Push::kComputing && !g->released) all.push_back(g);
  }
  for (auto& g : all) {
    if (prng.chance(0.5)) complete(*g);
    if (g->push == SimGrant::Push::kComputing) release(*g);
  }
}

}  // namespace baton::transfer::testing
