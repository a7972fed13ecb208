#include "engine/answer.h"

namespace baton::engine {

std::string token_string(const text::Tokenizer& tokenizer, int32_t id, bool as_id) {
  return as_id ? cat("token_id:", id) : tokenizer.decode({&id, 1}, false);
}

wire::LogprobRow logprob_row(const text::Tokenizer& tokenizer, const LogprobTable& table, bool as_ids) {
  wire::LogprobRow row;
  row.reserve(table.size());
  for (const TokenLogprob& t : table) {
    std::string token = token_string(tokenizer, t.id, as_ids);
    std::string bytes(tokenizer.token_bytes(t.id));  // exact where the text had to replace half a character
    if (bytes.empty() || as_ids) bytes = token;
    row.push_back({t.id, std::move(token), std::move(bytes), t.logprob, t.rank});
  }
  return row;
}

std::string_view finish_name(Finish finish) {
  switch (finish) {
    case Finish::kNone:
      return "";
    case Finish::kStop:
      return "stop";
    case Finish::kLength:
      return "length";
    case Finish::kAbort:
      return "abort";
    case Finish::kError:
      return "error";
    case Finish::kCacheThreshold:
      return "cache_threshold";
    case Finish::kRepetition:
      return "repetition";
  }
  return "";
}

Answer::Answer(const text::Tokenizer& tokenizer, const wire::GenerateFields& f, int32_t index)
    : tokenizer_(tokenizer),
      want_rows_(f.logprobs.has_value()),
      as_ids_(f.return_tokens_as_token_ids),
      include_stop_(f.include_stop_str_in_output),
      index_(index),
      detokenizer_(tokenizer, {.skip_special = f.skip_special_tokens,
                               .stop = f.stop,
                               .include_stop = f.include_stop_str_in_output,
                               .min_tokens = f.min_tokens}) {}

Answer::Piece Answer::add(const TokenEvent& event) {
  Piece piece;
  if (event.token) {
    ++tokens_;
    piece.ids.push_back(*event.token);
    if (want_rows_) piece.rows.push_back(logprob_row(tokenizer_, event.logprobs, as_ids_));
    // The end-of-sequence token is counted but is no text.
    const bool end_token = event.finish == Finish::kStop && !event.stop_token && !include_stop_;
    if (!end_token) piece.text = detokenizer_.add(*event.token);
  }
  if (detokenizer_.stopped()) {
    stop_ = {.finish_reason = "stop", .stop_string = *detokenizer_.stopped()};
    done_ = true;
  } else if (event.finish != Finish::kNone) {
    piece.text += detokenizer_.finish();
    if (detokenizer_.stopped())
      stop_ = {.finish_reason = "stop", .stop_string = *detokenizer_.stopped()};
    else
      stop_ = {.finish_reason = std::string(finish_name(event.finish)), .stop_token = event.stop_token};
    if (event.finish == Finish::kRepetition && !detokenizer_.stopped()) stop_.stop_string = "repetition_detected";
    done_ = true;
  }
  return piece;
}

}  // namespace baton::engine
