#pragma once
// Answer: the text side of one output sequence: token events in, text, logprob rows and the stop reason out. Detokenises, finds
// stop strings, and knows what the client asked to see. Lives on the request's I/O thread.
#include <memory>
#include <string>
#include <vector>

#include "engine/request.h"
#include "text/detokenizer.h"
#include "wire/openai.h"
#include "wire/openai_response.h"

namespace baton::engine {

std::string token_string(const text::Tokenizer& tokenizer, int32_t id, bool as_id);
wire::LogprobRow logprob_row(const text::Tokenizer& tokenizer, const LogprobTable& table, bool as_ids);
std::string_view finish_name(Finish finish);

class Answer {
 public:
  Answer(const text::Tokenizer& tokenizer, const wire::GenerateFields& fields, int32_t index);

  // What one event adds: text (maybe ""), its rows and ids. Sets done() on the last. Events after done() must not come here.
  struct Piece {
    std::string text;
    std::vector<wire::LogprobRow> rows;
    std::vector<int32_t> ids;
  };
  Piece add(const TokenEvent& event);
  bool done() const { return done_; }
  bool stopped_by_string() const { return stop_.stop_string.has_value(); }
  int32_t index() const { return index_; }
  int32_t tokens() const { return tokens_; }
  const wire::Stop& stop() const { return stop_; }

 private:
  const text::Tokenizer& tokenizer_;
  const bool want_rows_, as_ids_, include_stop_;
  const int32_t index_;
  text::Detokenizer detokenizer_;
  int32_t tokens_ = 0;
  bool done_ = false;
  wire::Stop stop_;
};

}  // namespace baton::engine
