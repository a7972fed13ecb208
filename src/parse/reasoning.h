#pragma once
// Reasoning: splits a model's answer into what it thought, up to </think> or another such tag, and the rest. Incremental, byte by
// byte. One per output sequence; not thread safe. reasoning_parsers() is the table behind --reasoning-parser, names and rules as
// vLLM's.
#include <span>
#include <string>
#include <string_view>

#include "parse/event.h"
#include "parse/tag_scanner.h"

namespace baton::parse {

struct ThinkTags {
  std::string_view open = "<think>", close = "</think>";
  std::string_view call = "";        // ends the thoughts too, and is no part of them; "" = nothing else does
  std::string_view call_goes_on = "";  // only with one of these behind it and white space, so it can be thought about; "" = always
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
  enum class State : uint8_t { kStart, kThinking, kContent };
  void release_start(Events& out);
  void think(char c, Events& out);
  void end_by_call(Events& out);

  ThinkTags tags_;
  Start start_;
  State state_;
  std::string held_;  // white space and perhaps a <think> at the start
  std::string call_;  // tags.call and white space, while what follows is not known
  TagScanner close_;
};

}  // namespace baton::parse
