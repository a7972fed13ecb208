// Any bytes as a request of the APIs that become chat or completion requests: no crash, and what is accepted is JSON that the
// chat or completion parser can read.
#include "wire/embeddings.h"
#include "wire/limits.h"
#include "wire/messages.h"
#include "wire/responses.h"
#include "wire/token_api.h"

using namespace baton;
using namespace baton::wire;

namespace {

// What we put around the client's values may pass a limit that they alone did not; nothing else may be wrong.
constexpr JsonLimits kWider{.bytes_max = kRequestJson.bytes_max * 8, .nodes_max = kRequestJson.nodes_max * 8, .depth_max = 80};

void check_chat(const std::string& text) {
  const auto json = parse_json(text, kWider);
  BATON_CHECK(json.has_value());
  (void)parse_chat_request(*json).has_value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto json = parse_json(source, kRequestJson);
  if (!json) return 0;
  if (auto r = parse_responses_request(*json, source)) check_chat(chat_body(*r, ""));
  for (const bool count_only : {false, true}) {
    if (auto chat = chat_body_of_messages(*json, source, count_only)) check_chat(*chat);
  }
  if (auto completion = completion_body_of_generate(*json, source)) {
    const auto parsed = parse_json(*completion, kWider);
    BATON_CHECK(parsed.has_value());
    (void)parse_completion_request(*parsed).has_value();
  }
  if (auto r = parse_embedding_request(*json)) BATON_CHECK(!r->inputs.empty() || r->chat);
  return 0;
}
