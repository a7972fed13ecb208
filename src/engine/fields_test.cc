// Every field of a completion or chat request does what it says, or is refused by name: none that changes the output is passed
// over in silence. The list is the facts sheet "engine" 1.4-1.6, row by row.
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::Reply;
using testing::TestEngine;

enum class Does : uint8_t {
  kChanges,   // the answer is another with it
  kRefused,   // 400, 404 or 501 with the field's name in the message
  kSameHere,  // accepted, and the answer is the same, for the reason beside it
};
struct Row {
  const char* field;  // as JSON members, after `base`
  Does does = Does::kChanges;
  const char* base = "";   // what it works on; both requests have it
  const char* named = "";  // of a refusal: what the message must hold; "" = the field's name
};

// Of an answer, what does not differ from one request to the next.
std::string substance(std::string body) {
  for (const std::string_view key : {"\"id\":\"", "\"created\":"}) {
    for (size_t at = body.find(key); at != std::string::npos; at = body.find(key, at + 1)) {
      const size_t from = at + key.size(), end = body.find_first_of(",\"}", from);
      body.erase(from, end - from);
    }
  }
  return body;
}

std::string name_of(const Row& row) {
  const std::string_view field = row.field;
  return std::string(field.substr(1, field.find('"', 1) - 1));
}

void check(TestEngine& e, const char* path, const std::string& request, std::span<const Row> rows) {
  for (const Row& row : rows) {
    const std::string base = cat("{", request, *row.base ? "," : "", row.base);
    const Reply with = e.post(path, cat(base, ",", row.field, "}"));
    if (row.does == Does::kRefused) {
      EXPECT_TRUE(with.status == 400 || with.status == 404 || with.status == 501) << path << " " << row.field << " " << with.body;
      EXPECT_THAT(with.body, HasSubstr(*row.named ? row.named : name_of(row))) << row.field;
      continue;
    }
    const Reply without = e.post(path, base + "}");
    EXPECT_EQ(without.status, 200) << path << " " << base << without.body;
    EXPECT_EQ(with.status, 200) << path << " " << row.field << " " << with.body;
    EXPECT_EQ(substance(with.body) != substance(without.body), row.does == Does::kChanges) << path << " " << row.field << "\n"
                                                                                           << with.body << "\n"
                                                                                           << without.body;
  }
}

constexpr const char* kHot = R"("temperature":1.5,"seed":1)";
// Of the tiny model: id 2 is its end, 40 is "%". With these biases it always says the one or the other, or nearly always.
constexpr const char* kEnds = R"("logit_bias":{"2":100})";
constexpr const char* kSays40 = R"("logit_bias":{"40":100})";
constexpr const char* kLikes40 = R"("logit_bias":{"40":8.2})";
constexpr const char* kBeams = R"("use_beam_search":true,"n":2)";

constexpr Row kCommon[] = {
    {R"("model":"other")", Does::kRefused, "", "`other` does not exist"},
    {R"("frequency_penalty":2)", Does::kChanges, kLikes40},
    {R"("presence_penalty":2)", Does::kChanges, kLikes40},
    {R"("repetition_penalty":100)", Does::kChanges, kSays40},
    {kHot},
    {R"("top_p":0.01)", Does::kChanges, kHot},
    {R"("top_k":1)", Does::kChanges, kHot},
    {R"("min_p":1)", Does::kChanges, kHot},
    {R"("seed":2)", Does::kChanges, kHot},
    {R"("n":2)", Does::kChanges, kHot},
    {R"("best_of":2)", Does::kSameHere, kHot},  // gone from vLLM, which passes over it
    {R"("stop":["%"])", Does::kChanges, R"("logit_bias":{"40":100})"},
    {R"("include_stop_str_in_output":true)", Does::kChanges, R"("stop":["%"],"logit_bias":{"40":100})"},
    {R"("stop_token_ids":[40])", Does::kChanges, kSays40},
    {R"("ignore_eos":true)", Does::kChanges, kEnds},
    {R"("min_tokens":3)", Does::kChanges, kEnds},
    {R"("bad_words":["%"])", Does::kChanges, R"("logit_bias":{"40":60})"},
    {kSays40},
    {R"("allowed_token_ids":[50])"},
    {R"("skip_special_tokens":false)", Does::kChanges, R"("logit_bias":{"1":100})"},
    {R"("spaces_between_special_tokens":false)", Does::kSameHere, R"("skip_special_tokens":false)"},  // we put none there
    {R"("truncate_prompt_tokens":3)"},
    {R"("truncation_side":"right")", Does::kChanges, R"("truncate_prompt_tokens":3)"},
    {R"("truncation_side":"middle")", Does::kRefused},
    {R"("prompt_logprobs":1)"},
    {R"("stream":true)"},
    {R"("stream_options":{"include_usage":true})", Does::kChanges, R"("stream":true)"},
    {R"("stream_options":{"include_usage":true,"continuous_usage_stats":true})", Does::kChanges, R"("stream":true)"},
    {R"("stream_options":{"continuous_usage_stats":true})", Does::kSameHere, R"("stream":true)"},  // needs the other
    {R"("priority":1)", Does::kSameHere},  // who goes first, with --scheduling-policy priority
    {R"("cache_salt":"x")", Does::kSameHere},  // which blocks are reused, not what they hold
    {R"("cache_hit_threshold":1)"},
    {R"("return_token_ids":true)"},
    {R"("return_tokens_as_token_ids":true)", Does::kChanges, R"("logprobs":true)"},
    {R"("use_beam_search":true)", Does::kChanges, R"("n":2,"temperature":1)"},
    {R"("length_penalty":9)", Does::kChanges, R"("use_beam_search":true,"n":10)"},
    {R"("stop":["x"])", Does::kRefused, kBeams, "Beam search"},
    {R"("stream":true)", Does::kRefused, kBeams, "Beam search"},
    {R"("guided_choice":["x"])", Does::kRefused, kBeams, "Beam search"},
    {R"("response_format":{"type":"json_object"})"},
    {R"("response_format":{"type":"structural_tag","format":{"type":"const_string","value":"xyz"}})"},
    {R"("structured_outputs":{"choice":["x"]})"},
    {R"("structured_outputs":{"structural_tag":"{\"format\":{\"type\":\"const_string\",\"value\":\"xyz\"}}"})"},
    {R"("guided_json":{"type":"null"})"},
    {R"("guided_regex":"a")"},
    {R"("guided_choice":["x"])"},
    {R"("guided_grammar":"root ::= \"a\"")"},
    {R"("guided_whitespace_pattern":"")", Does::kChanges, R"("guided_json":{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]})"},
    {R"("logits_processors":["x"])", Does::kRefused},
    {R"("repetition_detection":{"max_pattern_size":3,"min_count":2})", Does::kChanges, kSays40},
    {R"("repetition_detection":{"max_pattern_size":3})", Does::kRefused, "", "min_count must be >= 2"},
    {R"("thinking_token_budget":3)", Does::kRefused},  // thinking_budget_test.cc has what it does with a --reasoning-parser
    {R"("thinking_token_budget":-1)", Does::kSameHere},  // no budget
    {R"("thinking_token_budget":true)", Does::kRefused},
    {R"("logprob_token_ids":[3])", Does::kChanges, R"("logprobs":true)"},
    {R"("logprob_token_ids":[3])", Does::kRefused},
    {R"("logprob_token_ids":[300])", Does::kRefused, R"("logprobs":true)"},
    {R"("prompt_embeds":"x")", Does::kRefused},
    {R"("mm_processor_kwargs":{"a":1})", Does::kRefused},
    {R"("stream_interval":3)", Does::kSameHere},                                          // how tokens are grouped in chunks
    {R"("session_id":"x")", Does::kSameHere},                                             // for routers
    {R"("ec_transfer_params":{})", Does::kSameHere},                                      // of encoders; the model takes text
    {R"("kv_transfer_params":{})", Does::kSameHere},                                      // asks for nothing
    {R"("vllm_xargs":{"a":1})", Does::kSameHere},                                         // for plugins of vLLM
    {R"("user":"x","service_tier":"auto","store":true,"metadata":{})", Does::kSameHere},  // for whoever bills
};

