#pragma once
// Beam search (`use_beam_search`), as vLLM does it: above the engine, each step asking it for the likeliest next tokens of every
// beam, as ordinary one-token requests whose prompts the prefix cache already holds. Scores are the sums of the tokens' raw
// logprobs over length^length_penalty, the prompt counted. Thread: the request's. Source: vLLM's entrypoints (beam_search).
#include "engine/request.h"
#include "engine/serving.h"
#include "net/http.h"
#include "wire/openai.h"
#include "wire/openai_response.h"

namespace baton::engine {

struct BeamOptions {
  int32_t width = 1;
  double length_penalty = 1;
};

struct Beam {
  std::vector<int32_t> tokens;       // without the prompt, and without the token that ended it
  std::vector<LogprobTable> tables;  // of each of tokens, that token first
  double logprob = 0;
  std::optional<int32_t> end;  // the end-of-sequence token; nullopt: max_tokens
  bool stop_id = false;        // `end` is of stop_ids, not of eos_ids
};

// Its text, logprobs and ids as the request wants them.
wire::Choice beam_choice(const text::Tokenizer& tokenizer, const wire::GenerateFields& fields, const Beam& beam);

// base: the prompt with its max_tokens, eos_ids, stop_ids, priority and cache_salt; its mailbox and arrival are used. The best
// `width`, best first. first: called with the first token's news. kCancelled once the mailbox is closed.
class BeamSearch {
 public:
  BeamSearch(const Serving& serving, Submission base, BeamOptions options);
  net::Task<Result<std::vector<Beam>>> run();
  void abort();  // what is running; the mailbox is the caller's to close
  const std::optional<Waterfall>& waterfall() const { return waterfall_; }
  int32_t cached_tokens() const { return cached_; }

 private:
  net::Task<Result<std::vector<LogprobTable>>> step();
  void extend(const std::vector<LogprobTable>& tables);
  double score(double logprob, size_t tokens) const;
  void keep_best(std::vector<Beam>& beams) const;

  const Serving& s_;
  const Submission base_;
  const BeamOptions options_;
  std::vector<Beam> beams_, ended_;
  uint64_t first_id_ = 0;
  int32_t running_ = 0, cached_ = 0;
  std::optional<Waterfall> waterfall_;
};

}  // namespace baton::engine
