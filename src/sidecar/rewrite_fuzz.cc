// The sidecar's readers of what clients, prefillers and engines send. Properties: cutting a stream differently gives the same
// bytes; rewriting keeps line ends and JSON; the two bodies of a request are JSON with the fields the protocol wants.
#include <algorithm>

#include "sidecar/allow_list.h"
#include "sidecar/chunked.h"
#include "sidecar/encoder.h"
#include "sidecar/legs.h"
#include "sidecar/rewrite.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace baton;
  using namespace baton::sidecar;
  if (size == 0) return 0;
  std::string text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  size_t step = 1 + bytes[0] % 11;

  Rewrite what{.api = static_cast<Api>(bytes[0] % 5), .cached_tokens = 5};
  StreamRewriter whole(what), cut(what);
  std::string a = whole.feed(text) + whole.finish(), b;
  for (size_t at = 0; at < text.size(); at += step) b += cut.feed(text.substr(at, step));
  b += cut.finish();
  BATON_CHECK(a == b);

  std::string json = rewrite_json(text, what);
  auto before = parse_json(text), after = parse_json(json);
  BATON_CHECK(before.has_value() == after.has_value());
  if (after && after->is_object()) {
    if (const Json* params = after->find("kv_transfer_params")) BATON_CHECK(params->is_null());
    if (const Json* usage = after->find("usage"); usage && usage->is_object()) {
      const Json* cached = what.api == Api::kMessages    ? usage->find("cache_read_input_tokens")
                           : what.api == Api::kResponses ? usage->find_path({"input_tokens_details", "cached_tokens"})
                                                         : usage->find_path({"prompt_tokens_details", "cached_tokens"});
      BATON_CHECK(cached->as_int() == 5);
    }
  }
  (void)read_prefill_reply(what.api, text);
  (void)parse_host_port(text);
  if (auto allowed = parse_allowed(text)) (void)allowed->has({"10.0.0.1", 1});
  if (auto stripped = without_worker_fields(text)) {
    auto root = parse_json(*stripped);
    BATON_CHECK(!root || !root->find("kv_transfer_params"));
  }
  auto root = parse_body(text, 8);
  if (!root) return 0;
  for (std::string_view item : media_items(text, *root)) {
    auto one = parse_json(encoder_body(text, *root, item));
    BATON_CHECK(one && one->find("messages")->items.size() == 1 && one->find("max_tokens")->as_int() == 1);
  }
  // The engine's answers are the same bytes.
  if (auto chunks = ChunkedAnswer::plan(text, *root, 1 + bytes[0] % 3)) {
    BATON_CHECK(parse_json(chunks->next_body()));
    if (chunks->take(text)) {
      BATON_CHECK(parse_json(chunks->next_body()) && parse_json(chunks->whole()));
      BATON_CHECK(chunks->event().ends_with("\n\n") && chunks->last_events().ends_with("data: [DONE]\n\n"));
    }
  }
  std::string prefill = prefill_body(Api::kChat, text, *root), decode = decode_body(text, *root, R"({"x":1})");
  auto p = parse_json(prefill), d = parse_json(decode);
  BATON_CHECK(p && d);
  BATON_CHECK(p->find("max_tokens")->as_int() == 1 && p->find("stream")->as_bool() == false && !p->find("stream_options"));
  BATON_CHECK(std::ranges::count(d->keys, "kv_transfer_params") == 1);
  BATON_CHECK(parse_json(prefill_body(Api::kGenerate, text, *root))->find_path({"sampling_params", "max_tokens"})->as_int() == 1);
  return 0;
}
