#pragma once
// PreTokenizer: cuts normalised text into the words inside which BPE merges.
// Supported: Split (string or regex, all behaviours), Digits, ByteLevel, Metaspace, Whitespace, WhitespaceSplit, Punctuation,
// Sequence; anything else is an error naming it. A regex that a real model family uses runs as a hand-written scanner, others
// through PCRE2. ByteLevel's byte alphabet is left to the model (bpe.h works on raw bytes), so it must be the last stage.
// Immutable: any thread.
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/regex.h"
#include "text/scanner.h"

namespace baton::text {

class PreTokenizer {
 public:
  // Words of one text. They point into the text or into storage here (stages that change text).
  struct Words {
    std::vector<std::string_view> words;
    std::deque<std::string> storage;
    std::vector<std::string_view> scratch;
  };

  PreTokenizer() = default;  // the whole text is one word
  static Result<PreTokenizer> from_json(const Json& spec);
  // By GGUF name ("llama-bpe", "qwen2", ...); an unknown name is an error that lists the known ones.
  static Result<PreTokenizer> from_gguf(std::string_view pre);

  bool byte_level() const { return byte_level_; }
  // first: this text starts the input (Metaspace's prepend_scheme "first" asks). Appends nothing for empty words.
  Result<> split(std::string_view text, bool first, Words& out) const;

 private:
  enum class Behavior : uint8_t { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct RegexSplit {
    Regex regex;
    Behavior behavior;
    bool invert;
  };
  struct PrefixSpace {};  // ByteLevel's add_prefix_space
  struct Metaspace {
    std::string replacement;
    enum class Prepend : uint8_t { kAlways, kNever, kFirst } prepend;
    bool split;
  };
  using Stage = std::variant<ScanRule, RegexSplit, PrefixSpace, Metaspace>;

  Result<> add(const Json& spec);
  Result<> add_split(const Json& spec);
  Result<> add_byte_level(const Json& spec);
  Result<> add_metaspace(const Json& spec);
  Result<> add_regex(std::string_view pattern, Behavior behavior, bool invert = false);
  static Result<Behavior> behavior_named(std::string_view name);
  static Result<> run(const Stage& stage, std::string_view word, bool first, Words& out);
  static Result<> run(const RegexSplit& stage, std::string_view word, Words& out);

  std::vector<Stage> stages_;
  bool byte_level_ = false;
};

}  // namespace baton::text
