// gRPC's framing and gzip from a stranger. Properties: pieces give the messages that the whole gives, no message is over the
// limit, little is held; percent decoding undoes encoding.
#include "net/grpc_message.h"

#include <vector>

namespace {

using namespace baton;
using namespace baton::net;

constexpr size_t kMax = 5000;

struct Outcome {
  std::vector<std::string> messages;
  Code failed = Code::kOk;
};

Outcome deframe(std::string_view text, size_t step) {
  Outcome outcome;
  GrpcDeframer deframer;
  for (size_t at = 0; at < text.size(); at += step) {
    auto fed = deframer.feed(text.substr(at, step), kMax, [&](std::string_view message, bool) {
      BATON_CHECK(message.size() <= kMax);
      outcome.messages.emplace_back(message);
      return true;
    });
    BATON_CHECK(deframer.held() <= kMax);
    if (!fed) {
      outcome.failed = fed.error().code;
      break;
    }
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  Outcome whole = deframe(text, text.size() + 1), cut = deframe(text, 1 + bytes[0] % 13);
  BATON_CHECK(whole.messages == cut.messages && whole.failed == cut.failed);
  if (auto plain = gunzip(text, kMax)) BATON_CHECK(plain->size() <= kMax);
  BATON_CHECK(grpc_percent_decoded(grpc_percent_encoded(text)) == text);
  (void)grpc_percent_decoded(text);
  return 0;
}
