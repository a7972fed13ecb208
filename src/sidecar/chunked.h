#pragma once
// Chunked decode: a chat completion in several calls of at most --decode-chunk-size tokens, each going on from the text of those
// before, so that long answers leave room for others and can be moved between calls. Pure functions of the texts.
// Not done where it cannot be: several choices, tools, structured output, a message that the client wants continued.
// Source: facts sheet "kv_transfer" 1.12.
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace baton::sidecar {

class ChunkedAnswer {
 public:
  // body must outlive it; nullopt if one call does.
  static std::optional<ChunkedAnswer> plan(std::string_view body, const Json& root, int chunk_tokens);

  bool stream() const { return stream_; }
  bool more() const { return !done_; }
  std::string next_body() const;           // of the next call
  Result<> take(std::string_view answer);  // its answer, JSON
  std::string event();                     // what a stream's client is sent of it, blank line included
  std::string last_events() const;         // usage if it was asked for, [DONE]
  std::string whole() const;               // the answer in one piece

 private:
  ChunkedAnswer(std::string_view body, const Json& root, int chunk) : body_(body), root_(&root), chunk_(chunk) {}
  std::string usage() const;

  std::string_view body_;
  const Json* root_;
  int chunk_;
  bool stream_ = false, wants_usage_ = false, done_ = false;
  int64_t limit_ = -1, min_tokens_ = 0;  // -1 = none
  int64_t tokens_ = 0;
  int calls_ = 0;
  std::string text_, new_text_;                    // of all calls; of the last
  std::string first_, last_;                       // answers
  std::string finish_reason_, logprobs_ = "null";  // JSON
};

}  // namespace baton::sidecar
