#pragma once
// Detokenizer: token ids to text as they come, never emitting half a character, with stop strings held back.
// One per output sequence; not thread safe. Source: facts sheet "engine" 1.7.
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace baton::text {

struct DetokenizerOptions {
  bool skip_special = true;
  std::vector<std::string> stop = {};  // stop strings, none empty
  bool include_stop = false;           // keep the stop string in the text
  int min_tokens = 0;                  // stop strings are ignored before this many tokens
};

class Detokenizer {
 public:
  // What a request asked for: no stop string is empty or longer than kStopStringBytesMax.
  static Result<> check(const DetokenizerOptions& options);
  Detokenizer(const Tokenizer& tokenizer, DetokenizerOptions options);
  // Adds one token; returns text that is now safe to send (maybe ""). When a stop string completes, stopped() names it and the
  // text ends before it (or after it with include_stop).
  std::string add(TokenId id);
  std::string finish();  // what is held back; incomplete bytes become U+FFFD
  const std::optional<std::string>& stopped() const { return stopped_; }

 private:
  void find_stop(size_t before);
  std::string release(bool final);
  const Tokenizer& tokenizer_;
  DetokenizerOptions options_;
  size_t hold_back_ = 0;  // longest stop string - 1
  int tokens_ = 0;
  bool strip_space_;     // the next piece is the first (SentencePiece-style vocabularies)
  std::string bytes_;    // tail that is not yet a whole character
  std::string pending_;  // whole characters held back for stop strings
  std::optional<std::string> stopped_;
};

}  // namespace baton::text
