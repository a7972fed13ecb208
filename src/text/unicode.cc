#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <vector>

namespace baton::text {
namespace {

struct CodeRange {
  char32_t first, last;
};
struct StandInRange {
  char32_t first, last, stand_in;
};
#include "text/unicode_tables.inc"

// The range of a sorted table that holds c, nullptr if none.
template <class Range, size_t N>
const Range* find_range(const Range (&table)[N], char32_t c) {
  auto it = std::upper_bound(std::begin(table), std::end(table), c, [](char32_t v, const Range& r) { return v < r.first; });
  return it != std::begin(table) && c <= std::prev(it)->last ? &*std::prev(it) : nullptr;
}

// Two-stage table: page number by the upper bits, class by the low 8 bits; equal pages are shared, so it fits in L2.
class ClassTable {
 public:
  ClassTable() {
    std::vector<uint8_t> flat(kCodePoints, kOther);
    fill(flat, kLetterRanges, kLetter);
    fill(flat, kNumberRanges, kNumber);
    fill(flat, kSpaceRanges, kSpace);
    for (size_t p = 0; p < page_.size(); ++p) {
      Page page;
      std::copy_n(flat.begin() + static_cast<ptrdiff_t>(p * page.size()), page.size(), page.begin());
      auto it = std::find(pages_.begin(), pages_.end(), page);
      page_[p] = static_cast<uint16_t>(it - pages_.begin());
      if (it == pages_.end()) pages_.push_back(page);
    }
  }
  CodeClass at(char32_t c) const { return c < kCodePoints ? static_cast<CodeClass>(pages_[page_[c >> 8]][c & 0xff]) : kOther; }

 private:
  using Page = std::array<uint8_t, 256>;
  static constexpr size_t kCodePoints = 0x110000;
  template <size_t N>
  static void fill(std::vector<uint8_t>& flat, const CodeRange (&ranges)[N], CodeClass c) {
    for (const CodeRange& r : ranges) std::fill(flat.begin() + r.first, flat.begin() + r.last + 1, c);
  }
  std::array<uint16_t, kCodePoints / 256> page_{};
  std::vector<Page> pages_;
};

}  // namespace

CodeClass code_class(char32_t c) {
  static const ClassTable table;
  return table.at(c);
}

bool is_digits_only(char32_t c) { return find_range(kDigitsOnlyRanges, c) != nullptr; }

bool is_nfc_unknown(char32_t c) { return find_range(kNfcUnknownRanges, c) != nullptr; }

char32_t older_stand_in(char32_t c) {
  const StandInRange* r = find_range(kStandInRanges, c);
  return r == nullptr ? 0 : r->stand_in;
}

char32_t lower_case(char32_t c) {
  if (const StandInRange* r = find_range(kLowerRanges, c)) return r->stand_in + (c - r->first);
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

bool is_word(char32_t c) {
  if (code_class(c) == kLetter) return true;
  // Other_Alphabetic outside marks is the enclosed Latin letters.
  if ((c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
      (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c || c == 0x200d) {
    return true;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

Utf8Step utf8_step(std::string_view s, size_t i) {
  auto lead = static_cast<unsigned char>(s[i]);
  if (lead < 0x80) return {Utf8Step::kValid, 1};
  if (lead < 0xc2 || lead > 0xf4) return {Utf8Step::kInvalid, 1};
  size_t need = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (size_t k = 1; k < need; ++k) {
    if (i + k >= s.size()) return {Utf8Step::kTruncated, k};
    auto b = static_cast<unsigned char>(s[i + k]);
    unsigned lo = 0x80, hi = 0xbf;
    if (k == 1) {  // no overlongs, no surrogates, nothing past U+10FFFF
      if (lead == 0xe0) lo = 0xa0;
      if (lead == 0xed) hi = 0x9f;
      if (lead == 0xf0) lo = 0x90;
      if (lead == 0xf4) hi = 0x8f;
    }
    if (b < lo || b > hi) return {Utf8Step::kInvalid, k};
  }
  return {Utf8Step::kValid, need};
}

size_t first_invalid_utf8(std::string_view s) {
  size_t i = 0;
  while (i < s.size()) {
    Utf8Step step = utf8_step(s, i);
    if (step.kind != Utf8Step::kValid) break;
    i += step.length;
  }
  return i;
}

std::string replace_invalid_utf8(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    Utf8Step step = utf8_step(s, i);
    out += step.kind == Utf8Step::kValid ? s.substr(i, step.length) : kReplacementCharacter;
    i += step.length;
  }
  return out;
}

}  // namespace baton::text
