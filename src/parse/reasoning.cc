#include "parse/reasoning.h"

#include <utility>

namespace baton::parse {
namespace {

constexpr std::string_view kOpen = kThinkOpen, kClose = kThinkClose;

constexpr ReasoningRow kRows[] = {
    {.name = "deepseek_r1", .always = true},
    {.name = "qwen3"},
};

}  // namespace

std::span<const ReasoningRow> reasoning_parsers() { return kRows; }

const ReasoningRow* find_reasoning_parser(std::string_view name) {
  for (const ReasoningRow& row : kRows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

Reasoning::Start Reasoning::start_of(const ReasoningRow& row, std::string_view prompt, std::string_view continued) {
  if (!is_blank(continued)) {
    const size_t open = continued.rfind(kOpen), close = continued.rfind(kClose);
    return open != std::string_view::npos && (close == std::string_view::npos || open > close) ? Start::kThinking
                                                                                               : Start::kContent;
  }
  while (!prompt.empty() && is_space(prompt.back())) prompt.remove_suffix(1);
  if (prompt.ends_with(kClose)) return Start::kContent;  // the template says that there is nothing to think
  if (prompt.ends_with(kOpen)) return Start::kThinking;
  return row.always ? Start::kThinking : Start::kByTag;
}

void Reasoning::release_start(Events& out) {
  state_ = start_ == Start::kThinking ? State::kThinking : State::kContent;
  add(std::exchange(held_, {}), out);
}

void Reasoning::add(std::string_view piece, Events& out) {
  for (size_t i = 0; i < piece.size(); ++i) {
    if (state_ == State::kContent) return append(out, Event::Kind::kContent, piece.substr(i));
    if (state_ == State::kThinking) {
      std::string thought;
      const bool closed = close_.feed(piece[i], thought) >= 0;
      append(out, Event::Kind::kReasoning, thought);
      if (closed) state_ = State::kContent;
      continue;
    }
    held_ += piece[i];
    const size_t from = held_.find_first_not_of(" \n\t\r");
    if (from == std::string::npos) continue;
    const std::string_view tag = std::string_view(held_).substr(from);
    if (tag == kOpen) {
      held_.clear();
      state_ = State::kThinking;
    } else if (!kOpen.starts_with(tag)) {
      release_start(out);
    }
  }
}

void Reasoning::finish(Events& out) {
  if (state_ == State::kStart) release_start(out);
  if (state_ == State::kThinking) append(out, Event::Kind::kReasoning, close_.take());
}

}  // namespace baton::parse
