#include "parse/reasoning.h"

#include <utility>

namespace baton::parse {
namespace {

constexpr ReasoningRow kRows[] = {
    {.name = "deepseek_r1", .always = true},
    {.name = "mistral", .tags = {.open = "[THINK]", .close = "[/THINK]", .call = "[TOOL_CALLS]"}, .special_tokens = true},
    {.name = "openai_gptoss", .special_tokens = true, .harmony = true},
    {.name = "qwen3", .tags = {.call = "<tool_call>", .call_goes_on = "{<"}},
};

TagScanner ends_of(const ThinkTags& tags) {
  return tags.call.empty() ? TagScanner{tags.close} : TagScanner{tags.close, tags.call};
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
  if (prompt.ends_with(closing)) return Start::kContent;  // the template says that there is nothing to think
  if (prompt.ends_with(opening)) return Start::kThinking;
  return row.always ? Start::kThinking : Start::kByTag;
}

Reasoning::Reasoning(Start start, const ThinkTags& tags)
    : tags_(tags), start_(start), state_(start == Start::kContent ? State::kContent : State::kStart), close_(ends_of(tags)) {}

void Reasoning::release_start(Events& out) {
  state_ = start_ == Start::kThinking ? State::kThinking : State::kContent;
  add(std::exchange(held_, {}), out);
}

void Reasoning::add(std::string_view piece, Events& out) {
  for (size_t i = 0; i < piece.size(); ++i) {
    if (state_ == State::kContent) return append(out, Event::Kind::kContent, piece.substr(i));
    if (state_ == State::kThinking) {
      think(piece[i], out);
      continue;
    }
    held_ += piece[i];
    const size_t from = held_.find_first_not_of(" \n\t\r");
    if (from == std::string::npos) continue;
    const std::string_view tag = std::string_view(held_).substr(from);
    if (tag == tags_.open) {
      held_.clear();
      state_ = State::kThinking;
    } else if (!tags_.open.starts_with(tag)) {
      release_start(out);
    }
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
  if (end == 0) state_ = State::kContent;
  if (end != 1) return;
  call_ = tags_.call;
  if (tags_.call_goes_on.empty()) end_by_call(out);
}

void Reasoning::end_by_call(Events& out) {
  state_ = State::kContent;
  append(out, Event::Kind::kContent, std::exchange(call_, {}));
}

void Reasoning::finish(Events& out) {
  if (state_ == State::kStart) release_start(out);
  if (state_ == State::kThinking) append(out, Event::Kind::kReasoning, call_ + close_.take());
}

}  // namespace baton::parse
