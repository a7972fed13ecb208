// Input: a byte of options, a byte of stop strings' lengths, the stop strings, then the stream, one token a byte.
// Properties: every piece is UTF-8; without stop strings the pieces join to the text with broken bytes replaced; with them the
// text holds no whole stop string (nor one more than at its end, if it is included).
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/detokenizer.h"
#include "text/testing/tiny_tokenizer.h"
#include "text/unicode.h"

using namespace baton;
using namespace baton::text;

namespace {

void require(bool yes) {
  if (!yes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizer = *Tokenizer::from_gguf(text::testing::tiny_gguf("gpt-2"));
  if (size < 2) return 0;
  DetokenizerOptions options{.include_stop = (data[0] & 1) != 0};
  size_t lengths[] = {data[1] & 7u, data[1] >> 3 & 7u};
  std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
  for (size_t n : lengths) {
    std::string stop(rest.substr(0, n));
    rest.remove_prefix(std::min(n, rest.size()));
    if (!stop.empty() && first_invalid_utf8(stop) == stop.size()) options.stop.push_back(stop);
  }
  Detokenizer d(*tokenizer, options);
  std::string out;
  for (char c : rest) {
    std::string piece = d.add(static_cast<unsigned char>(c));
    require(first_invalid_utf8(piece) == piece.size());
    out += piece;
    if (d.stopped()) break;
  }
  out += d.finish();
  if (!d.stopped()) require(out == replace_invalid_utf8(rest));
  std::string_view visible = out;
  if (d.stopped() && options.include_stop) {
    require(out.ends_with(*d.stopped()));
    visible.remove_suffix(1);
  }
  for (const std::string& s : options.stop) {
    // The replacement of bytes that end the stream comes after the last search.
    if (s.find(kReplacementCharacter) == std::string::npos) require(visible.find(s) == std::string_view::npos);
  }
  return 0;
}
