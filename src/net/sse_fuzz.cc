// Property: cutting the bytes differently gives the same events, and no event holds a line end's CR.
#include "net/sse.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace baton::net;
  if (size == 0) return 0;
  size_t step = 1 + bytes[0] % 7;
  std::string_view text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  SseParser whole(1 << 20), cut(1 << 20);
  std::vector<SseEvent> a, b;
  BATON_CHECK(whole.feed(text, a).has_value());
  for (size_t at = 0; at < text.size(); at += step) BATON_CHECK(cut.feed(text.substr(at, step), b).has_value());
  BATON_CHECK(a == b);
  BATON_CHECK(whole.unfinished() == cut.unfinished());
  for (const auto& e : a) BATON_CHECK(e.data.find('\r') == std::string::npos);
  return 0;
}
