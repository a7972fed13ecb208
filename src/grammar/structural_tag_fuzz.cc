// Input: a byte that seeds the walk, then a structural tag. Properties: testing/fuzz_walk.h.
#include "grammar/testing/fuzz_walk.h"

using namespace baton;
using namespace baton::grammar;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 4096) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto json = parse_json(text, {.bytes_max = 1 << 16, .depth_max = 128});
  if (!json) return 0;
  grammar::testing::fuzz_walk({.kind = Constraint::Kind::kStructuralTag, .schema = *std::move(json)}, data[0]);
  return 0;
}
