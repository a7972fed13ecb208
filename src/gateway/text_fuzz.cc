// What people write and clients send: key files, pools files, the glance at a body. No crash; a found model lies inside the body.
#include <cstdint>

#include "gateway/keys.h"
#include "gateway/pools.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::gateway;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view model = peek_model(text);
  if (!model.empty() && (model.data() < text.data() || model.data() + model.size() > text.data() + size)) __builtin_trap();
  ApiKeys keys;
  (void)keys.load(text);
  (void)parse_pools(text, "/x");
  return 0;
}
