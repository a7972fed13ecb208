#pragma once
// Maxima of the engine beside those of its configuration, with what happens beyond them. One request's own limits are in
// wire/limits.h.
#include <cstddef>
#include <cstdint>

namespace baton::engine {

constexpr size_t kSequencesMax =
    65536;  // sequences waiting or running, some 30 MiB of bookkeeping: 429 with Retry-After beyond it
constexpr int32_t kScoredRowsMax = 128;  // logit rows of one model call for a scored prompt: 2048 rows of a 150,000 word
                                         // vocabulary would be 1.2 GB; the cut changes no result, the model is invariant to it
// Compiled constraints kept beside those in use: the last used ones.
constexpr size_t kConstraintsMax = 128;
constexpr size_t kConstraintsBytesMax = 64u << 20;
constexpr int kPeersWaitMs = 5000;       // /health waits this long at most for the first contact with the --kv-peers
constexpr int64_t kRankLoadMs = 3'600'000;  // a rank that has not loaded its part by then: the start fails
constexpr int64_t kRankAdapterMs = 600'000;  // one that has not read its part of a LoRA adapter by then: the load fails
constexpr size_t kRankMessageBytesMax = 8192;  // about an adapter: a path of 4096 at most, or a text, which is cut
constexpr int kRankWatchMs = 1000;       // a failed group of ranks is noticed by then; a rank that ends at once
constexpr int kKvPeersMax = 4096;        // addresses in --kv-peers: refused at start beyond it

constexpr int32_t kDraftTokensMax = 64;  // of --speculative-config's num_speculative_tokens: refused at start beyond it
constexpr int32_t kLookupTokensMax = 32;  // of its prompt_lookup_max, each length costs a look-up a token: refused at start beyond it

constexpr size_t kFlagFileBytesMax = 1 << 20;  // a --config file; and of what is in it, aliases counted each time: refused at start
constexpr size_t kFlagFileNodesMax = 100'000;
constexpr int kFlagFileDepthMax = 32;
constexpr size_t kChatTemplateBytesMax = 1 << 20;  // a --chat-template file, as text/limits.h has it for any template
constexpr size_t kSentenceFileBytesMax = 1 << 20;  // modules.json and the like of a sentence-transformers directory
constexpr int kKvEventBatchesMax = 1'000'000;  // of --kv-events-config's counts: refused at start beyond it

constexpr size_t kAdaptersMax = 1024;  // LoRA adapters loaded; a picker sees no more either. Loading one more is refused
constexpr size_t kAdapterNameBytesMax = 256;  // refused beyond it

// What /v1/responses keeps with VLLM_ENABLE_RESPONSES_API_STORE: beyond either the oldest goes.
constexpr size_t kStoredResponsesMax = 4096;
constexpr size_t kStoredBytesMax = 256u << 20;
// The events of those that are made in the background and streamed, to be read again: of one (some 16,000 tokens), beyond which
// its oldest go; and of how many, beyond which those of the oldest that has ended go, or, if none has, a further one is refused:
// 429.
constexpr size_t kEventLogBytesMax = 4u << 20;
constexpr size_t kEventLogsMax = 64;
constexpr size_t kEventReadBytes = 64u << 10;  // that a reader takes at once

}  // namespace baton::engine
