#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/prng.h"

namespace baton::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// exp(x) for x <= 0 with a relative error below 2e-7; 0 below -87. Branch free, so the compiler runs it in vectors: a vocabulary
// of 50,000 costs some 20 us where std::exp costs 200, and sampling sits between two steps of the whole batch.
inline float exp_below_zero(float x) {
  const float t = (x > -87.0f ? x : -87.0f) * 1.44269504f;  // not a number counts as -87 too
  const float n = std::nearbyint(t);
  const float f = (t - n) * 0.693147181f;  // |f| <= ln 2 / 2: a degree 6 series is enough
  const float p = 1 + f * (1 + f * (0.5f + f * (1.0f / 6 + f * (1.0f / 24 + f * (1.0f / 120 + f * (1.0f / 720))))));
  const float scale = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x > -87.0f ? p * scale : 0.0f;
}

// Fixed lanes: the compiler may vectorise and the order of the sum never changes.
constexpr size_t kLanes = 16;

double sum_exp(std::span<const float> x, float top) {
  double lanes[kLanes] = {};
  const size_t whole = x.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += exp_below_zero(x[i + j] - top);
  }
  double sum = 0;
  for (double lane : lanes) sum += lane;
  for (size_t i = whole; i < x.size(); ++i) sum += exp_below_zero(x[i] - top);
  return sum;
}

using Candidate = SamplerScratch::Candidate;
bool more_likely(const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; }

// Keeps the smallest set of the most likely candidates whose weight reaches share * total. Sorting a whole vocabulary would cost
// milliseconds, so sort only what lies above a cut-off and lower that until the set fits.
void keep_nucleus(std::vector<Candidate>& kept, double share) {
  double total = 0;
  for (const Candidate& c : kept) total += c.weight;
  float top = 0;
  for (const Candidate& c : kept) top = std::max(top, c.weight);
  for (const float cut : {1e-2f, 1e-4f, 1e-6f, 0.0f}) {
    const auto end = std::partition(kept.begin(), kept.end(), [&](const Candidate& c) { return c.weight >= cut * top; });
    double mass = 0;
    for (auto it = kept.begin(); it != end; ++it) mass += it->weight;
    if (mass < share * total && cut > 0) continue;
    std::sort(kept.begin(), end, more_likely);
    double sum = 0;
    auto it = kept.begin();
    while (it != end && sum < share * total) sum += (it++)->weight;
    kept.erase(std::max(it, kept.begin() + 1), kept.end());
    return;
  }
}

// Rows are looked through in parts, and parts passed over whose greatest value changes nothing.
constexpr size_t kPart = 64;

std::span<const float> part_at(std::span<const float> logits, size_t at) {
  return logits.subspan(at, std::min(kPart, logits.size() - at));
}

float greatest(std::span<const float> part) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, kMinusInfinity);
  const size_t whole = part.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = part[i + j] > lanes[j] ? part[i + j] : lanes[j];
  }
  float out = kMinusInfinity;
  for (const float lane : lanes) out = lane > out ? lane : out;
  for (size_t i = whole; i < part.size(); ++i) out = part[i] > out ? part[i] : out;
  return out;
}

bool has(const grammar::Mask& mask, int32_t id) {
  const auto i = static_cast<size_t>(id);
  return i / 64 < mask.size() && (mask[i / 64] >> (i % 64) & 1) != 0;
}

// model::peak_of() of what the mask takes.
model::LogitPeak peak_within(std::span<const float> logits, const grammar::Mask& mask) {
  static_assert(kPart == 64, "a word of the mask");
  model::LogitPeak out;
  for (size_t at = 0; at < logits.size() && at / kPart < mask.size(); at += kPart) {
    uint64_t left = mask[at / kPart];
    if (left == 0) continue;
    const std::span<const float> part = part_at(logits, at);
    if (!(greatest(part) > out.value)) continue;
    for (; left != 0; left &= left - 1) {
      const auto i = static_cast<size_t>(std::countr_zero(left));
      if (i < part.size() && part[i] > out.value) out = {.value = part[i], .at = static_cast<int32_t>(at + i)};
    }
  }
  return out;
}

