#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/prng.h"
#include "tensor/ops.h"

namespace baton::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Fixed lanes: the compiler may vectorise.
constexpr size_t kLanes = 16;

// What reads whole rows: sampling sits between two steps of the whole batch.
const tensor::Ops& kernels() {
  static const tensor::Ops& ops = **tensor::find_ops("auto");  // there is always one
  return ops;
}

using Candidate = SamplerScratch::Candidate;
bool more_likely(const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; }

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

// near: the tokens that weigh at least `low` and less than `high`; few do.
void find_within(std::span<const float> weights, float low, float high, std::vector<Candidate>& near) {
  near.clear();
  for (size_t at = 0; at < weights.size(); at += kLanes) {
    const std::span<const float> part = weights.subspan(at, std::min(kLanes, weights.size() - at));
    int32_t any = part.size() < kLanes;
    for (size_t i = 0; part.size() == kLanes && i < kLanes; ++i) any |= part[i] >= low && part[i] < high;
    for (size_t i = 0; any && i < part.size(); ++i) {
      if (part[i] >= low && part[i] < high) near.push_back({part[i], static_cast<int32_t>(at + i)});
    }
  }
}

// What a token weighs that belongs to the smallest set of the most likely ones whose weight reaches `share` of all that weigh at
// least `least`. Of equals the lower ids belong to it; the others' weight becomes 0. Only those near the last one's weight are
// put in order: the whole vocabulary would cost milliseconds.
float keep_nucleus(std::span<float> weights, float least, double share, std::vector<Candidate>& near) {
  constexpr int64_t kNear = 512;
  const auto mass = [&](float from) { return kernels().mass(weights.data(), std::ssize(weights), from); };
  const double wanted = share * mass(least).sum;
  // Tokens from `low` on suffice, those from `high` on do not.
  float low = 1, high = std::numeric_limits<float>::infinity();
  tensor::Mass enough = mass(low), above;
  while (enough.sum < wanted && low > least) {
    high = low, above = enough;
    low = std::max(least, low / 4);
    enough = mass(low);
  }
  while (enough.count - above.count > kNear) {
    const float middle = std::sqrt(low * high);
    if (!(low < middle && middle < high)) break;
    const tensor::Mass there = mass(middle);
    if (there.sum < wanted)
      high = middle, above = there;
    else
      low = middle, enough = there;
  }
  find_within(weights, low, high, near);
  double missing = wanted - above.sum;
  auto begin = near.begin(), end = near.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, more_likely);
    double half = 0;
    for (auto it = begin; it != middle; ++it) half += it->weight;
    if (half >= missing)
      end = middle;
    else
      missing -= half, begin = middle;
  }
  const Candidate last = *begin;
  for (const Candidate& c : near) {
    if (c.weight == last.weight && c.id > last.id) weights[static_cast<size_t>(c.id)] = 0;
  }
  return last.weight;
}

// The same for the k most likely.
float keep_best(std::span<float> weights, float least, int32_t k) {
  const int32_t last = most_likely(weights, static_cast<size_t>(k)).back();
  const float weight = weights[static_cast<size_t>(last)];
  if (weight < least) return least;
  for (float& w : weights.subspan(static_cast<size_t>(last) + 1)) w = w == weight ? 0 : w;
  return weight;
}

// One of those that weigh at least `least`, as likely as its weight says; uniform: in [0, 1).
int32_t pick(std::span<const float> weights, float least, double uniform) {
  constexpr size_t kBlock = 1024;
  std::vector<double> sums;
  double total = 0;
  for (size_t at = 0; at < weights.size(); at += kBlock) {
    const auto n = static_cast<int64_t>(std::min(kBlock, weights.size() - at));
    total += sums.emplace_back(kernels().mass(weights.data() + at, n, least).sum);
  }
  const double wanted = uniform * total;
  double before = 0, passed = 0;  // of the block that is looked through, and so far
  size_t block = 0;
  for (size_t b = 0; b < sums.size(); ++b) {
    if (sums[b] == 0) continue;
    block = b, before = passed;
    passed += sums[b];
    if (wanted < passed) break;
  }
  int32_t last = -1;
  for (size_t i = block * kBlock; i < std::min(weights.size(), (block + 1) * kBlock); ++i) {
    if (weights[i] < least) continue;
    last = static_cast<int32_t>(i);
    before += weights[i];
    if (wanted < before) break;
  }
  return last;
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
  LogSoftmax(std::span<const float> of, float greatest)
      : logits(of), best(greatest), log_sum(std::log(kernels().weigh(of.data(), std::ssize(of), best, 1, nullptr))) {}
  TokenLogprob entry(int32_t id, int32_t rank) const {
    return {id, static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - best - log_sum), rank};
  }
  std::span<const float> logits;
  float best;
  double log_sum;
};

int32_t rank_of(std::span<const float> logits, int32_t token) {
  const auto at = static_cast<size_t>(token);
  const float own = logits[at];
  int32_t rank = 1;
  for (size_t i = 0; i < at; ++i) rank += logits[i] >= own;
  for (size_t i = at + 1; i < logits.size(); ++i) rank += logits[i] > own;
  return rank;
}

}  // namespace

LogprobTable logprobs_of(std::span<const float> logits, float best, int32_t token, std::span<const int32_t> ids) {
  const LogSoftmax softmax(logits, best);
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
  return logprob_table(logits, model::peak_of(logits).value, token, top);
}

LogprobTable logprob_table(std::span<const float> logits, float best, int32_t token, int32_t top) {
  const LogSoftmax softmax(logits, best);
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
  std::vector<float>& weights = scratch.weights;
  weights.resize(logits.size());
  constexpr float kLeast = std::numeric_limits<float>::min();
  const float scale = std::max(static_cast<float>(1 / params_.temperature), kLeast);  // 0 times -inf is not a number
  kernels().weigh(logits.data(), std::ssize(logits), top, scale, weights.data());
  // Tokens stay that weigh at least so much. The most likely one weighs 1, so min_p is a plain threshold.
  float least = std::max(static_cast<float>(params_.min_p), kLeast);
  if (params_.top_k > 0 && std::cmp_less(params_.top_k, weights.size())) least = keep_best(weights, least, params_.top_k);
  if (params_.top_p < 1) least = keep_nucleus(weights, least, params_.top_p, scratch.near);
  return pick(weights, least, static_cast<double>(Prng::at(params_.seed, output_.size()) >> 11) * 0x1p-53);
}

}  // namespace baton::engine
