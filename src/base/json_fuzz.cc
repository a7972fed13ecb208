// Any bytes: the reader accepts or refuses, and what it accepts survives being written from its raw ranges and read again.
#include <cstddef>
#include <cstdint>

#include "base/json.h"
#include "base/json_outline.h"

namespace {
void check_ranges(const baton::Json& j, std::string_view text) {
  BATON_CHECK(j.begin <= j.end && j.end <= text.size());
  auto again = baton::parse_json(j.raw(text));
  BATON_CHECK(again && again->kind == j.kind && again->text == j.text && again->items.size() == j.items.size());
  if (j.is_string()) BATON_CHECK(baton::parse_json(baton::json_string(j.text))->text == j.text);
  for (const auto& item : j.items) {
    if (item.items.empty()) check_ranges(item, text);
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto j = baton::parse_json(text);
  if (j) check_ranges(*j, text);
  // The outline accepts the same texts, and what it keeps is the same.
  auto outline = baton::outline_json(text, {.depth = 1, .string_bytes_max = 3});
  BATON_CHECK(outline.has_value() == j.has_value());
  if (!j) return 0;
  BATON_CHECK(outline->keys == j->keys && outline->begin == j->begin && outline->end == j->end);
  BATON_CHECK(outline->items.size() == j->items.size());
  for (size_t i = 0; i < j->items.size(); ++i) {
    const baton::Json &kept = outline->items[i], &whole = j->items[i];
    BATON_CHECK(kept.begin == whole.begin && kept.end == whole.end && kept.kind == whole.kind && kept.items.empty());
    BATON_CHECK(!kept.is_string() || kept.text == (whole.end - whole.begin - 2 > 3 ? "" : whole.text));
  }
  return 0;
}
