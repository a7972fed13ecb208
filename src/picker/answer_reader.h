#pragma once
// AnswerReader: what the picker wants to know of an answer while it passes: token counts, when tokens came, and the client's name of
// the model put back. Server-sent events and plain JSON; OpenAI's chat, completions, responses, embeddings and Anthropic's messages.
// It looks for a few quoted words (which cannot occur inside a JSON string, where their quotes would be escaped), parses nothing else,
// and holds back at most the beginning of a word that the next piece may complete.
// Any split gives the same bytes and the same usage. Broken answers pass as they are. Threads: the Flight's.
// Source: facts sheet "epp" 1.5.
#include <cstdint>
#include <string>
#include <string_view>

#include "picker/body_limits.h"

namespace baton::picker {

struct Usage {
  int64_t prompt = 0, completion = 0, total = 0, cached = 0;
  bool seen = false;
  bool cached_seen = false;  // the engine reports cached tokens at all
  bool operator==(const Usage&) const = default;
};

struct AnswerOptions {
  bool stream = false;        // content-type text/event-stream
  bool usage = true;
  std::string served{}, asked{};  // the engine's name of the model and the client's; equal or empty: nothing is replaced
};

class AnswerReader {
 public:
  AnswerReader() = default;
  explicit AnswerReader(AnswerOptions options);
  // The bytes to pass on: the same view unless names are replaced; valid until the next call. After last nothing is held back.
  std::string_view pass(std::string_view bytes, bool last);
  // Events with output of the model that the last pass() completed; 0 for JSON. The first ever is the first token.
  int events() const { return events_; }
  int64_t events_total() const { return events_total_; }
  bool done() const { return done_; }  // [DONE], response.completed or message_stop was seen
  const Usage& usage() const { return usage_; }

 private:
  void look(std::string_view bytes, bool last);
  void line(std::string_view text);
  void hold_line(std::string_view part);
  void take_usage(std::string_view text);
  std::string_view rename(std::string_view bytes, bool last);
  size_t rename_into(std::string_view bytes, bool last);

  AnswerOptions options_;
  bool renames_ = false, done_ = false;
  int events_ = 0;
  int64_t events_total_ = 0;
  Usage usage_;
  std::string line_;            // the unfinished line, or a JSON answer's tail
  std::string find_, replace_;  // "served" and "asked" in quotes
  std::string held_, out_;
};

}  // namespace baton::picker
