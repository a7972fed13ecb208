#pragma once
// OpenAI responses as vLLM writes them, nulls serialised: the keys of 0.11 in its order (the users' curl outputs show them key for
// key), and those of 0.32 beside them.
// Each function returns one JSON text, or appends to a JsonWriter. Pure. Source: facts sheet "engine" 1.3, 1.5, 1.6, 1.9.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace baton::wire {

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
  std::optional<int64_t> cached_tokens{};  // prompt_tokens_details, with --enable-prompt-tokens-details
  int64_t reasoning_tokens = 0;            // of completion_tokens, where a reasoning parser tells; not every API says so
};

// One position's table: the sampled (or prompt) token first, then ranks 1..N without repeating it.
struct LogprobEntry {
  int32_t id = 0;
  std::string token;  // decoded text, or "token_id:N"
  std::string bytes;  // the token's own bytes
  float logprob = 0;
  int32_t rank = 0;
};
using LogprobRow = std::vector<LogprobEntry>;

struct Stop {
  std::string finish_reason{};               // "" while running
  std::optional<std::string> stop_string{};  // stop_reason: the matched string,
  std::optional<int32_t> stop_token{};       // or the matched token id, or null
};

// Common head of every response object and chunk.
struct Head {
  std::string id, model;
  int64_t created = 0;
  std::string system_fingerprint{};  // "" = null, or left out of a chunk
};

// One call of a message, or a piece of one in a chunk: there the first piece has id and name, the others only arguments.
struct ToolCall {
  int32_t index = 0;
  std::string id{}, name{}, arguments{};
};

struct Choice {
  int32_t index = 0;
  std::string text{};
  Stop stop{};
  bool logprobs = false;           // write the table even if empty
  std::vector<LogprobRow> rows{};  // one per token of text; with echo, the prompt's first
  int32_t echo_rows = 0;           // leading rows that are the prompt's; the first of them is null
  int32_t top = 0;                 // entries wanted beside the sampled token
  int64_t text_offset = 0;         // characters before text (streaming)
  std::optional<std::vector<int32_t>> token_ids{}, prompt_token_ids{};
  std::optional<std::string> prompt_text{};  // of a chat, as the template made it
  std::optional<std::vector<LogprobRow>> prompt_rows{};  // prompt_logprobs: first is null
  // Chat, of an answer that was cut into parts.
  bool no_content = false;  // content is null; in a chunk it is left out
  std::optional<std::string> reasoning{};
  std::vector<ToolCall> tool_calls{};
};

std::string chat_response(const Head& head, std::span<const Choice> choices, const Usage& usage,
                          std::string_view kv_transfer_params);
std::string completion_response(const Head& head, std::span<const Choice> choices, const Usage& usage,
                                std::string_view kv_transfer_params);

// /inference/v1/generate, whole or one chunk of a stream.
struct GenerateStyle {
  bool text = false;        // output_mode "text": the words beside the ids, and logprobs by words
  bool prompt_ids = false;  // return_token_ids: the prompt's ids too
};
std::string generate_response(const Head& head, std::span<const Choice> choices, const Usage& usage,
                              std::string_view kv_transfer_params, const GenerateStyle& style);
std::string generate_chunk(const Head& head, const Choice& choice, const Usage* usage, const GenerateStyle& style);  // usage: nullptr = null
std::string generate_usage_chunk(const Head& head, const Usage& usage, const GenerateStyle& style);

// Stream chunks, JSON only; sse_event() frames them. usage: written with continuous_usage_stats.
enum class Delta : uint8_t { kRole, kContent };
// The last chunk of a stream that ends without usage bears the fingerprint: the one with a finish reason, where last_says_who.
std::string chat_chunk(const Head& head, const Choice& choice, Delta delta, const Usage* usage, bool last_says_who = false);
std::string completion_chunk(const Head& head, const Choice& choice, const Usage* usage, bool last_says_who = false);
std::string usage_chunk(const Head& head, bool chat, const Usage& usage);
std::string sse_event(std::string_view json);  // "data: ...\n\n"
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
inline constexpr std::string_view kSseContentType = "text/event-stream; charset=utf-8";

struct ModelCard {
  std::string id, root, permission_id;
  std::string parent{};  // of an adapter: its base model. "" = it is one
  int64_t created = 0;
  int32_t max_model_len = 0;
};
std::string model_card(const ModelCard& card);
std::string model_list(std::span<const ModelCard> cards);
std::string tokenize_response(std::span<const int32_t> tokens, int32_t max_model_len, const std::vector<std::string>* token_strs);
std::string detokenize_response(std::string_view prompt);

}  // namespace baton::wire