// The `wanted` most likely ids, the most likely first, the lower of equals first.
std::vector<int32_t> most_likely(std::span<const float> logits, size_t wanted) {
  constexpr size_t kFew = 128;  // more are sorted
  const auto before = [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  std::vector<int32_t> ids;
  if (wanted > kFew) {
    ids.resize(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(wanted), ids.end(), before);
    ids.resize(wanted);
    return ids;
  }
  if (wanted == 0) return ids;
  for (size_t at = 0; at < logits.size(); at += kPart) {
    const std::span<const float> part = part_at(logits, at);
    if (ids.size() == wanted && !(greatest(part) > logits[ids.back()])) continue;
    for (size_t i = 0; i < part.size(); ++i) {
      const auto id = static_cast<int32_t>(at + i);
      if (ids.size() == wanted && !before(id, ids.back())) continue;
      if (ids.size() == wanted) ids.pop_back();
      ids.insert(std::upper_bound(ids.begin(), ids.end(), id, before), id);
    }
  }
  return ids;
}

void keep_only(const grammar::Mask& mask, std::span<float> logits) {
  size_t i = 0;
  for (const uint64_t word : mask) {
    const size_t end = std::min(i + 64, logits.size());
    if (word == 0) {
      std::fill(logits.begin() + static_cast<std::ptrdiff_t>(i), logits.begin() + static_cast<std::ptrdiff_t>(end),
                kMinusInfinity);
    } else if (word != ~uint64_t{0}) {
      for (size_t k = i; k < end; ++k) logits[k] = (word >> (k - i) & 1) != 0 ? logits[k] : kMinusInfinity;
    }
    i = end;
  }
  for (; i < logits.size(); ++i) logits[i] = kMinusInfinity;
}

struct LogSoftmax {
  explicit LogSoftmax(std::span<const float> of)
      : logits(of), best(model::peak_of(of).value), log_sum(std::log(sum_exp(of, best))) {}
  TokenLogprob entry(int32_t id, int32_t rank) const {
    return {id, static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - best - log_sum), rank};
  }
  std::span<const float> logits;
  float best;
  double log_sum;
};

int32_t rank_of(std::span<const float> logits, int32_t token) {
  int32_t rank = 1;
  for (size_t i = 0; i < logits.size(); ++i) {
    rank += logits[i] > logits[token] || (logits[i] == logits[token] && static_cast<int32_t>(i) < token);
  }
  return rank;
}

}  // namespace

LogprobTable logprobs_of(std::span<const float> logits, int32_t token, std::span<const int32_t> ids) {
  const LogSoftmax softmax(logits);
  LogprobTable table{softmax.entry(token, rank_of(logits, token))};
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto there = std::ranges::find(table, ids[i], &TokenLogprob::id);
    const TokenLogprob entry = softmax.entry(ids[i], static_cast<int32_t>(i) + 1);
    if (there == table.end())
      table.push_back(entry);
    else
      *there = entry;
  }
  return table;
}

LogprobTable logprob_table(std::span<const float> logits, int32_t token, int32_t top) {
  const LogSoftmax softmax(logits);
  LogprobTable table{softmax.entry(token, rank_of(logits, token))};
  const size_t wanted = top < 0 ? logits.size() : std::min(static_cast<size_t>(top), logits.size());
  int32_t rank = 0;
  for (const int32_t id : most_likely(logits, wanted)) {
    ++rank;
    if (id != token) table.push_back(softmax.entry(id, rank));
  }
  return table;
}

