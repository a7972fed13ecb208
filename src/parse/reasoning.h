#pragma once
// Reasoning: splits a model's answer into what it thought, up to </think> or another such tag, and the rest. Incremental, byte by
// byte. One per output sequence; not thread safe. reasoning_parsers() is the table behind --reasoning-parser, names and rules as
// vLLM's.
#include <array>
#include <span>
#include <string>
#include <string_view>

#include "parse/event.h"
#include "parse/tag_scanner.h"

namespace baton::parse {

struct ThinkTags {
  std::string_view open = "<think>", close = "</think>";
  std::string_view call = "";  // ends the thoughts too, and is no part of them; "" = nothing else does
  std::string_view call_goes_on =
      "";  // only with one of these behind it and white space, so it can be thought about; "" = always
  std::array<std::string_view, 2> or_open{}, or_close{};  // other spellings; "" = none
  std::string_view answer_open = "", answer_close = "";  // around the answer, and no part of it; either may be missing; "" = none
  std::string_view or_answer_open = "", or_answer_close = "";  // other spellings; "" = none
  bool drops_lines = false;                                    // line ends before the answer are no part of it either
  bool shown = false;                                          // the thoughts are part of the answer, tags included
};

struct ReasoningRow {
  std::string_view name;
  bool always = false;  // an answer begins inside the thoughts even where nothing shows it; else only a <think> does
  ThinkTags tags{};
  bool special_tokens = false;  // the tags are special tokens: they must not be skipped
  bool harmony = false;         // harmony.h reads the whole answer
};
std::span<const ReasoningRow> reasoning_parsers();
const ReasoningRow* find_reasoning_parser(std::string_view name);  // nullptr if there is none

class Reasoning {
 public:
  enum class Start : uint8_t { kThinking, kByTag, kContent };
  // Where the answer to this prompt begins. prompt: as the template made it; continued: the part of the answer that is in it, of
  // continue_final_message, else "".
  static Start start_of(const ReasoningRow& row, std::string_view prompt, std::string_view continued);

  explicit Reasoning(Start start, const ThinkTags& tags = {});
  void add(std::string_view piece, Events& out);  // kReasoning and kContent
  void finish(Events& out);
  bool thinking() const { return state_ == State::kThinking; }  // what comes next is thought

 private:
  enum class State : uint8_t { kStart, kThinking, kAnswer, kContent };
  bool hold(char c);
  void start(char c, Events& out);
  void release_start(Events& out);
  void think(char c, Events& out);
  void answer(char c, Events& out);
  void say(std::string_view text, Events& out);
  void end_by_call(Events& out);
  State behind_thoughts() const { return tags_.answer_open.empty() && !tags_.drops_lines ? State::kContent : State::kAnswer; }

  ThinkTags tags_;
  Start start_;
  State state_;
  std::string held_;  // white space and perhaps a tag: of the thoughts at the start, of the answer behind them
  std::string call_;  // tags.call and white space, while what follows is not known
  TagScanner close_, answer_close_;
};

}  // namespace baton::parse
