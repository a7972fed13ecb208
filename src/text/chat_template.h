#pragma once
// ChatTemplate: the Jinja subset that real chat templates use (facts sheet "engine" 4.6), compiled once, rendered per request.
// Sandboxed: no I/O, bounded steps, depth and output (text/limits.h). Immutable: render() from any thread.
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace baton::text {

class ChatTemplate {
 public:
  static Result<ChatTemplate> compile(std::string_view source);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();
  // variables: a JSON object {messages, tools, add_generation_prompt, bos_token, ...}. raise_exception() in the template becomes
  // kInvalidArgument with its message.
  Result<std::string> render(const Json& variables) const;
  // True if the template loops over message.content itself ("openai" content format), false if it wants strings.
  bool wants_content_parts() const;
  bool harmony() const;  // it is gpt-oss's, or one that writes messages as it does

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::text
