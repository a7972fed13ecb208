#pragma once
// PromptTokens: a prompt in the engine's own token ids, and what stands in it for media. read_tokens_answer() takes them from
// what an engine answers: vLLM's /v1/completions/render (an array of results) and /v1/chat/completions/render (one), both with
// {token_ids, features: {mm_hashes, mm_placeholders}}, and /tokenize with {tokens}. Of several prompts, the first.
// Bounded by body_limits.h: kTokenIdsMax ids are kept, the rest is counted. Errors: kInvalidArgument, no such answer.
// Source: facts sheet "epp" 4.7 token-producer.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "route/kv_event_keys.h"

namespace baton::picker {

struct PromptTokens {
  std::vector<uint32_t> ids;            // the front of the prompt, or all of it
  int64_t total = 0;                    // tokens of the whole prompt; an estimate where ids are its front
  std::vector<route::MediaSpan> media;  // in order of offset
  bool operator==(const PromptTokens&) const = default;
};

Result<PromptTokens> read_tokens_answer(std::string_view body);
// {"mm_hashes": {"image": ["h", ...]}, "mm_placeholders": {"image": [{"offset": 5, "length": 225}, ...]}}; what is unusable is
// left out.
std::vector<route::MediaSpan> read_media_features(std::string_view json);

}  // namespace baton::picker
