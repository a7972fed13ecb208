#include "sim/workload.h"

#include <algorithm>
#include <cmath>

#include "base/prng.h"

namespace baton::sim {
namespace {

constexpr int32_t kVocab = 128'000;

std::vector<int32_t> text(uint64_t seed, int tokens) {
  Prng prng(seed);
  std::vector<int32_t> out(static_cast<size_t>(std::max(1, tokens)));
  for (int32_t& token : out) token = static_cast<int32_t>(prng.below(kVocab));
  return out;
}

int around(int mean, double spread, Prng& prng) {
  return std::max(1, static_cast<int>(std::lround(mean * (1 + spread * (2 * prng.uniform() - 1)))));
}

}  // namespace

Result<Shape> shape_from(std::string_view name) {
  if (name == "random") return Shape::kRandom;
  if (name == "shared-prefix") return Shape::kSharedPrefix;
  if (name == "multi-turn") return Shape::kMultiTurn;
  return fail(Code::kInvalidArgument, "no workload \"", name, "\": random, shared-prefix or multi-turn");
}

std::vector<Session> make_workload(const WorkloadParams& p) {
  const int turns = p.shape == Shape::kMultiTurn ? std::max(1, p.turns) : 1;
  const double sessions_per_us = p.rate / turns * 1e-6;
  Prng prng(p.seed);
  std::vector<Session> out(static_cast<size_t>((p.requests + turns - 1) / turns));
  double at = 0;
  for (Session& session : out) {
    at += -std::log(1 - prng.uniform()) / sessions_per_us;
    session.arrival_us = at;
    session.think_us = p.think_s * 1e6;
    for (int t = 0; t < turns; ++t) {
      Turn turn{.fresh = {}, .output_tokens = around(p.output_tokens, p.spread, prng)};
      if (t == 0 && p.shape == Shape::kSharedPrefix)
        turn.fresh = text(Prng::at(p.seed ^ 0x9e37, prng.below(static_cast<uint64_t>(std::max(1, p.groups)))), p.shared_tokens);
      if (t == 0 && p.shape == Shape::kRandom) turn.fresh = text(prng.next(), p.shared_tokens);
      const std::vector<int32_t> question = text(prng.next(), around(p.question_tokens, p.spread, prng));
      turn.fresh.insert(turn.fresh.end(), question.begin(), question.end());
      session.turns.push_back(std::move(turn));
    }
  }
  return out;
}

std::vector<Session> one_after_the_other(std::vector<Session> first, std::vector<Session> next) {
  const double end_us = first.empty() ? 0 : first.back().arrival_us;
  for (Session& session : next) {
    session.arrival_us += end_us;
    first.push_back(std::move(session));
  }
  return first;
}

int32_t answer_token(uint64_t session, int position) {
  return static_cast<int32_t>(Prng::at(session, static_cast<uint64_t>(position)) % kVocab);
}

}  // namespace baton::sim
