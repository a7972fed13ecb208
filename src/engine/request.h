#pragma once
// What crosses between the I/O threads and the step thread: a Submission goes in, TokenEvents come back through its Mailbox.
// One Submission is one prompt with n output sequences; sequence i has the scheduler id first_id + i.
// Values are moved; the prompt and parameters are shared const once submitted.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/adapters.h"
#include "engine/repetition.h"
#include "engine/sampler.h"
#include "net/mailbox.h"
#include "transfer/transfer.h"
#include "wire/kv_params.h"

namespace baton::engine {

enum class Finish : uint8_t { kNone, kStop, kLength, kAbort, kError, kCacheThreshold, kRepetition };

// Where the time to the first token went, in microseconds; the prefill leg's share is included on the decode leg.
struct Waterfall {
  int64_t queue_us = 0, prefill_us = 0, transfer_us = 0, first_step_us = 0;
  int64_t kv_bytes = 0;  // handed over by a peer, 0 = none
  int32_t kv_tokens = 0;
  std::string kv_transport;  // "shm", "tcp"; "local": a peer had it, and so had we
};

// Which hidden states of the prompt are its embedding: none, the request is a generating one; the last token's, the first one's,
// or the mean of all.
enum class Pooling : uint8_t { kNone, kLast, kCls, kMean };

struct FirstToken {  // comes with a sequence's first event
  Waterfall waterfall;
  int32_t cached_tokens = 0;                  // of the prompt, from the prefix cache or a peer
  std::vector<LogprobTable> prompt_logprobs;  // row i is of prompt token i + 1
};

struct TokenEvent {
  int32_t choice = 0;
  std::optional<int32_t> token{};  // absent: the sequence ended without a further token
  LogprobTable logprobs{};
  std::unique_ptr<FirstToken> first{};
  Finish finish = Finish::kNone;
  std::optional<int32_t> stop_token{};          // the stop id that ended it, if it was not EOS
  std::optional<Error> error{};                 // with kError
  std::vector<float> embedding{};               // of a submission with pooling
  std::unique_ptr<wire::KvParams> hand_over{};  // prefill leg: what the decode leg needs
};
using TokenMailbox = net::Mailbox<TokenEvent>;

// Decode leg: the KV of prompt tokens [0, n_tokens) lies with a peer.
struct RemotePrompt {
  transfer::Grant grant;
  Digest digest{};
  int32_t n_tokens = 0;
  std::optional<int32_t> first_token{};  // sampled by the prefill worker, usable as it is
  int64_t queue_us = 0, prefill_us = 0;
  // The prefill worker computes it at this moment: first_token and the times come with the transfer's kCompletion.
  bool push = false;
  bool takes_first_token = false;  // one plain answer, so that token may be used
  std::optional<int32_t> cached_tokens{};  // found in the prefill worker's prefix cache
};

struct Submission {
  uint64_t first_id = 0;
  int32_t n = 1;
  int32_t first_choice = 0;  // choice index of sequence 0
  std::vector<int32_t> prompt;
  Pooling pooling = Pooling::kNone;
  SamplingParams sampling;  // sequence i draws with seed + i
  int32_t max_tokens = 16;
  std::vector<int32_t> eos_ids;   // end with stop_reason null; empty with ignore_eos
  std::vector<int32_t> stop_ids;  // end with stop_reason = id
  std::shared_ptr<const grammar::Compiled> constraint;  // what the answer must be; nullptr: anything
  grammar::Begin constraint_begin;
  std::vector<int32_t> end_ids;  // tokens that may end a constrained answer, and do
  bool ignore_eos = false;
  std::optional<int32_t> logprobs, prompt_logprobs;
  std::vector<int32_t> logprob_ids;  // not empty: logprobs are of these
  RepetitionLimits repetition;       // ends it
  int32_t priority = 0;
  std::string cache_salt;
  std::shared_ptr<const Adapter> adapter;  // nullptr: the base model
  std::optional<double> cache_hit_threshold;
  bool prefill_leg = false;       // keep the KV for a decode worker
  bool send_first_token = false;  // the sampled token may travel
  std::string remote_request_id;  // our response id, for the hand-over object
  std::optional<transfer::Grant> promised;  // prefill leg of a push: the decode worker may be reading already
  std::optional<RemotePrompt> remote;
  int64_t arrived_ns = 0;
  std::shared_ptr<TokenMailbox> out;
};

}  // namespace baton::engine
