// offloading: the prefiller keeps the KV under a name, and the engine pulls it over the workers' peer-to-peer tier. Serial,
// though the protocol would allow both legs at once: engines that start before the KV is there spend their load deadline waiting.
// Source: facts sheet "kv_transfer" 1.10.
#include "base/prng.h"
#include "sidecar/connector.h"
#include "sidecar/p2p.h"

namespace baton::sidecar {
namespace {

class Offloading final : public Connector {
 public:
  net::Task<Prefill> attempt(Exchange& x, const HostPort& prefiller) override {
    std::string name = uuid4();
    std::string source = p2p_source(x, prefiller);
    wire::Splice edit(x.body(), x.root());
    edit.set({kKvParams}, cat(R"({"remote_decoder":{"kv_request_id":")", name, "\"}", source.empty() ? "" : ",", source, '}'));
    ask_for_no_stream(edit);
    ask_for_one_token(edit, x.api(), x.root(), OneToken::kAsClient);
    std::string asked = edit.text();
    Prefill done = co_await x.prefill(prefiller, {.body = asked, .reads_reply = false});
    if (!done.ok || x.answered()) co_return done;
    asked = cat("{\"remote_prefiller\":", p2p_peer(x.config(), prefiller, name), '}');
    (void)co_await x.decode({.body = x.keep(decode_body(x.body(), x.root(), asked))});
    co_return done;
  }
};

}  // namespace

std::unique_ptr<Connector> make_offloading(const SidecarConfig&) { return std::make_unique<Offloading>(); }

}  // namespace baton::sidecar
