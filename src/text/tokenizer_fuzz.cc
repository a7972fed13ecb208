// Input: a text for built-in tokenizers; or a tokenizer.json, a zero byte and a text; or, parted by zero bytes, a normalizer, a
// pre-tokenizer and a text, which reaches deeper.
// Properties: byte-level tokens of a text decode to that text; ids lie inside the vocabulary; text that is not UTF-8 is refused.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/testing/tiny_tokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

using namespace baton;
using namespace baton::text;

namespace {

void require(bool yes) {
  if (!yes) std::abort();
}

void check(const Tokenizer& t, std::string_view text, bool round_trips) {
  auto ids = t.encode(text, true);
  require(first_invalid_utf8(text) == text.size() || !ids);
  if (!ids) return;
  for (TokenId id : *ids) require(id >= 0 && id < t.vocab_size());
  std::string decoded = t.decode(*ids, false);
  require(first_invalid_utf8(decoded) == decoded.size());
  if (round_trips) require(decoded == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  static const auto llama = *Tokenizer::from_gguf(text::testing::tiny_gguf("llama-bpe"));
  static const auto smollm = *Tokenizer::from_gguf(text::testing::tiny_gguf("smollm"));
  static const auto deepseek = *Tokenizer::from_gguf(text::testing::tiny_gguf("deepseek-v3"));
  size_t cut = input.find('\0');
  if (cut == std::string_view::npos) {
    for (const auto* t : {&llama, &smollm, &deepseek}) check(**t, input, true);
    return 0;
  }
  std::string_view first = input.substr(0, cut), text = input.substr(cut + 1);
  std::string json(first);
  if (size_t second = text.find('\0'); second != std::string_view::npos) {
    json = text::testing::tiny_json({.normalizer = json, .pre_tokenizer = std::string(text.substr(0, second))});
    text.remove_prefix(second + 1);
  }
  auto loaded = Tokenizer::from_hf(json, "");
  if (loaded) check(**loaded, text, false);
  return 0;
}
