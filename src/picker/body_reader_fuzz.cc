// Any bytes as a body, in any split: the reader says what the tree says, and what it would forward is JSON without
// kv_transfer_params.
#include <cstdio>
#include <cstdlib>

#include "picker/body_reference.h"

namespace {
[[noreturn]] void wrong(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  using namespace baton::picker;
  if (size < 2) return 0;
  const auto shape = static_cast<Shape>(2 + data[0] % 10);
  const size_t step = 1 + data[1] % 64;
  const std::string_view body(reinterpret_cast<const char*>(data) + 2, size - 2);
  BodyReader reader({.shape = shape, .token_ids = true, .block_bytes = 16, .blocks_max = 64});
  bool ok = true;
  for (size_t i = 0; ok && i < body.size(); i += step) {
    const std::string piece(body.substr(i, step));
    ok = reader.feed(piece).has_value();
  }
  ok = reader.finish().has_value() && ok;
  const auto reference = BodyReference::read(body, shape);
  if (ok != reference.has_value()) wrong(ok ? "the tree refuses it" : "the reader refuses it");
  if (!ok) return 0;
  if (const std::string what = reference->compare(reader); !what.empty()) wrong(what);
  if (reader.chain(1, "m") != reference->chain(1, "m", 16, 64)) wrong("chain");
  const std::string cut = reader.edited(body, std::nullopt);
  const auto after = BodyReference::read(cut, shape);
  if (!after || after->without_cuts != reference->without_cuts) wrong("cut: " + cut);
  const auto renamed = BodyReference::read(reader.edited(body, "x"), shape);
  if (!renamed || renamed->facts.model != "x") wrong("renamed");
  return 0;
}
