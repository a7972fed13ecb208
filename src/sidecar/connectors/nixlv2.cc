// nixlv2: the prefiller computes the prompt and one token and says where the KV lies; the engine gets that with the client's own
// request and fetches it. Serial, because the second body is made from the first answer. Source: facts sheet "kv_transfer" 1.6.
// Between two Baton engines it is a push (docs/adr/0010): both legs begin at once under a token of ours, the engine takes the KV
// while it is computed, and the prefiller's answer is only read to learn from. A prefiller that is not known to push is asked the
// serial way, which tells.
#include "base/log.h"
#include "base/prng.h"
#include "sidecar/connector.h"
#include "sidecar/connectors/push_targets.h"
#include "sidecar/p2p.h"
#include "wire/headers.h"
#include "wire/kv_params.h"

namespace baton::sidecar {
namespace {

class Nixlv2 final : public Connector {
 public:
  explicit Nixlv2(bool push) : push_(push) {}

  net::Task<Prefill> attempt(Exchange& x, const HostPort& prefiller) override {
    if (push_ && x.engine_takes_push()) {
      if (auto target = targets_.find(prefiller.text())) co_return co_await push(x, prefiller, *target);
    }
    std::string asked = prefill_body(x.api(), x.body(), x.root(), p2p_source(x, prefiller));
    Prefill done = co_await x.prefill(prefiller, {.body = asked});
    if (!done.ok || x.answered()) co_return done;
    if (push_) targets_.learn(prefiller.text(), done.reply.kv_params);
    bool none = done.reply.kv_params == "null";
    if (none) {
      log_warn("prefill gave no kv_transfer_params, the engine will read the prompt itself", "id={} prefiller={}", x.log_id(),
               prefiller.text());
    }
    x.count_hand_over(none ? "local" : "pull");
    asked = std::string();
    std::string_view body = x.keep(decode_body(x.body(), x.root(), done.reply.kv_params));
    (void)co_await x.decode({.body = body, .cached_tokens = done.reply.cached_tokens});
    co_return done;
  }

 private:
  // A prefill leg that fails ends the decode leg, as long as the client saw nothing of it; whoever goes on then is the exchange's
  // business, as after any failed attempt.
  net::Task<Prefill> push(Exchange& x, const HostPort& prefiller, PushTargets::Target target) {
    std::string token = random_hex(32);
    std::string more = p2p_source(x, prefiller);
    more += cat(more.empty() ? "" : ",", wire::push_field(token));
    std::string asked = prefill_body(x.api(), x.body(), x.root(), more);
    std::string_view body =
        x.keep(decode_body(x.body(), x.root(), wire::push_decode_params(token, target.engine_id, target.host, target.port)));
    bool took_kv = false, head = false;
    DecodeAsk decode{.body = body, .on_head = [&](const net::Headers& headers) {
                       head = true;
                       took_kv = headers.get(wire::kKv).has_value();
                       if (!took_kv) targets_.forget(prefiller.text());  // it had to read the prompt itself
                     }};
    Prefill done = co_await x.both(prefiller, {.body = asked}, std::move(decode), false);
    if (head) x.count_hand_over(took_kv ? "push" : "local");
    if (!head && !x.cancel().cancelled()) targets_.forget(prefiller.text());  // the prefiller may not be where it was
    if (!took_kv && done.reply.kv_params != "null") targets_.learn(prefiller.text(), done.reply.kv_params);  // it says where
    co_return done;
  }

  const bool push_;
  PushTargets targets_;
};

}  // namespace

std::unique_ptr<Connector> make_nixlv2(const SidecarConfig& config) {
  if (config.moriio.write_mode) return make_moriio(config);
  return std::make_unique<Nixlv2>(config.kv_push == "auto");
}

}  // namespace baton::sidecar