Sampler::Sampler(SamplingParams params, std::span<const int32_t> prompt) : params_(std::move(params)) {
  if (params_.thinking) thinking_.emplace(params_.thinking, params_.thinking_budget, prompt);
  if (params_.repetition_penalty == 1) return;
  prompt_ids_.assign(prompt.begin(), prompt.end());
  std::sort(prompt_ids_.begin(), prompt_ids_.end());
  prompt_ids_.erase(std::unique(prompt_ids_.begin(), prompt_ids_.end()), prompt_ids_.end());
}

void Sampler::constrain(grammar::Matcher matcher, std::vector<int32_t> end_ids, bool forced_end) {
  constraint_.emplace(Constrained{.matcher = std::move(matcher), .end_ids = std::move(end_ids), .forced_end = forced_end});
}

bool Sampler::may_begin_with(int32_t token) const {
  if (thinking_ && thinking_->forced().value_or(token) != token) return false;
  if (constraint_) {
    const bool end = std::ranges::find(constraint_->end_ids, token) != constraint_->end_ids.end();
    if (end ? !constraint_->matcher.may_end() : !constraint_->matcher.accepts(token)) return false;
  }
  return params_.min_tokens == 0 || std::ranges::find(params_.masked_until_min, token) == params_.masked_until_min.end();
}

void Sampler::accept(int32_t token) {
  output_.push_back(token);
  ++counts_[token];
  if (thinking_) thinking_->accept(token);
  if (!constraint_) return;
  Constrained& c = *constraint_;
  const bool end = std::ranges::find(c.end_ids, token) != c.end_ids.end();
  if (end && c.matcher.may_end()) {
    c.ended = !c.forced_end || c.matcher.must_end();  // with ignore_eos an end among the thoughts is a token like any other
  } else {
    c.left |= !c.matcher.accept(token);
    c.ended = c.end_ids.empty() && c.matcher.must_end();  // a model that knows no end
  }
}

bool Sampler::edits_logits() const {
  const SamplingParams& p = params_;
  return !p.allowed.empty() || !p.bad_words.empty() || !p.logit_bias.empty() ||
         static_cast<int32_t>(output_.size()) < p.min_tokens || p.frequency_penalty != 0 || p.presence_penalty != 0 ||
         p.repetition_penalty != 1;
}

// Bit t: the constraint takes token t. The ends are no part of its text.
void Sampler::find_taken(grammar::Mask& out) {
  Constrained& c = *constraint_;
  const bool may_end = c.forced_end ? c.matcher.must_end() : c.matcher.may_end();
  out = c.matcher.mask();
  for (const int32_t id : c.end_ids) {
    const size_t word = static_cast<size_t>(id) / 64;
    const uint64_t bit = uint64_t{1} << (static_cast<size_t>(id) % 64);
    if (id >= 0 && word < out.size()) out[word] = may_end ? out[word] | bit : out[word] & ~bit;
  }
}

void Sampler::edit(std::span<float> logits) {
  // Where a constrained text is whole and nothing may follow it ends, whatever min_tokens says.
  const bool must_end = constraint_ && constraint_->matcher.must_end();
  const auto in_range = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < logits.size(); };
  if (!params_.allowed.empty()) {
    std::vector<std::pair<int32_t, float>> keep;
    for (int32_t id : params_.allowed) {
      if (in_range(id)) keep.emplace_back(id, logits[id]);
    }
    std::fill(logits.begin(), logits.end(), kMinusInfinity);
    for (auto [id, logit] : keep) logits[id] = logit;
  }
  for (const std::vector<int32_t>& word : params_.bad_words) {
    const size_t prefix = word.size() - 1;
    if (prefix > output_.size() || !in_range(word.back())) continue;
    if (std::equal(word.begin(), word.end() - 1, output_.end() - static_cast<std::ptrdiff_t>(prefix)))
      logits[word.back()] = kMinusInfinity;
  }
  if (static_cast<int32_t>(output_.size()) < params_.min_tokens && !must_end) {
    for (int32_t id : params_.masked_until_min) {
      if (in_range(id)) logits[id] = kMinusInfinity;
    }
  }
  for (auto [id, bias] : params_.logit_bias) {
    if (in_range(id)) logits[id] += bias;
  }
  apply_penalties(logits);
}

