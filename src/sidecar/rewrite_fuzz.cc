// The sidecar's readers of what clients, prefillers and engines send. Properties: cutting a stream differently gives the same
// bytes; rewriting keeps line ends and JSON; the two bodies of a request are JSON with the fields the protocol wants.
#include <algorithm>

#include "sidecar/legs.h"
#include "sidecar/rewrite.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace baton;
  using namespace baton::sidecar;
  if (size == 0) return 0;
  std::string text(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  size_t step = 1 + bytes[0] % 11;

  StreamRewriter whole(5), cut(5);
  std::string a = whole.feed(text) + whole.finish(), b;
  for (size_t at = 0; at < text.size(); at += step) b += cut.feed(text.substr(at, step));
  b += cut.finish();
  BATON_CHECK(a == b);

  std::string json = rewrite_json(text, 5);
  auto before = parse_json(text), after = parse_json(json);
  BATON_CHECK(before.has_value() == after.has_value());
  if (after && after->is_object()) {
    if (const Json* params = after->find("kv_transfer_params")) BATON_CHECK(params->is_null());
    if (const Json* usage = after->find("usage"); usage && usage->is_object()) {
      BATON_CHECK(usage->find_path({"prompt_tokens_details", "cached_tokens"})->as_int() == 5);
    }
  }
  (void)read_prefill_reply(text);
  (void)parse_host_port(text);
  if (auto stripped = without_kv_params(text)) {
    auto root = parse_json(*stripped);
    BATON_CHECK(!root || !root->find("kv_transfer_params"));
  }
  auto root = parse_body(text);
  if (!root) return 0;
  std::string prefill = prefill_body(Api::kChat, text, *root), decode = decode_body(text, *root, R"({"x":1})");
  auto p = parse_json(prefill), d = parse_json(decode);
  BATON_CHECK(p && d);
  BATON_CHECK(p->find("max_tokens")->as_int() == 1 && p->find("stream")->as_bool() == false && !p->find("stream_options"));
  BATON_CHECK(std::ranges::count(d->keys, "kv_transfer_params") == 1);
  BATON_CHECK(parse_json(prefill_body(Api::kGenerate, text, *root))->find_path({"sampling_params", "max_tokens"})->as_int() == 1);
  return 0;
}
