#pragma once
// TokenSource: a text prompt's token ids, for the precise index: from a render service or engine (/render, and /tokenize where
// that is missing), from the pool's own workers, or from a tokenizer in this process, on threads of its own. Answers are kept,
// whole prompts by the hash of what was asked, so a prompt that comes again costs a hash. Guarantees: done is called exactly once
// per ask(), on any thread, within the timeout of TokenParams: with the tokens, or with why there are none (kDeadlineExceeded,
// kResourceExhausted too many wait, kUnimplemented media without a render service, kNotFound no tokenizer for the model, else
// what the service said); the request is then decided by the approximate index. ask() never waits. Bounded by limits.h. Threads:
// any; stop() ends every wait with kCancelled. Owner: Core's KvFeed. Source: facts sheet "epp" 4.7 token-producer.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/metrics.h"
#include "base/result.h"
#include "picker/body_reader.h"
#include "picker/prompt_tokens.h"
#include "route/plan.h"

namespace baton::picker {

struct TokenAsk {
  Shape shape = Shape::kCompletions;  // kChat or kCompletions
  std::string model;                  // what the engine is asked for
  std::string body;                   // the whole request
  bool media = false;
};

class TokenSource {
 public:
  using Found = std::shared_ptr<const PromptTokens>;
  using Done = std::move_only_function<void(Result<Found>)>;
  struct Address {
    std::string host;
    int port = 0;
  };
  // worker: a healthy worker's address, for Kind::kWorkers. tokens_max: more of a prompt is not looked at.
  TokenSource(route::TokenParams params, size_t tokens_max, std::function<std::optional<Address>()> worker, Metrics& metrics);
  ~TokenSource();
  void ask(TokenAsk ask, Done done);
  void stop();
  static bool can(Shape shape) { return shape == Shape::kChat || shape == Shape::kCompletions; }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::picker
