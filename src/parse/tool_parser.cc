#include "parse/tool_parser.h"

#include <utility>

namespace baton::parse {
namespace {

constexpr ToolParserRow kRows[] = {
    {.name = "apertus", .make = make_apertus, .special_tokens = true},
    {.name = "cohere_command3", .make = make_cohere_command, .special_tokens = true},
    {.name = "cohere_command4", .make = make_cohere_command, .special_tokens = true},
    {.name = "deepseek_v3", .make = make_deepseek_v3, .special_tokens = true},
    {.name = "deepseek_v31", .make = make_deepseek_v31, .special_tokens = true},
    {.name = "deepseek_v32", .make = make_deepseek_v32, .special_tokens = true},
    {.name = "deepseek_v4", .make = make_deepseek_v4, .special_tokens = true},
    {.name = "deepseek_v41", .make = make_deepseek_v41, .special_tokens = true},
    {.name = "dots", .make = make_dots, .special_tokens = true},
    {.name = "ernie45", .make = make_hermes, .special_tokens = true},
    {.name = "functiongemma", .make = make_functiongemma, .special_tokens = true},
    {.name = "gemma4", .make = make_gemma4, .special_tokens = true},
    {.name = "gigachat3", .make = make_gigachat3, .special_tokens = true},
    {.name = "glm45", .make = make_glm45, .special_tokens = true},
    {.name = "glm47", .make = make_glm45, .special_tokens = true},
    {.name = "granite", .make = make_granite, .special_tokens = true},
    {.name = "granite-20b-fc", .make = make_granite_20b_fc},
    {.name = "granite4", .make = make_hermes, .special_tokens = true},
    {.name = "hermes", .make = make_hermes, .special_tokens = true},
    {.name = "hunyuan_a13b", .make = make_jamba},
    {.name = "hy_v3", .make = make_hy_v3, .special_tokens = true},
    {.name = "hy_v4", .make = make_hy_v4, .special_tokens = true},
    {.name = "internlm", .make = make_internlm, .special_tokens = true},
    {.name = "jamba", .make = make_jamba, .special_tokens = true},
    {.name = "k2_horizon", .make = make_k2_horizon, .special_tokens = true},
    {.name = "kimi_k2", .make = make_kimi_k2, .special_tokens = true},
    {.name = "kimi_k3", .make = make_kimi_k3, .special_tokens = true},
    {.name = "lfm2", .make = make_lfm2, .special_tokens = true},
    {.name = "ling3", .make = make_glm45, .special_tokens = true},
    {.name = "llama3_json", .make = make_llama3_json},
    {.name = "llama4_json", .make = make_llama3_json},
    {.name = "llama4_pythonic", .make = make_llama4_pythonic},
    {.name = "longcat", .make = make_longcat, .special_tokens = true},
    {.name = "mimo", .make = make_mimo, .special_tokens = true},
    {.name = "minicpm5", .make = make_minicpm5, .special_tokens = true},
    {.name = "minimax_m2", .make = make_minimax_m2, .special_tokens = true},
    {.name = "minimax_m3", .make = make_minimax_m3, .special_tokens = true},
    {.name = "mistral", .make = make_mistral, .special_tokens = true, .short_ids = true},
    {.name = "olmo3", .make = make_olmo3},
    {.name = "openai", .make = make_openai, .special_tokens = true, .harmony = true},
    {.name = "phi4_mini_json", .make = make_phi4_mini_json},
    {.name = "plamo3", .make = make_plamo3, .special_tokens = true},
    {.name = "poolside_v1", .make = make_poolside_v1, .special_tokens = true},
    {.name = "pythonic", .make = make_pythonic},
    {.name = "qwen3_coder", .make = make_qwen3_coder, .special_tokens = true},
    {.name = "qwen3_json", .make = make_hermes, .special_tokens = true},
    {.name = "qwen3_xml", .make = make_qwen3_coder, .special_tokens = true},
    {.name = "seed_oss", .make = make_seed_oss, .special_tokens = true},
    {.name = "step3", .make = make_step3, .special_tokens = true},
    {.name = "step3p5", .make = make_qwen3_coder, .special_tokens = true},
    {.name = "xlam", .make = make_xlam},
};

}  // namespace

std::span<const ToolParserRow> tool_parsers() { return kRows; }

const ToolParserRow* find_tool_parser(std::string_view name) {
  for (const ToolParserRow& row : kRows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

void ToolParser::content(std::string_view text, Events& out) {
  if (after_call_) {
    if (is_blank(text)) {
      space_ += text;
      return;
    }
    after_call_ = false;
    append(out, Event::Kind::kContent, space_);
  }
  space_.clear();
  append(out, Event::Kind::kContent, text);
}

void ToolParser::give_up(Events& out) {
  broken_ = true;
  content(std::exchange(raw_, {}), out);
}

}  // namespace baton::parse
