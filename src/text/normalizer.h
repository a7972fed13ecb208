#pragma once
// Normalizer: what a tokenizer.json does to text before it is split into words.
// Supported: NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace (string or regex), Sequence. Anything else is an error
// naming it. NFC equals Hugging Face's, whose Unicode data is older than ours (unicode.h, is_nfc_unknown). Immutable: any thread.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/regex.h"

namespace baton::text {

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  static Result<Normalizer> from_json(const Json& spec);
  static Normalizer nfc();

  bool changes_nothing() const { return steps_.empty(); }
  Result<std::string> apply(std::string_view text) const;  // text must be UTF-8

 private:
  enum class Kind : uint8_t { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kStrip, kPrepend, kReplace };
  struct Step {
    Kind kind;
    std::string pattern = {};                 // kReplace with a string
    std::shared_ptr<const Regex> regex = {};  // kReplace with a regex
    std::string text = {};                    // kPrepend, kReplace: what is put in
    bool left = true, right = true;           // kStrip
  };
  static Result<> add(const Json& spec, std::vector<Step>& steps);
  static Result<std::string> apply(const Step& step, std::string_view text);

  std::vector<Step> steps_;
};

}  // namespace baton::text
