#pragma once
// Sampler: logits to the next token of one sequence, in vLLM V1's order (facts sheet "engine" 1.8): the constraint, allowed ids,
// bad words, min_tokens and logit_bias, penalties, the thinking budget, then argmax or temperature, min_p, top_k, top_p and a
// draw. Guarantees: the result depends on this sequence's logits, parameters, tokens and seed alone, never on batch mates; draw i
// of a seed needs no draw before it (Prng::at), so a decode worker goes on where prefill stopped. Ties go to the lowest id.
// Logprobs are those of the raw logits, before any of the above. One per sequence; step thread.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/repetition.h"
#include "engine/thinking_budget.h"
#include "grammar/walker.h"
#include "model/logit_peak.h"

namespace baton::engine {

constexpr double kGreedyBelow = 1e-5;  // temperatures under this mean argmax

struct SamplingParams {
  double temperature = 1, top_p = 1, min_p = 0;
  int32_t top_k = 0;  // 0 = off
  double frequency_penalty = 0, presence_penalty = 0, repetition_penalty = 1;
  uint64_t seed = 0;
  int32_t min_tokens = 0;
  std::vector<int32_t> masked_until_min{};  // EOS and stop ids, masked before min_tokens
  std::vector<std::pair<int32_t, float>> logit_bias{};
  std::vector<int32_t> allowed{};                   // empty = every token
  std::vector<std::vector<int32_t>> bad_words{};    // token sequences that must not appear
  std::shared_ptr<const ThinkingMarks> thinking{};  // nullptr: thoughts may be as long as they like
  int64_t thinking_budget = 0;
  bool greedy() const { return temperature < kGreedyBelow; }
};

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
  int32_t rank = 0;  // 1 = most likely
};
using LogprobTable = std::vector<TokenLogprob>;

// The token first, then ranks 1..top without repeating it; top < 0: the whole vocabulary.
LogprobTable logprob_table(std::span<const float> logits, int32_t token, int32_t top);
// best: model::peak_of(logits).value, if somebody has it already.
LogprobTable logprob_table(std::span<const float> logits, float best, int32_t token, int32_t top);
// The token first, then the others asked for, each once; their rank is the place they were asked for in, as vLLM has it.
LogprobTable logprobs_of(std::span<const float> logits, float best, int32_t token, std::span<const int32_t> ids);

// Buffers one step thread shares among its samplers.
struct SamplerScratch {
  struct Candidate {
    float weight;
    int32_t id;
  };
  std::vector<float> logits, weights;
  std::vector<Candidate> near;
  grammar::Mask taken;
};

class Sampler {
 public:
  Sampler(SamplingParams params, std::span<const int32_t> prompt);
  // From here on only what the constraint takes. end_ids may come where its text is whole; forced_end: only where nothing else
  // may.
  void constrain(grammar::Matcher matcher, std::vector<int32_t> end_ids, bool forced_end);
  // kDataLoss: a logit is not a number; kInternal: no token is left.
  Result<int32_t> sample(std::span<const float> logits, SamplerScratch& scratch);
  // most: model::peak_of(logits), if somebody has it already.
  Result<int32_t> sample(std::span<const float> logits, model::LogitPeak most, SamplerScratch& scratch);
  void accept(int32_t token);  // appends to the output
  // Another worker sampled this first token without regard to min_tokens; a stop token is only ours if we may stop there.
  bool may_begin_with(int32_t token) const;
  // The n-th token accepted, which is the last, ended a constrained text: nothing follows.
  bool ended_at(int32_t n) const { return constraint_ && constraint_->ended && std::cmp_equal(output_.size(), n); }
  // The first n tokens accepted end going round in circles.
  bool repeats_at(int32_t n, const RepetitionLimits& limits) const {
    return ends_in_repetition(std::span(output_).first(static_cast<size_t>(n)), limits);
  }
  const SamplingParams& params() const { return params_; }
  bool constrained() const { return constraint_.has_value(); }
  bool edits_logits() const;  // beside what the constraint does not take

 private:
  struct Constrained {
    grammar::Matcher matcher;
    std::vector<int32_t> end_ids;
    bool forced_end = false;
    bool ended = false, left = false;  // left: a token was accepted that the constraint does not take
  };
  void edit(std::span<float> logits);
  void find_taken(grammar::Mask& out);
  void apply_penalties(std::span<float> logits) const;
  int32_t draw(std::span<const float> logits, float top, SamplerScratch& scratch) const;  // top: the greatest of them

  SamplingParams params_;
  std::vector<int32_t> prompt_ids_;  // sorted, unique; kept only for repetition_penalty
  std::vector<int32_t> output_;
  std::unordered_map<int32_t, int32_t> counts_;  // of the output
  std::optional<Constrained> constraint_;
  std::optional<ThinkingBudget> thinking_;
};

}  // namespace baton::engine
