#include "engine/reasoning_config.h"

#include "base/json.h"
#include "parse/reasoning.h"

namespace baton::engine {
namespace {

// Into `marks`, and the parser it names.
Result<> read_reasoning_config(const std::string& text, ReasoningMarks& marks, std::string& parser) {
  const auto wrong = [](const auto&... what) { return fail(Code::kInvalidArgument, "--reasoning-config ", what...); };
  const auto json = parse_json(text);
  if (!json || !json->is_object()) return wrong("wants a JSON object", json ? std::string() : cat(": ", json.error().message));
  for (size_t i = 0; i < json->keys.size(); ++i) {
    const std::string& key = json->keys[i];
    std::string* const to = key == "reasoning_parser"      ? &parser
                            : key == "reasoning_start_str" ? &marks.open
                            : key == "reasoning_end_str"   ? &marks.forced
                                                           : nullptr;
    if (!to) return wrong("has an unknown key: ", key);
    if (!json->items[i].is_string()) return wrong("wants a text as ", key);
    *to = json->items[i].text;
  }
  return {};
}

Result<std::vector<int32_t>> mark_tokens(const text::Tokenizer& tokenizer, const std::string& mark) {
  BATON_TRY(std::vector<int32_t> tokens, tokenizer.encode(mark, false));
  if (tokens.empty())
    return fail(Code::kInvalidArgument, "--reasoning-config: no token of the model stands for ", json_string(mark));
  return tokens;
}

}  // namespace

Result<ReasoningMarks> reasoning_marks(const EngineConfig& config) {
  ReasoningMarks marks;
  std::string parser;
  if (!config.reasoning_config.empty()) BATON_OK(read_reasoning_config(config.reasoning_config, marks, parser));
  if (!config.reasoning_parser.empty()) parser = config.reasoning_parser;
  const parse::ReasoningRow* row = parser.empty() ? nullptr : parse::find_reasoning_parser(parser);
  if (!parser.empty() && !row)
    return fail(Code::kInvalidArgument, "--reasoning-config has an unknown reasoning_parser: ", parser);
  if (row && !row->harmony) {  // harmony's thoughts have no marks of one form
    marks.close = row->tags.close;
    if (marks.open.empty()) marks.open = row->tags.open;
    if (marks.forced.empty()) marks.forced = marks.close;
  }
  if (marks.close.empty()) marks.close = marks.forced;
  return marks;
}

Result<std::shared_ptr<const ThinkingMarks>> thinking_marks(const EngineConfig& config, const text::Tokenizer& tokenizer) {
  BATON_TRY(const ReasoningMarks words, reasoning_marks(config));
  if (words.open.empty() || words.forced.empty()) return nullptr;
  ThinkingMarks marks;
  BATON_TRY(marks.open, mark_tokens(tokenizer, words.open));
  BATON_TRY(marks.close, mark_tokens(tokenizer, words.close));
  BATON_TRY(marks.forced, mark_tokens(tokenizer, words.forced));
  return std::make_shared<const ThinkingMarks>(std::move(marks));
}

}  // namespace baton::engine
