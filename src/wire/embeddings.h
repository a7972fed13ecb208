#pragma once
// /v1/embeddings and /pooling as vLLM takes and answers them: text, token ids, batches of either, or a chat.
// Requires: body parsed with kRequestJson. Guarantees: every check that needs no model, in vLLM's wording. Pure values.
// Source: vLLM's entrypoints/openai (EmbeddingRequest); OpenAI's API reference.
#include <span>
#include <string>
#include <vector>

#include "wire/openai.h"
#include "wire/openai_response.h"

namespace baton::wire {

struct EmbeddingRequest {
  std::string model;
  std::vector<Prompt> inputs;  // not empty, unless `chat` is there
  std::optional<ChatRequest> chat;
  bool base64 = false;  // little-endian float32
  std::optional<int32_t> dimensions;
  std::optional<bool> use_activation;  // false: not normalised
  bool add_special_tokens = true;
  GenerateFields fields;  // truncate_prompt_tokens, priority, cache_salt
};
Result<EmbeddingRequest> parse_embedding_request(const Json& body);

// pooling: in /pooling's words.
std::string embedding_response(const Head& head, std::span<const std::vector<float>> embeddings, bool base64, const Usage& usage,
                               bool pooling);

}  // namespace baton::wire
