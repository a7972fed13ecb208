#pragma once
// Resume: carries one event stream over the loss of its worker. It follows an answer as it passes (whole events, bytes untouched,
// well under a microsecond an event); when the worker is lost it says what another one is asked for, and rewrites that one's
// events so that the client sees one stream: id, created and model of the first, usage of both, one role, one end. The question
// is the original request with the text so far: at the end of `prompt` (/v1/completions) or as final message with
// continue_final_message (/v1/chat/completions), max_tokens and min_tokens less what was sent.
// Where the worker was asked for token ids (asking_ids()), they are taken out of what the client sees, and say exactly what was
// sampled: a completion then goes on from these ids, and the count of what was sent is theirs.
// Guarantees: the client never sees half an event, nor text twice. Refuses what it cannot continue faithfully, with the reason:
// see unfit() in resume_body.cc and docs/adr/0009. Requires: one thread. Pure. Source: facts sheet "engine" 1.3-1.6.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace baton::gateway {

class Resume {
 public:
  enum class Api : uint8_t { kCompletions, kChat };
  // asked_ids: the worker got what asking_ids() made of the request.
  explicit Resume(Api api, bool asked_ids = false) : api_(api), asked_ids_(asked_ids), ids_good_(asked_ids) {}
  // The request with return_token_ids, for a stream that could be continued; "" = forward it as it is.
  static std::string asking_ids(Api api, std::string_view body);

  // What the client gets for these bytes of the worker's answer; valid until the next call, as long as `bytes` is.
  std::string_view pass(std::string_view bytes);
  std::string_view flush();                    // the worker's answer is whole: what is still held
  bool complete() const { return complete_; }  // [DONE] has passed
  // The worker ended its stream by an error that another one may not have (5xx). The event is held back; no more bytes are taken.
  bool failed() const { return !failure_.empty(); }
  std::string_view failure() const { return failure_; }

  // Bodies for /tokenize of the next worker: with the text so far, and without. The difference is what was sent, unless the text
  // reads back as other tokens than were sampled.
  struct Question {
    std::string with, without;  // both "": nothing was sent, there is nothing to count
  };
  struct Count {
    int64_t prompt = 0, sent = 0;
    bool by_ids = false;  // from count_ids(): exact
  };
  // body: the request as it was forwarded. An error says why this stream cannot be continued.
  Result<Question> ask(std::string_view body) const;
  // Bodies for /detokenize: the ids of what was sent behind the prompt's last ones, and those alone; "" if the ids are not known.
  // spoken: without those that came with no text, as special tokens do, which /detokenize would write; "" if there are none.
  Question ask_ids(std::string_view body, bool spoken) const;
  // From its answers. nullopt: the ids are not those of the text (an engine may hold text back that has been sampled).
  std::optional<Count> count_ids(std::string_view with, std::string_view without) const;
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
  Seen read_event(std::string_view event);
  std::string_view without_ids(std::string_view event);
  void note_ids(bool text_grew);
  bool fast_event(std::string_view event);
  Seen slow_event(std::string_view event, std::string_view data);
  void note_text(std::string_view escaped);
  void give_up(std::string_view why);
  Seen rewrite(std::string_view data, const Chunk& chunk);
  void swallow(std::string& text);
  std::string finish_event() const;
  std::string usage_event(int64_t prompt) const;

  const Api api_;
  const bool asked_ids_;
  bool ids_good_;  // every token of text_ has its id in ids_
  bool complete_ = false, role_sent_ = false, finished_ = false, usage_sent_ = false;
  int leg_ = 0;
  std::string_view unfit_;  // why not, "" = it can be continued
  std::string held_, joined_, out_;
  std::string first_, last_;  // JSON of the first and the last event passed on
  std::string text_;          // sent so far, its JSON escapes kept
  int64_t text_events_ = 0;
  std::string failure_;
  std::string overlap_;  // what this leg says again
  int64_t sent_ = 0;     // tokens of earlier legs
  int64_t read_back_ = 0;                 // how many this leg's prompt has for them, where prompt_tokens_ is not known
  std::optional<int64_t> prompt_tokens_;  // of the client's own prompt
  std::string cut_;                       // an event without its ids
  std::vector<int32_t> event_prompt_ids_, event_ids_;
  std::vector<int32_t> prompt_ids_, ids_, spoken_ids_;  // spoken: of events with text
  size_t settled_ = 0;  // the first of ids_, up to the last event with text: what came later may be text that is held back
};

}  // namespace baton::gateway
