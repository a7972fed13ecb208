#include "engine/hand_over.h"

#include <algorithm>

#include "base/log.h"
#include "kv/layout.h"
#include "wire/kv_trust.h"

namespace baton::engine {

bool trusts_params(const EngineConfig& config, const net::Headers& headers) {
  if (config.kv_params_trust != "token") return config.kv_params_trust == "any";
  return wire::same_token(config.kv_params_token, headers.get(wire::kKvParamsToken).value_or(""));
}

HandOver::HandOver(const Serving& serving, const Json* params, bool trusted, std::string_view request_id)
    : serving_(serving), request_id_(request_id) {
  if (!params || params->is_null()) return;
  if (!trusted) {
    give_up("untrusted");
    return;
  }
  auto parsed = wire::parse_kv_params(*params);
  if (!parsed) {
    log_warn("kv_transfer_params unusable", "request={} error=\"{}\"", request_id_, parsed.error().message);
    give_up("malformed");
    return;
  }
  if (parsed->do_remote_decode) {
    prefill_leg_ = serving.kv_transfer;
    if (prefill_leg_) push_token_ = parsed->push_token;
    if (!prefill_leg_)
      log_warn("asked to prefill for a peer, but KV transfer is off: give --kv-transfer-config", "request={}", request_id_);
    return;
  }
  if (serving.kv_transfer && !parsed->push_token.empty()) {
    push_ = true;
    grant_ = transfer::Grant{.token = parsed->push_token,
                             .engine_id = parsed->remote_engine_id,
                             .host = parsed->remote_host,
                             .port = parsed->remote_port};
    return;
  }
  if (!parsed->do_remote_prefill && !parsed->x_kv) return;
  if (!serving.kv_transfer || !parsed->x_kv) {
    give_up(serving.kv_transfer ? "no_grant" : "disabled");
    return;
  }
  offer_ = std::move(parsed->x_kv);
  grant_ = transfer::Grant{.token = offer_->grant,
                           .incarnation = offer_->incarnation,
                           .engine_id = parsed->remote_engine_id,
                           .host = parsed->remote_host,
                           .port = parsed->remote_port,
                           .lease_ms = offer_->lease_ms};
}

HandOver::~HandOver() {
  decline();
  if (!push_token_.empty()) serving_.node->refuse(push_token_, {Code::kAborted, "the prefill request was refused"});
}

std::optional<transfer::Grant> HandOver::promise(const Submission& s) {
  // One token of one sequence: such a sequence has all its blocks from the first step on, so nothing moves under its reader.
  if (push_token_.empty() || s.max_tokens != 1 || s.n != 1) return std::nullopt;
  auto grant = serving_.node->promise(push_token_, {.request = s.first_id,
                                                    .blocks = {},
                                                    .n_tokens = static_cast<int32_t>(s.prompt.size()),
                                                    .prompt_digest = prompt_digest(s, s.prompt.size())});
  push_token_.clear();
  return grant ? std::optional(*std::move(grant)) : std::nullopt;
}

void HandOver::decline() {
  if (!grant_) return;
  serving_.loop->post([grant = std::move(*grant_)](Core& core) { core.decline(grant); });
  grant_.reset();
}

void HandOver::give_up(std::string_view reason) {
  serving_.metrics->count_fallback(reason);
  log_warn("kv not taken from the peer, computing the prompt here", "request={} reason={}", request_id_, reason);
  decline();
}

std::optional<RemotePrompt> HandOver::take(const Submission& s, bool one_plain_answer, int32_t min_tokens) {
  if (!grant_) return std::nullopt;
  const auto refuse = [&](std::string_view reason) {
    give_up(reason);
    return std::nullopt;
  };
  if (s.prompt_logprobs) return refuse("prompt_logprobs");
  if (push_) {
    RemotePrompt remote{.grant = std::move(*grant_),
                        .digest = prompt_digest(s, s.prompt.size()),
                        .n_tokens = static_cast<int32_t>(s.prompt.size()),
                        .push = true,
                        .takes_first_token = one_plain_answer};
    grant_.reset();
    return remote;
  }
  if (kv::model_part(offer_->layout) != kv::model_part(serving_.layout_id)) return refuse("layout");
  if (offer_->first_token != 0 || offer_->n_tokens > static_cast<int32_t>(s.prompt.size())) return refuse("tokens");
  const Digest digest = prompt_digest(s, static_cast<size_t>(offer_->n_tokens));
  if (hex(digest) != offer_->prompt_digest) return refuse("digest");
  RemotePrompt remote{.grant = std::move(*grant_),
                      .digest = digest,
                      .n_tokens = offer_->n_tokens,
                      .queue_us = offer_->queue_us,
                      .prefill_us = offer_->prefill_us};
  grant_.reset();
  if (one_plain_answer && offer_->first_token_id && *offer_->first_token_id < serving_.model->vocab) {
    // The prefill leg samples without min_tokens; a stop token it found is only ours if we may stop there.
    const auto& masked = s.sampling.masked_until_min;
    const bool stops = std::find(masked.begin(), masked.end(), *offer_->first_token_id) != masked.end();
    if (!stops || min_tokens == 0) remote.first_token = offer_->first_token_id;
  }
  return remote;
}

}  // namespace baton::engine
