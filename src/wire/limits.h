#pragma once
// What one request may ask for. Over a limit is a 400 that names it; nothing is cut silently. The HTTP server bounds head and
// body.
#include <cstddef>
#include <cstdint>

#include "base/json.h"

namespace baton::wire {

constexpr int32_t kChoicesMax = 1024;         // n x prompts of one request: each is a sequence in the engine
constexpr size_t kStopStringsMax = 256;       // the detokenizer searches each of them per token
constexpr size_t kStopStringBytesMax = 4096;  // and holds back this much text
constexpr size_t kStopTokensMax = 4096;
constexpr size_t kLogitBiasMax = 65536;         // applied per sampled token
constexpr size_t kLogprobIdsMax = 128;  // logprob_token_ids, as vLLM: 400 beyond it
constexpr size_t kAllowedTokensMax = 1u << 20;  // at least any vocabulary
constexpr size_t kBadWordsMax = 1024;
constexpr size_t kBadWordBytesMax = 1024;
constexpr size_t kMessagesMax = 16384;
constexpr size_t kToolsMax = 4096;
constexpr size_t kConstraintBytesMax = 1u << 20;  // a regex or grammar; grammar/limits.h bounds what is made of it
constexpr size_t kChoiceTextsMax = 65536;
constexpr size_t kRequestIdBytesMax = 256;
constexpr size_t kCacheSaltBytesMax = 1024;
constexpr int32_t kEmbeddingInputsMax = 8192;  // inputs of one /v1/embeddings request: each is a sequence in the engine
constexpr size_t kRemoteBlocksMax = 1u << 20;  // blocks of one hand-over

// A node of our JSON tree takes about 100 bytes, so a hostile body can cost 100 MiB and no more. A batch of token-id prompts
// needs one node a token.
constexpr JsonLimits kRequestJson{.bytes_max = 64u << 20, .nodes_max = 1u << 20, .depth_max = 64};

}  // namespace baton::wire
