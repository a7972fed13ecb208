// Input: a byte that seeds the walk, then a JSON Schema. Properties: testing/fuzz_walk.h.
#include "grammar/testing/fuzz_walk.h"

using namespace baton::grammar;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return testing::fuzz_json(Constraint::Kind::kSchema, data, size);
}
