// nixlv2: the prefiller computes the prompt and one token and says where the KV lies; the engine gets that with the client's own
// request and fetches it. Serial, because the second body is made from the first answer. Source: facts sheet "kv_transfer" 1.6.
#include "base/log.h"
#include "sidecar/connector.h"
#include "sidecar/p2p.h"

namespace baton::sidecar {
namespace {

class Nixlv2 final : public Connector {
 public:
  net::Task<Prefill> attempt(Exchange& x, const HostPort& prefiller) override {
    std::string asked = prefill_body(x.api(), x.body(), x.root(), p2p_source(x, prefiller));
    Prefill done = co_await x.prefill(prefiller, {.body = asked});
    if (!done.ok || x.answered()) co_return done;
    if (done.reply.kv_params == "null") {
      log_warn("prefill gave no kv_transfer_params, the engine will read the prompt itself", "id={} prefiller={}", x.log_id(),
               prefiller.text());
    }
    asked = std::string();
    std::string_view body = x.keep(decode_body(x.body(), x.root(), done.reply.kv_params));
    (void)co_await x.decode({.body = body, .cached_tokens = done.reply.cached_tokens});
    co_return done;
  }
};

}  // namespace

std::unique_ptr<Connector> make_nixlv2(const SidecarConfig& config) {
  if (config.moriio.write_mode) return make_moriio(config);
  return std::make_unique<Nixlv2>();
}

}  // namespace baton::sidecar
