#pragma once
// MessageParser: a model's answer as the parts of an assistant's message: reasoning, content, tool calls, in pieces as it is
// written. parse_message() takes an answer that is complete: there a call that proves malformed leaves the text as it is.
// One per output sequence; not thread safe; keeps the tools alive.
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parse/harmony.h"
#include "parse/reasoning.h"
#include "parse/tool_parser.h"

namespace baton::parse {

struct MessageFormat {
  std::optional<Reasoning::Start> reasoning{};  // nullopt: the text has none
  ThinkTags tags{};                             // with reasoning
  std::optional<std::string> harmony{};         // the text is in that format: what the prompt has of it. Then reasoning is nullopt
  bool include_reasoning = true;                // false: it is cut out and dropped
  const ToolParserRow* tool_parser = nullptr;   // nullptr: no calls
  std::shared_ptr<const Json> tools{};          // the request's; not null with tool_parser
  bool parallel_calls = true;                   // false: the first call only
  bool short_ids = false;                       // of calls, whatever tool_parser says
  bool thinks() const { return reasoning.has_value() || harmony.has_value(); }
  bool active() const { return thinks() || tool_parser != nullptr; }
};

class MessageParser {
 public:
  explicit MessageParser(const MessageFormat& format);
  Events add(std::string_view piece);
  Events finish();                            // the answer is complete; once
  bool called() const { return calls_ > 0; }  // some call went out
  bool broken() const { return harmony_ ? harmony_->broken() : tool_parser_ && tool_parser_->broken(); }
  bool thinking() const { return harmony_ ? harmony_->thinking() : reasoning_ && reasoning_->thinking(); }

 private:
  Events pass_on(Events split, bool last);
  Events asked_for(Events events);

  MessageFormat format_;
  std::optional<Harmony> harmony_;
  std::optional<Reasoning> reasoning_;
  std::unique_ptr<ToolParser> tool_parser_;
  int calls_ = 0;
};

struct ToolCall {
  std::string name, arguments;
  std::string id{};  // "" = the model wrote none
  bool operator==(const ToolCall&) const = default;
};
struct Message {
  std::optional<std::string> reasoning{}, content{};  // nullopt: none
  std::vector<ToolCall> calls{};
  bool cut_off = false;  // the last call is not whole
  bool operator==(const Message&) const = default;
};
Message parse_message(const MessageFormat& format, std::string_view text);

}  // namespace baton::parse
