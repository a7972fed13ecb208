// Any bytes: the reader accepts or refuses, and what it accepts survives being written from its raw ranges and read again.
#include <cstddef>
#include <cstdint>

#include "base/json.h"

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
  if (auto j = baton::parse_json(text)) check_ranges(*j, text);
  return 0;
}
