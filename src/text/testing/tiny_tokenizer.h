#pragma once
// Small tokenizers for tests and fuzzers: the 256 byte tokens, two special tokens, and the merges one names.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace baton::text::testing {

// Bytes in the byte-level alphabet: " a" -> "Ġa".
std::string alphabet(std::string_view bytes);

struct TinyJson {
  std::vector<std::pair<std::string, std::string>> merges = {};
  std::string normalizer = "null";
  std::string pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})";
  std::string post_processor = "null";
  std::string decoder = R"({"type":"ByteLevel"})";
};
std::string tiny_json(const TinyJson& parts);

// Ids 0-255 bytes, 256 <|im_start|>, 257 <|im_end|>, then one token a merge of a handful of English words.
GgufVocab tiny_gguf(std::string_view pre);

}  // namespace baton::text::testing