TEST(Fields, OfBothEndpoints) {
  TestEngine e;
  for (const Row& row : kCommon) {
    const bool completion_logprobs = std::string_view(row.base).find("\"logprobs\":true") != std::string_view::npos;
    const Row here{row.field, row.does, completion_logprobs ? R"("logprobs":1)" : row.base, row.named};
    check(e, "/v1/completions", R"("prompt":"The quick brown fox","max_tokens":12,"temperature":0)", {&here, 1});
    check(e, "/v1/chat/completions",
          R"("messages":[{"role":"user","content":"The quick brown fox"}],"max_tokens":12,"temperature":0)", {&row, 1});
  }
  e.expect_idle();
}

TEST(Fields, OfCompletions) {
  TestEngine e;
  constexpr Row kRows[] = {
      {R"("prompt":"other")"},
      {R"("max_tokens":3)"},
      {R"("logprobs":2)"},
      {R"("echo":true)"},
      {R"("suffix":"x")", Does::kRefused},
  };
  check(e, "/v1/completions", R"("prompt":"The quick brown fox","max_tokens":12,"temperature":0)", kRows);
}

TEST(Fields, OfChats) {
  TestEngine e;
  constexpr Row kRows[] = {
      {R"("max_completion_tokens":3)"},
      {R"("logprobs":true)"},
      {R"("top_logprobs":2)", Does::kChanges, R"("logprobs":true)"},
      {R"("top_logprobs":2)", Does::kRefused},
      {R"("tools":[{"type":"function","function":{"name":"f"}}])", Does::kRefused, "", "auto"},
      {R"("tool_choice":"auto")", Does::kRefused},
      {R"("reasoning_effort":"much")", Does::kRefused},
      {R"("reasoning_effort":"low")", Does::kChanges, R"("chat_template":"{{ reasoning_effort }}{{ messages[0].content }}")"},
      {R"("echo":true)", Does::kChanges,
       R"("messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"add_generation_prompt":false)"},
      {R"("return_prompt_text":true)"},
      {R"("logprob_token_ids":[3])", Does::kRefused, R"("logprobs":true,"use_beam_search":true,"n":2)"},
      {R"("add_generation_prompt":false)"},
      {R"("continue_final_message":true)", Does::kChanges,
       R"("messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"add_generation_prompt":false)"},
      {R"("continue_final_message":true)", Does::kRefused},
      {R"("add_special_tokens":true)", Does::kSameHere},  // this tokenizer adds none
      {R"("documents":[{"text":"x"}])", Does::kChanges,
       R"("chat_template":"{% for d in documents or [] %}{{ d.text }}{% endfor %}a")"},
      {R"("chat_template":"{{ messages[0].content }}")"},
      {R"("chat_template_kwargs":{"k":"x"})", Does::kChanges, R"("chat_template":"{{ k }}a")"},
  };
  check(e, "/v1/chat/completions",
        R"("messages":[{"role":"user","content":"The quick brown fox"}],"max_tokens":12,"temperature":0)", kRows);
}

}  // namespace
}  // namespace baton::engine
