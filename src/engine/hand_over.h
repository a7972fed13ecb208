#pragma once
// Decode and prefill legs seen from HTTP: what a request's kv_transfer_params ask for, and the guard that a grant is never
// forgotten. Lives on the request's I/O thread; declines are posted to the step thread.
#include <optional>

#include "engine/request.h"
#include "engine/serving.h"
#include "net/http.h"

namespace baton::engine {

// As --kv-params-trust says.
bool trusts_params(const EngineConfig& config, const net::Headers& headers);

class HandOver {
 public:
  // params: the request's kv_transfer_params, or nullptr. trusted: they come from one of our own hops. Never fails the request:
  // what cannot be used is counted and logged.
  HandOver(const Serving& serving, const Json* params, bool trusted, std::string_view request_id);
  HandOver(const HandOver&) = delete;
  ~HandOver();

  bool prefill_leg() const { return prefill_leg_; }
  // Prefill leg of a push: promises the KV of this submission, which has its id. nullopt: an ordinary prefill leg. From here on
  // the submission must reach the step thread.
  std::optional<transfer::Grant> promise(const Submission& submission);
  // For the one submission of this request: checks layout and digest against our own tokens. nullopt: compute the prompt here.
  // one_plain_answer: no logprobs, echo or n > 1, so the peer's first token may be used.
  std::optional<RemotePrompt> take(const Submission& submission, bool one_plain_answer, int32_t min_tokens);
  void give_up_if_offered(std::string_view reason) {  // the request has a shape that no hand-over fits
    if (grant_) give_up(reason);
  }

 private:
  void give_up(std::string_view reason);
  void decline();
  const Serving& serving_;
  std::string request_id_;
  bool prefill_leg_ = false;
  std::optional<wire::XKv> offer_;
  std::optional<transfer::Grant> grant_;
  std::string push_token_;  // prefill leg: not promised yet
  bool push_ = false;       // decode leg: grant_ is of a push
};

}  // namespace baton::engine
