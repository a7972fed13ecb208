#pragma once
// Harmony: the format of gpt-oss's answers: messages, each with a header that says its channel and to whom it goes.
//   <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>commentary to=functions.f
//   <|constrain|>json<|message|>{...}<|call|>
// The channel analysis is reasoning, final and commentary are content, a message to a function is a call, one to another
// recipient (python, browser.search) reasoning. Parts of one kind are a line apart. Incremental, byte by byte: where the text is
// cut changes no event. No text is lost: what reads like a header but is none belongs to the message it stands in; an answer that
// does not begin as a message is content. One per output sequence; not thread safe. Source: OpenAI's description of the harmony
// response format; vLLM's parser for what becomes of each part.
#include <string>
#include <string_view>

#include "parse/event.h"

namespace baton::parse {

// What the prompt has of the answer's first message already, where an answer in this format follows it: the text behind its last
// <|start|>.
std::string harmony_begun(std::string_view prompt);
// What it is behind a prompt that ends as gpt-oss's template ends it: the answer begins with a header.
inline constexpr std::string_view kHarmonyHeader = "assistant";

class Harmony {
 public:
  // begun: harmony_begun() of the prompt. calls: false: what is sent to a function is content.
  Harmony(std::string_view begun, bool calls);
  void add(std::string_view piece, Events& out) {
    for (const char c : piece) step(c, out);
  }
  void finish(Events& out);                // the text is complete; once
  bool thinking() const;                   // what came last is thought
  bool broken() const { return broken_; }  // after finish(): it ended within a call's arguments

 private:
  enum class State : uint8_t { kHeader, kBody };

  void step(char c, Events& out);
  void body_byte(char c, Events& out);
  void header_byte(char c, Events& out);
  void begin_message(Events& out);
  void no_header(Events& out);
  void end_message(Events& out);
  void say(std::string_view text, Events& out);
  bool in_call() const { return kind_ == Event::Kind::kArguments; }

  bool calls_;
  bool broken_ = false;
  bool first_ = true;  // no header of the answer's own was read
  State state_ = State::kHeader;
  Event::Kind kind_ = Event::Kind::kContent;  // of the message; of a call kArguments
  bool any_ = false;                          // of the message's text something came
  bool told_[2] = {};                         // content, reasoning: an earlier message had some
  std::string held_;                          // kBody: what may be the end of the message
  std::string header_, raw_;                  // kHeader: from the role on; all of it, as the answer has it
  std::string arguments_;                     // of the call, as far as kCallBytesMax
};

}  // namespace baton::parse
