#pragma once
// Resume: carries one event stream over the loss of its worker. It follows an answer as it passes (whole events, bytes untouched,
// well under a microsecond an event); when the worker is lost it says what another one is asked for, and rewrites that one's
// events so that the client sees one stream: id, created and model of the first, usage of both, one role, one end. The question
// is the original request with the text so far: at the end of `prompt` (/v1/completions) or as final message with
// continue_final_message (/v1/chat/completions), max_tokens and min_tokens less what was sent.
// Guarantees: the client never sees half an event, nor text twice. Refuses what it cannot continue faithfully, with the reason:
// see unfit() in resume_body.cc and docs/adr/0009. Requires: one thread. Pure. Source: facts sheet "engine" 1.3-1.6.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace baton::gateway {

class Resume {
 public:
  enum class Api : uint8_t { kCompletions, kChat };
  explicit Resume(Api api) : api_(api) {}

  // What the client gets for these bytes of the worker's answer; valid until the next call, as long as `bytes` is.
  std::string_view pass(std::string_view bytes);
  std::string_view flush();                    // the worker's answer is whole: what is still held
  bool complete() const { return complete_; }  // [DONE] has passed
  // The worker ended its stream by an error that another one may not have (5xx). The event is held back; no more bytes are taken.
  bool failed() const { return !failure_.empty(); }
  std::string_view failure() const { return failure_; }

  // Bodies for /tokenize of the next worker: with the text so far, and without. The difference is what was sent.
  struct Question {
    std::string with, without;  // both "": nothing was sent, there is nothing to count
  };
  struct Count {
    int64_t prompt = 0, sent = 0;
  };
  // body: the request as it was forwarded. An error says why this stream cannot be continued.
  Result<Question> ask(std::string_view body) const;
  struct Next {
    std::string body;  // for another worker; "" = only `tail` is missing
    std::string tail;  // ends the client's stream
  };
  // After ask(). Without a count every event with text counts as one token, which is how engines write them.
  Next next(std::string_view body, std::optional<Count> count);

 private:
  enum class Seen : uint8_t { kPass, kSkip, kHold };
  struct Chunk;  // the JSON of an event, read

  Seen event(std::string_view event);
  bool fast_event(std::string_view event);
  Seen slow_event(std::string_view event, std::string_view data);
  void note_text(std::string_view escaped);
  void give_up(std::string_view why);
  Seen rewrite(std::string_view data, const Chunk& chunk);
  void swallow(std::string& text);
  std::string finish_event() const;
  std::string usage_event(int64_t prompt) const;

  const Api api_;
  bool complete_ = false, role_sent_ = false, finished_ = false, usage_sent_ = false;
  int leg_ = 0;
  std::string_view unfit_;  // why not, "" = it can be continued
  std::string held_, joined_, out_;
  std::string first_, last_;  // JSON of the first and the last event passed on
  std::string text_;          // sent so far, its JSON escapes kept
  int64_t text_events_ = 0;
  std::string failure_;
  std::string overlap_;  // what this leg says again
  int64_t sent_ = 0;       // tokens of earlier legs
  int64_t read_back_ = 0;  // how many this leg's prompt has for them
};

}  // namespace baton::gateway
