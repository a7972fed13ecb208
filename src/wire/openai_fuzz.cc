// Any bytes as a request body: no crash, and what is accepted keeps the parser's promises.
#include "base/result.h"
#include "wire/limits.h"
#include "wire/openai.h"

using namespace baton;
using namespace baton::wire;

namespace {

void check(const GenerateFields& r) {
  BATON_CHECK(r.n >= 1 && r.n <= kChoicesMax);
  BATON_CHECK(!r.top_p || (*r.top_p > 0 && *r.top_p <= 1));
  BATON_CHECK(!r.temperature || *r.temperature >= 0);
  BATON_CHECK(r.stop.size() <= kStopStringsMax && r.logit_bias.size() <= kLogitBiasMax);
  for (const auto& s : r.stop) BATON_CHECK(!s.empty());
  for (auto [id, bias] : r.logit_bias) BATON_CHECK(bias >= -100 && bias <= 100);
  BATON_CHECK(!r.max_tokens || r.min_tokens <= *r.max_tokens);
  BATON_CHECK(r.stream || !r.include_usage);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto json = parse_json({reinterpret_cast<const char*>(data), size}, kRequestJson);
  if (!json) return 0;
  if (auto r = parse_chat_request(*json)) {
    check(*r);
    BATON_CHECK(!r->messages.empty());
  }
  if (auto r = parse_completion_request(*json)) {
    check(*r);
    BATON_CHECK(!r->prompts.empty() && r->prompts.size() * static_cast<size_t>(r->n) <= static_cast<size_t>(kChoicesMax));
  }
  (void)parse_tokenize_request(*json).has_value();
  if (auto r = parse_detokenize_request(*json)) {
    for (int32_t id : r->tokens) BATON_CHECK(id >= 0);
  }
  return 0;
}
