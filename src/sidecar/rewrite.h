#pragma once
// The engine's answer on its way to the client of a disaggregated request: `usage` reports the prefiller's cached tokens (the
// engine saw the whole prompt arrive from elsewhere), and kv_transfer_params, which are between workers, become null. Bytes that
// hold neither pass through unchanged. Source: facts sheet "kv_transfer" 1.6 step 9 and section 0 (HPU seed).
#include <optional>
#include <string>
#include <string_view>

namespace baton::sidecar {

// A whole JSON answer. nullopt cached_tokens leaves usage alone.
std::string rewrite_json(std::string body, std::optional<int64_t> cached_tokens);

// An SSE answer in pieces of any size. Only complete `data:` lines are looked at; an unfinished line is held until its end comes.
class StreamRewriter {
 public:
  explicit StreamRewriter(std::optional<int64_t> cached_tokens) : cached_tokens_(cached_tokens) {}
  std::string feed(std::string bytes);
  std::string finish();  // what is still held

 private:
  std::string rewrite_lines(std::string_view lines) const;
  std::optional<int64_t> cached_tokens_;
  std::string held_;
  bool passing_ = false;  // inside a line too long to hold
};

}  // namespace baton::sidecar