void Sampler::apply_penalties(std::span<float> logits) const {
  if (params_.repetition_penalty != 1) {
    const float penalty = static_cast<float>(params_.repetition_penalty);
    const auto repeat = [&](int32_t id) { logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty; };
    for (int32_t id : prompt_ids_) {
      if (static_cast<size_t>(id) < logits.size()) repeat(id);
    }
    for (const auto& [id, count] : counts_) {
      if (!std::binary_search(prompt_ids_.begin(), prompt_ids_.end(), id)) repeat(id);
    }
  }
  if (params_.frequency_penalty == 0 && params_.presence_penalty == 0) return;
  for (const auto& [id, count] : counts_) {
    logits[id] -= static_cast<float>(params_.frequency_penalty * count + params_.presence_penalty);
  }
}

Result<int32_t> Sampler::sample(std::span<const float> logits, SamplerScratch& scratch) {
  return sample(logits, model::peak_of(logits), scratch);
}

Result<int32_t> Sampler::sample(std::span<const float> logits, model::LogitPeak most, SamplerScratch& scratch) {
  if (most.nan) return fail(Code::kDataLoss, "the model gave logits that are not numbers");
  if (constraint_ && constraint_->left) return fail(Code::kInternal, "the answer does not keep to its structured output");
  // No other logit comes near the one that is forced.
  if (const auto forced = thinking_ ? thinking_->forced() : std::nullopt) return *forced;
  const bool greedy = params_.greedy() || params_.top_k == 1, edits = edits_logits();
  if (constraint_) find_taken(scratch.taken);
  if (edits || (constraint_ && !greedy)) {
    scratch.logits.assign(logits.begin(), logits.end());
    if (constraint_) keep_only(scratch.taken, scratch.logits);
    if (edits) edit(scratch.logits);
    logits = scratch.logits;
    most = model::peak_of(logits);
  } else if (constraint_ && !has(scratch.taken, most.at)) {
    most = peak_within(logits, scratch.taken);
  }
  const int32_t best = most.at;
  if (best < 0 && constraint_) {
    return fail(Code::kInternal,
                "the structured output leaves no token to sample: allowed_token_ids, bad_words or the grammar's own "
                "limits forbid what it needs");
  }
  if (best < 0) return fail(Code::kInternal, "no token is left to sample: every logit is masked or not a number");
  if (greedy) return best;
  return draw(logits, most.value, scratch);
}

int32_t Sampler::draw(std::span<const float> logits, float top, SamplerScratch& scratch) const {
  const float inverse = static_cast<float>(1 / params_.temperature);
  std::vector<float>& weights = scratch.weights;
  weights.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = exp_below_zero((logits[i] - top) * inverse);

  // The most likely token has weight 1, so min_p is a plain threshold.
  const float floor = std::max(static_cast<float>(params_.min_p), std::numeric_limits<float>::min());
  std::vector<Candidate>& kept = scratch.kept;
  kept.clear();
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] >= floor) kept.push_back({weights[i], static_cast<int32_t>(i)});
  }
  if (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < kept.size()) {
    const auto nth = kept.begin() + params_.top_k;
    std::nth_element(kept.begin(), nth, kept.end(), more_likely);
    kept.erase(nth, kept.end());
  }
  if (params_.top_p < 1) keep_nucleus(kept, params_.top_p);
  if (params_.top_k > 0 || params_.top_p < 1) {
    std::sort(kept.begin(), kept.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  }
  double total = 0;
  for (const Candidate& c : kept) total += c.weight;
  const double uniform = static_cast<double>(Prng::at(params_.seed, output_.size()) >> 11) * 0x1p-53;
  double sum = 0;
  for (const Candidate& c : kept) {
    sum += c.weight;
    if (uniform * total < sum) return c.id;
  }
  return kept.back().id;
}

}  // namespace baton::engine
