#include "parse/reasoning.h"

#include <algorithm>
#include <utility>

namespace baton::parse {
namespace {

constexpr ReasoningRow kRows[] = {
    {.name = "cohere_command3",
     .tags = {.open = "<|START_THINKING|>",
              .close = "<|END_THINKING|>",
              .call = "<|START_ACTION|>",
              .answer_open = "<|START_RESPONSE|>",
              .answer_close = "<|END_RESPONSE|>"},
     .special_tokens = true},
    {.name = "cohere_command4",
     .always = true,
     .tags = {.open = "<|START_THINKING|>",
              .close = "<|END_THINKING|>",
              .call = "<|START_ACTION|>",
              .answer_open = "<|START_TEXT|>",
              .answer_close = "<|END_TEXT|>",
              .or_answer_open = "<|START_RESPONSE|>",
              .or_answer_close = "<|END_RESPONSE|>"},
     .special_tokens = true},
    {.name = "deepseek_r1", .always = true},
    {.name = "deepseek_v3"},
    {.name = "deepseek_v4", .tags = {.call = "<｜DSML｜tool_calls>"}},
    {.name = "deepseek_v41", .tags = {.call = "<｜DSML｜ calls>"}},
    {.name = "ernie45", .always = true, .tags = {.answer_open = "<response>", .answer_close = "</response>"}},
    {.name = "gemma4",
     .tags = {.open = "<|channel>thought\n", .close = "<channel|>", .call = "<|tool_call>"},
     .special_tokens = true},
    {.name = "glm45", .always = true, .tags = {.call = "<tool_call>"}},
    {.name = "glm47", .always = true, .tags = {.call = "<tool_call>"}},
    {.name = "granite",
     .tags = {.open = "Here is my thought process:",
              .close = "Here is my response:",
              .or_open = {"Here's my thought process:"},
              .or_close = {"Here's my response:"}}},
    {.name = "granite_thinking_parser", .tags = {.call = "<tool_call>", .call_goes_on = "{<", .drops_lines = true}},
    {.name = "holo2", .always = true},
    {.name = "hunyuan_a13b", .tags = {.answer_open = "<answer>", .answer_close = "</answer>"}},
    {.name = "hy_v3",
     .tags = {.open = "<think:opensource>", .close = "</think:opensource>", .or_open = {"<think>"}, .or_close = {"</think>"}},
     .special_tokens = true},
    {.name = "hy_v4",
     .tags = {.open = "<think:6124c78e>", .close = "</think:6124c78e>", .or_open = {"<think>"}, .or_close = {"</think>"}},
     .special_tokens = true},
    {.name = "k2_horizon",
     .always = true,
     .tags = {.open = "<ifm|think>",
              .close = "</ifm|think>",
              .call = "<ifm|tool_calls>",
              .or_open = {"<ifm|think_fast>", "<ifm|think_faster>"},
              .or_close = {"</ifm|think_fast>", "</ifm|think_faster>"}},
     .special_tokens = true},
    {.name = "kimi_k2", .always = true, .tags = {.call = "<|tool_calls_section_begin|>"}, .special_tokens = true},
    {.name = "kimi_k3",
     .always = true,
     .tags = {.open = "<|open|>think<|sep|>",
              .close = "<|close|>think<|sep|>",
              .answer_open = "<|open|>response<|sep|>",
              .answer_close = "<|close|>response<|sep|>",
              .or_answer_close = "<|close|>message<|sep|>"},
     .special_tokens = true},
    {.name = "ling3", .always = true, .tags = {.call = "<tool_call>"}},
    {.name = "mimo", .tags = {.call = "<tool_call>", .call_goes_on = "<"}},
    {.name = "minimax_m2", .always = true, .tags = {.call = "<minimax:tool_call>"}},
    {.name = "minimax_m2_append_think", .always = true, .tags = {.shown = true}},
    {.name = "minimax_m3", .tags = {.open = "<mm:think>", .close = "</mm:think>"}},
    {.name = "mistral", .tags = {.open = "[THINK]", .close = "[/THINK]", .call = "[TOOL_CALLS]"}, .special_tokens = true},
    {.name = "nemotron_v3", .tags = {.call = "<tool_call>", .call_goes_on = "{<"}},
    {.name = "olmo3", .always = true},
    {.name = "openai_gptoss", .special_tokens = true, .harmony = true},
    {.name = "plamo3",
     .always = true,
     .tags = {.open = "<|plamo:begin_think:plamo|>",
              .close = "<|plamo:end_think:plamo|>",
              .call = "<|plamo:begin_tool_requests:plamo|>"},
     .special_tokens = true},
    {.name = "poolside_v1"},
    {.name = "qwen3", .tags = {.call = "<tool_call>", .call_goes_on = "{<"}},
    {.name = "seed_oss",
     .tags = {.open = "<seed:think>", .close = "</seed:think>", .call = "<seed:tool_call>"},
     .special_tokens = true},
    {.name = "step3", .always = true},
    {.name = "step3p5", .always = true, .tags = {.call = "<tool_call>", .call_goes_on = "<"}},
};

// The last is `call`, where there is one; the others end the thoughts.
TagScanner ends_of(const ThinkTags& tags) {
  TagScanner out{tags.close};
  for (const std::string_view tag : tags.or_close) {
    if (!tag.empty()) out.add_tag(tag);
  }
  if (!tags.call.empty()) out.add_tag(tags.call);
  return out;
}
int closings(const ThinkTags& tags) {
  return 1 + static_cast<int>(std::ranges::count_if(tags.or_close, [](std::string_view tag) { return !tag.empty(); }));
}

// text is not empty.
bool opens(const ThinkTags& tags, std::string_view text) {
  return text == tags.open || std::ranges::find(tags.or_open, text) != tags.or_open.end();
}
bool may_open(const ThinkTags& tags, std::string_view text) {
  return tags.open.starts_with(text) ||
         std::ranges::any_of(tags.or_open, [&](std::string_view tag) { return tag.starts_with(text); });
}
bool answers(const ThinkTags& tags, std::string_view text) {
  return !text.empty() && (text == tags.answer_open || text == tags.or_answer_open);
}
bool may_answer(const ThinkTags& tags, std::string_view text) {
  return tags.answer_open.starts_with(text) || tags.or_answer_open.starts_with(text);
}
// Without white space at the tag's end, as the prompt is without it.
bool ends_with(std::string_view prompt, std::string_view tag) { return !tag.empty() && prompt.ends_with(trimmed(tag)); }
bool ends_with_any(std::string_view prompt, std::string_view tag, const std::array<std::string_view, 2>& or_tags) {
  return ends_with(prompt, tag) ||
         std::ranges::any_of(or_tags, [&](std::string_view or_tag) { return ends_with(prompt, or_tag); });
}

}  // namespace

std::span<const ReasoningRow> reasoning_parsers() { return kRows; }

const ReasoningRow* find_reasoning_parser(std::string_view name) {
  for (const ReasoningRow& row : kRows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

Reasoning::Start Reasoning::start_of(const ReasoningRow& row, std::string_view prompt, std::string_view continued) {
  const std::string_view opening = row.tags.open, closing = row.tags.close;
  if (!is_blank(continued)) {
    const size_t open = continued.rfind(opening), close = continued.rfind(closing);
    return open != std::string_view::npos && (close == std::string_view::npos || open > close) ? Start::kThinking
                                                                                               : Start::kContent;
  }
  while (!prompt.empty() && is_space(prompt.back())) prompt.remove_suffix(1);
  // The template says that there is nothing to think.
  if (ends_with_any(prompt, closing, row.tags.or_close)) return Start::kContent;
  if (ends_with_any(prompt, row.tags.answer_open, {row.tags.or_answer_open})) return Start::kContent;
  if (ends_with_any(prompt, opening, row.tags.or_open)) return Start::kThinking;
  return row.always ? Start::kThinking : Start::kByTag;
}

Reasoning::Reasoning(Start start, const ThinkTags& tags)
    : tags_(tags), start_(start), state_(State::kStart), close_(ends_of(tags)) {
  if (start == Start::kContent) {
    state_ = behind_thoughts();
  } else if (tags.shown) {
    state_ = State::kContent;
    held_ = tags.open;
  }
  if (!tags.answer_close.empty()) answer_close_.add_tag(tags.answer_close);
  if (!tags.or_answer_close.empty()) answer_close_.add_tag(tags.or_answer_close);
}

void Reasoning::release_start(Events& out) {
  state_ = start_ == Start::kThinking ? State::kThinking : State::kContent;
  add(std::exchange(held_, {}), out);
}

void Reasoning::add(std::string_view piece, Events& out) {
  for (size_t i = 0; i < piece.size(); ++i) {
    switch (state_) {
      case State::kContent:
        return say(piece.substr(i), out);
      case State::kThinking:
        think(piece[i], out);
        break;
      case State::kAnswer:
        answer(piece[i], out);
        break;
      case State::kStart:
        start(piece[i], out);
        break;
    }
  }
}

// False: c changes nothing, for it goes on with white space. No tag has two spaces in a row.
bool Reasoning::hold(char c) {
  const bool goes_on = is_space(c) && !held_.empty() && is_space(held_.back());
  held_ += c;
  return !goes_on;
}

void Reasoning::start(char c, Events& out) {
  if (!hold(c)) return;
  const size_t from = held_.find_first_not_of(" \n\t\r");
  if (from == std::string::npos) return;
  const std::string_view tag = std::string_view(held_).substr(from);
  if (opens(tags_, tag)) {
    held_.clear();
    state_ = State::kThinking;
  } else if (answers(tags_, tag)) {  // without a thought
    held_.clear();
    state_ = State::kContent;
  } else if (!may_open(tags_, tag) && !may_answer(tags_, tag)) {
    release_start(out);
  }
}

void Reasoning::think(char c, Events& out) {
  if (!call_.empty()) {
    const bool goes_on = tags_.call_goes_on.find(c) != std::string_view::npos;
    if (goes_on || is_space(c)) call_ += c;
    if (goes_on) return end_by_call(out);
    if (is_space(c)) return;
    append(out, Event::Kind::kReasoning, std::exchange(call_, {}));
  }
  std::string thought;
  const int end = close_.feed(c, thought);
  append(out, Event::Kind::kReasoning, thought);
  if (end < 0) return;
  if (end < closings(tags_)) {
    state_ = behind_thoughts();
    return;
  }
  call_ = tags_.call;
  if (tags_.call_goes_on.empty()) end_by_call(out);
}

// Behind the thoughts, where a tag may open the answer.
void Reasoning::answer(char c, Events& out) {
  if (tags_.drops_lines && c == '\n' && held_.empty()) return;
  if (!hold(c)) return;
  const size_t from = held_.find_first_not_of(" \n\t\r");
  if (from == std::string::npos) return;
  const std::string_view tag = std::string_view(held_).substr(from);
  if (answers(tags_, tag))
    held_.clear();
  else if (may_answer(tags_, tag))
    return;
  state_ = State::kContent;
  say(std::exchange(held_, {}), out);
}

void Reasoning::say(std::string_view text, Events& out) {
  append(out, Event::Kind::kContent, std::exchange(held_, {}));
  if (tags_.answer_close.empty()) return append(out, Event::Kind::kContent, text);
  std::string plain;
  for (const char c : text) (void)answer_close_.feed(c, plain);
  append(out, Event::Kind::kContent, plain);
}

void Reasoning::end_by_call(Events& out) {
  state_ = State::kContent;
  append(out, Event::Kind::kContent, std::exchange(call_, {}));
}

void Reasoning::finish(Events& out) {
  if (state_ == State::kStart) release_start(out);
  if (state_ == State::kThinking) append(out, Event::Kind::kReasoning, call_ + close_.take());
  if (state_ == State::kAnswer || state_ == State::kContent) {
    append(out, Event::Kind::kContent, std::exchange(held_, {}) + answer_close_.take());
  }
}

}  // namespace baton::parse
