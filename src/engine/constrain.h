#pragma once
// Constraints: what requests ask their answers to be, compiled over the model's vocabulary and kept by their text. Compiling
// takes up to some 200 ms and runs on the I/O thread that asks; the step thread only walks what comes out. Any thread.
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "grammar/constraint.h"
#include "grammar/walker.h"
#include "parse/message.h"
#include "text/tokenizer.h"
#include "wire/openai.h"

namespace baton::engine {

using Constraint = std::shared_ptr<const grammar::Compiled>;  // nullptr: none

class Constraints {
 public:
  // vocab: the model's logits; the tokenizer may know fewer tokens.
  Constraints(const text::Tokenizer& tokenizer, int32_t vocab) : tokenizer_(tokenizer), vocab_(vocab) {}

  Result<Constraint> get(const grammar::Constraint& wanted);
  bool harmony() const;  // the vocabulary has the special tokens that constraints in gpt-oss's format are written with

 private:
  struct Kept {
    std::string key;
    Constraint compiled;
    size_t bytes = 0;
  };
  // Made at the first use: a start has other things to do. harmony: with that format's special tokens.
  std::shared_ptr<const grammar::Vocabulary> vocabulary(bool harmony);

  const text::Tokenizer& tokenizer_;
  const int32_t vocab_;
  std::once_flag once_[2];  // without and with harmony
  std::shared_ptr<const grammar::Vocabulary> vocabulary_[2];
  std::mutex mutex_;        // for what is below
  std::list<Kept> recent_;  // the last used one first
  std::unordered_map<std::string_view, std::list<Kept>::iterator> by_key_;
  size_t bytes_ = 0;
};

// What the fields of any request ask for; nullopt: nothing.
std::optional<grammar::Constraint> constraint_of(const wire::GenerateFields& fields);
// The same of a chat, where tool_choice may ask for calls.
std::optional<grammar::Constraint> constraint_of(const wire::ChatRequest& request);
// A constraint begins behind the thoughts; in harmony they are a part of it.
grammar::Begin begin_of(const parse::MessageFormat& format);

}  // namespace baton::engine
