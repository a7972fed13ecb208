#pragma once
// The engine's answer on its way to the client of a disaggregated request: its usage reports the prefiller's cached tokens (the
// engine saw the whole prompt arrive from elsewhere), and kv_transfer_params, which are between workers, become null. Bytes that
// hold neither pass through unchanged. Where an API says it:
//   chat, completions, generate  usage.prompt_tokens_details.cached_tokens
//   responses                    usage.input_tokens_details.cached_tokens; of a stream, in the event's `response`
//   messages                     usage.cache_read_input_tokens; of a stream, in the event's `message` or in the event
// Source: facts sheet "kv_transfer" 1.6 step 9 and section 0 (HPU seed); OpenAI's and Anthropic's API references.
#include <optional>
#include <string>
#include <string_view>

#include "sidecar/legs.h"

namespace baton::sidecar {

struct Rewrite {
  Api api = Api::kChat;
  std::optional<int64_t> cached_tokens{};  // nullopt leaves usage alone
  bool hide_kv_params = true;
};

// A whole JSON answer.
std::string rewrite_json(std::string body, const Rewrite& what);

// An SSE answer in pieces of any size. Only complete `data:` lines are looked at; an unfinished line is held until its end comes.
class StreamRewriter {
 public:
  explicit StreamRewriter(Rewrite what) : what_(what) {}
  std::string feed(std::string bytes);
  std::string finish();  // what is still held

 private:
  bool concerned(std::string_view lines) const;
  std::string rewrite_lines(std::string_view lines) const;
  Rewrite what_;
  std::string held_;
  bool passing_ = false;  // inside a line too long to hold
};

}  // namespace baton::sidecar
