#pragma once
// Code points: UTF-8 stepping and the classes that pre-tokenizers split by.
// Guarantees: letter, number and space are \p{L}, \p{N} and \s exactly as Hugging Face `tokenizers` sees them (Unicode 16),
// because one code point classed otherwise changes token ids. Immutable tables: any thread. Source: RFC 3629; Unicode 3.9, table
// 3-7 and "maximal subpart" (how many U+FFFD replace broken bytes, as Python and Rust do).
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace baton::text {

enum CodeClass : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 4 };

CodeClass code_class(char32_t c);
bool is_word(char32_t c);         // \w of Rust's regex crate: alphabetic, mark, decimal digit, connector, join control
bool is_digits_only(char32_t c);  // a number to the reference's Digits rule although not \p{N} to its regex engine
bool is_nfc_unknown(char32_t c);  // assigned after the Unicode version of the reference's NFC, which passes it through

// The nearest code point of Unicode 14 with c's category and UTF-8 length if c is newer than that, else 0.
char32_t older_stand_in(char32_t c);

char32_t lower_case(char32_t c);  // the simple mapping

struct CodePoint {
  char32_t value = 0;
  uint32_t length = 0;  // bytes; 0 at the end of the text
};

// The code point at s[i]. Requires: s is valid UTF-8 and i is on a boundary (or the end).
inline CodePoint code_point_at(std::string_view s, size_t i) {
  if (i >= s.size()) return {};
  auto b = [&](size_t k) { return static_cast<unsigned char>(s[i + k]); };
  unsigned char lead = b(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {static_cast<char32_t>((lead & 0x1f) << 6 | (b(1) & 0x3f)), 2};
  if (lead < 0xf0) return {static_cast<char32_t>((lead & 0x0f) << 12 | (b(1) & 0x3f) << 6 | (b(2) & 0x3f)), 3};
  return {static_cast<char32_t>((lead & 0x07) << 18 | (b(1) & 0x3f) << 12 | (b(2) & 0x3f) << 6 | (b(3) & 0x3f)), 4};
}

// Start of the code point that ends at s[i], i > 0.
inline size_t code_point_before(std::string_view s, size_t i) {
  do --i;
  while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xc0) == 0x80);
  return i;
}

struct Utf8Step {
  enum Kind : uint8_t { kValid, kTruncated, kInvalid } kind;  // kTruncated: a good start that ends with the text
  size_t length;                                              // of the character, or of the maximal subpart to replace
};
Utf8Step utf8_step(std::string_view s, size_t i);  // s: any bytes, i < s.size()

// s with every maximal ill-formed subpart replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view s);
// Byte offset of the first ill-formed sequence, s.size() if there is none.
size_t first_invalid_utf8(std::string_view s);

inline constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";

}  // namespace baton::text
