// The request path a stranger reaches first, without a socket. Properties: feeding the bytes in pieces gives the same requests
// and the same verdict as feeding them at once; what is accepted is inside the limits and unambiguous.
#include <algorithm>

#include "net/codec.h"
#include "net/limits.h"

namespace {

using namespace baton::net;

struct Outcome {
  std::vector<Request> requests;
  int refused = 0;
};

constexpr size_t kHeaderMax = 2000, kBodyMax = 1000;

Outcome decode(std::string_view text, size_t step) {
  Outcome outcome;
  RequestDecoder decoder(kHeaderMax, kBodyMax);
  std::string input;
  for (size_t at = 0; at < text.size(); at += step) {
    input += text.substr(at, step);
    for (;;) {
      auto used = decoder.feed(input);
      if (!used) {
        outcome.refused = used.error().status;
        return outcome;
      }
      BATON_CHECK(*used <= input.size());
      input.erase(0, *used);
      if (decoder.done()) {
        outcome.requests.push_back(decoder.take());
      } else if (*used == 0 || input.empty()) {
        break;
      }
    }
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  Outcome whole = decode(text, text.size() + 1), cut = decode(text, 1 + bytes[0] % 9);
  for (const Request& r : whole.requests) {
    BATON_CHECK(r.body.size() <= kBodyMax);
    BATON_CHECK(r.headers.get_all("content-length").size() <= 1);
    BATON_CHECK(!(r.headers.get("content-length") && r.headers.get("transfer-encoding")));
    BATON_CHECK(r.headers.get_all("host").size() <= 1);
    BATON_CHECK(std::ssize(r.headers.fields()) <= kHeaderFieldsMax);
    BATON_CHECK(r.target.find_first_of("\r\n ") == std::string::npos);
    for (const auto& [name, value] : r.headers.fields()) {
      BATON_CHECK(name.find_first_of("\r\n :") == std::string::npos && value.find_first_of("\r\n") == std::string::npos);
    }
  }
  BATON_CHECK(whole.requests.size() == cut.requests.size());
  for (size_t i = 0; i < whole.requests.size(); ++i) {
    const Request &a = whole.requests[i], &b = cut.requests[i];
    BATON_CHECK(a.method == b.method && a.target == b.target && a.body == b.body && a.headers.fields() == b.headers.fields());
  }
  // Pieces may be refused later than the whole (a bare LF shows only once the head is complete), never differently; but a head
  // that is both malformed and too large is called what shows first.
  auto head_status = [](const auto& refused) { return refused == 400 || refused == 431; };
  bool either = text.size() >= kHeaderMax && head_status(whole.refused) && head_status(cut.refused);
  if (cut.refused) BATON_CHECK(whole.refused == cut.refused || either);
  return 0;
}
