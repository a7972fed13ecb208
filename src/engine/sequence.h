#pragma once
// Core's own state of one sequence and of the submission (group) it belongs to. Step thread only; included by core*.cc alone.
#include "engine/core.h"
#include "engine/limits.h"
#include "engine/ngram_index.h"

namespace baton::engine {

// A peer's grant that nobody has fetched yet: tells the producer when it goes out of use.
struct HeldGrant {
  transfer::TransferNode* node = nullptr;
  std::optional<transfer::Grant> grant;
  HeldGrant() = default;
  HeldGrant(const HeldGrant&) = delete;
  ~HeldGrant() { decline(); }
  void decline() {
    if (grant && node) node->decline(*grant);
    grant.reset();
  }
};

// A sequence's speculative decoding, from its first draft on.
struct Drafts {
  Drafts(int32_t shortest, int32_t longest) : index(shortest, longest) {}
  NgramIndex index;  // of prompt and output, as far as somebody looked
  DraftPace pace;
};

// What a step gave one sequence.
struct Core::Sampled {
  sched::RequestId id = 0;
  int32_t n_drafts = 0;
  std::vector<int32_t> tokens{};
  std::vector<LogprobTable> tables{};  // as tokens, if asked for
  std::optional<Error> error{};        // no further token can be sampled
};

struct Core::Group {
  Submission submission;
  HeldGrant grant;
  int32_t live = 0;
  bool siblings_wait = false, aborted = false;
};

struct Core::Sequence {
  Sequence(std::shared_ptr<Group> g, int32_t i, Sampler s)
      : id(g->submission.first_id + static_cast<uint64_t>(i)), index(i), group(std::move(g)), sampler(std::move(s)) {}

  // Logits of every token: while prompt tokens with a known successor are computed and their rows are still missing.
  bool wants_prompt_rows(const sched::ScheduledSeq& part) const {
    const Submission& s = group->submission;
    return s.prompt_logprobs && index == 0 && n_output == 0 && part.first_position + 1 < static_cast<int32_t>(s.prompt.size());
  }

  // Tokens of this part that run ahead of the step, in slices.
  int32_t rows_ahead(const sched::ScheduledSeq& part) const {
    return wants_prompt_rows(part) ? (part.n_tokens - 1) / kScoredRowsMax * kScoredRowsMax : 0;
  }

  const model::LoraAdapter* lora() const {
    const auto& adapter = group->submission.adapter;
    return adapter ? adapter->weights.get() : nullptr;
  }

  // To sample looks at all of a row of logits, and at nothing that other sequences look at. (Constraints share what they know of
  // their grammar, and mostly look at little.)
  bool samples_apart() const {
    const SamplingParams& p = sampler.params();
    return !sampler.constrained() && (!p.greedy() || group->submission.logprobs || sampler.edits_logits());
  }

  // Hidden states of this part's tokens are needed.
  bool wants_hidden(const sched::ScheduledSeq& part) const {
    const Pooling pooling = group->submission.pooling;
    return pooling == Pooling::kMean || (pooling == Pooling::kCls && part.first_position == 0) ||
           (pooling == Pooling::kLast && part.samples);
  }

  sched::RequestId id;
  int32_t index;
  std::shared_ptr<Group> group;
  Sampler sampler;
  int32_t n_output = 0;
  int32_t reserved_blocks = 0;
  int32_t external_tokens = 0;
  int64_t external_bytes = 0;
  std::string transport;
  bool remote_used = false;
  bool promised = false;     // prefill leg of a push whose grant lives
  bool announced = false;    // its blocks were named, and are pinned
  bool token_ahead = false;  // decode leg of a push: the first token went out before the last block came
  int64_t queued_ns = 0, scheduled_ns = 0, fetch_ns = 0, fetched_ns = 0, first_token_ns = 0, last_token_ns = 0;
  std::vector<LogprobTable> prompt_rows;
  std::vector<float> pooled;  // with pooling: its sum, or the one row, so far
  std::unique_ptr<Drafts> drafts;
};

}  // namespace baton::engine
