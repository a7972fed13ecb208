#pragma once
// ChatBody: the body of a /v1/chat/completions request that asks for the same as a request of another API. Such an API's parser
// writes one and hands it to parse_chat_request(), so that every check, default and feature is that of the one chat path.
// Values are copied as the client wrote them; `source` is the text that `body` was parsed from. Pure.
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/result.h"

namespace baton::wire {

std::string text_member(const Json& object, std::string_view key);  // "" if it is no text
bool is_blank(std::string_view text);                               // nothing but white space
// Raw text of a value that is there and not null, else "".
std::string_view raw_member(const Json& object, std::string_view source, std::string_view key);
// Writes those members of `from` that are there and not null, each under its second name.
void copy_members(JsonWriter& w, const Json& from, std::string_view source,
                  std::initializer_list<std::pair<std::string_view, std::string_view>> from_to);

// The text of a content: a string, or a list of parts that hold text (text, input_text, output_text, refusal), put one after the
// other. An image or a file is an error in vLLM's words. where: for messages of errors.
Result<std::string> content_text(const Json& content, std::string_view where);

// An assistant's message that several items make up together: what it thought, what it said, what it called.
class AssistantMessage {
 public:
  bool empty() const { return !has_text_ && reasoning_.empty() && calls_.empty(); }
  bool has_text() const { return has_text_; }
  bool has_reasoning() const { return !reasoning_.empty(); }
  void text(std::string_view text) { text_ += text, has_text_ = true; }
  void reasoning(std::string_view text) { reasoning_ += text; }
  void call(std::string_view id, std::string_view name, std::string_view arguments);
  std::string take();  // JSON; empty again after it

 private:
  std::string text_, reasoning_, calls_;  // calls_: JSON, comma separated
  bool has_text_ = false;
};

// {"type":"function","function":{...}}; description, parameters: JSON, or "" = none.
void write_function_tool(JsonWriter& w, std::string_view name, std::string_view description, std::string_view parameters);
void write_named_choice(JsonWriter& w, std::string_view name);

}  // namespace baton::wire
