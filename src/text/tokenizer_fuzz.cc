// Input: a tokenizer.json, a zero byte, a text. With no zero byte the whole input is text for built-in tokenizers.
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
  auto loaded = Tokenizer::from_hf(input.substr(0, cut), "");
  if (loaded) check(**loaded, input.substr(cut + 1), false);
  return 0;
}
