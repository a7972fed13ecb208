// Any bytes as a request body: an error, or a view whose body to forward is JSON without kv_transfer_params and otherwise the
// same.
#include <cstdlib>

#include "base/json.h"
#include "gateway/request_view.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  if (size == 0) return 0;
  const auto api = static_cast<gateway::Api>(data[0] % 3);
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto view = gateway::read_request(body, api, 1, 16);
  if (!view) return 0;
  if (view->prompt_tokens < 1) std::abort();
  if (!view->cut) return 0;
  const auto before = parse_json(body), after = parse_json(view->cleaned);
  if (!before || !after || after->find("kv_transfer_params") != nullptr) std::abort();
  size_t kept = 0;
  for (size_t i = 0; i < before->keys.size(); ++i) {
    if (before->keys[i] == "kv_transfer_params") continue;
    if (kept >= after->keys.size() || after->keys[kept] != before->keys[i]) std::abort();
    if (after->items[kept].raw(view->cleaned) != before->items[i].raw(body)) std::abort();
    ++kept;
  }
  if (kept != after->keys.size()) std::abort();
  return 0;
}
