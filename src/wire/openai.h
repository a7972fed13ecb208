#pragma once
// OpenAI requests as vLLM takes them: /v1/chat/completions, /v1/completions, /tokenize, /detokenize.
// Requires: parse_json(text, kRequestJson). Guarantees: every check that needs no model, with vLLM's wording; kInvalidArgument is
// a 400, kUnimplemented a 501. Defaults that come from the model (temperature, max_tokens, ...) stay nullopt. Pure values.
// Source: facts sheet "engine" 1.2, 1.4-1.6.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "wire/sampling_numbers.h"
#include "wire/structured_output.h"

namespace baton::wire {

constexpr int32_t kAllLogprobs = -1;  // prompt_logprobs: -1 = the whole vocabulary

// repetition_detection: end where the last tokens, min_pattern to max_pattern of them, stand there min_count times in a row.
struct RepetitionDetection {
  int32_t max_pattern = 0, min_pattern = 0, min_count = 0;  // max_pattern 0 = off; min_pattern 0 counts as 1
};

struct GenerateFields : SamplingNumbers {
  std::string model;  // "" = the first served name
  std::optional<int64_t> seed;
  std::optional<int32_t> max_tokens;  // more than there is room for is no error: the answer ends where the context does
  const char* max_tokens_name = "max_tokens";  // as the client called it
  int32_t min_tokens = 0;
  int32_t n = 1;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool include_stop_str_in_output = false, ignore_eos = false, skip_special_tokens = true;
  std::vector<std::string> bad_words;
  std::vector<std::pair<int32_t, float>> logit_bias;  // clamped to [-100, 100]
  std::optional<std::vector<int32_t>> allowed_token_ids;
  std::optional<int32_t> truncate_prompt_tokens;  // -1 = max_model_len
  bool truncate_left = true;                      // keep the last tokens
  std::optional<int32_t> logprobs;                // entries beside the sampled token; nullopt = none
  std::vector<int32_t> logprob_token_ids;         // not empty: the entries are of these tokens, and logprobs shows them all
  std::optional<int32_t> prompt_logprobs;
  bool stream = false, include_usage = false, continuous_usage = false;
  int32_t priority = 0;
  std::string request_id, cache_salt;
  bool add_special_tokens = false;
  bool return_tokens_as_token_ids = false, return_token_ids = false;
  std::optional<Json> kv_transfer_params;
  std::optional<double> cache_hit_threshold;
  std::optional<int64_t> thinking_token_budget;
  RepetitionDetection repetition;
  bool beam_search = false;  // n is its width
  double length_penalty = 1;
  std::optional<StructuredOutput> structured;  // what the answer must be
  std::vector<std::string> unknown;            // fields we ignored
};

// What tool_choice says, "auto" where tools came without it.
enum class ToolChoice : uint8_t { kNone, kAuto, kRequired, kNamed };

struct ChatRequest : GenerateFields {
  std::vector<Json> messages;
  Json tools, documents, template_kwargs;  // null if absent; reasoning_effort is one of the kwargs
  std::string chat_template;               // "" = the model's own
  bool add_generation_prompt = true, continue_final_message = false, echo = false;
  ToolChoice tool_choice = ToolChoice::kNone;
  std::string named_tool;           // with kNamed: one of tools
  bool parallel_tool_calls = true;  // false: only the first call is answered
  bool include_reasoning = true;
  bool return_prompt_text = false;
};

using Prompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest : GenerateFields {
  std::vector<Prompt> prompts;  // not empty
  bool echo = false;
};

struct TokenizeRequest {
  std::string model;
  std::optional<std::string> prompt;  // nullopt: the chat form
  ChatRequest chat;
  bool add_special_tokens = true, return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<int32_t> tokens;
};

Result<ChatRequest> parse_chat_request(const Json& body);
Result<CompletionRequest> parse_completion_request(const Json& body);
Result<TokenizeRequest> parse_tokenize_request(const Json& body);
Result<DetokenizeRequest> parse_detokenize_request(const Json& body);

}  // namespace baton::wire
