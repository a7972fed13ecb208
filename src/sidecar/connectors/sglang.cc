// sglang: both legs get one body, with the place where they meet: the prefiller's bootstrap server and a room number. They run at
// the same time. llm-d's sidecar lets decode wait for a prefiller that failed; here that ends it. Source: facts sheet
// "kv_transfer" 1.8.
#include <chrono>

#include "base/prng.h"
#include "sidecar/connector.h"

namespace baton::sidecar {
namespace {

// Unique per prefiller for as long as a request lives; 63 bits.
std::string new_room() {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::to_string(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count() +
                        static_cast<int64_t>(secure_random_u64() % 1'000));
}

class Sglang final : public Connector {
 public:
  net::Task<Prefill> attempt(Exchange& x, const HostPort& prefiller) override {
    wire::Splice edit(x.body(), x.root());
    edit.set({"bootstrap_host"}, json_string(prefiller.host));
    edit.set({"bootstrap_port"}, std::to_string(x.config().sglang_bootstrap_port)).set({"bootstrap_room"}, new_room());
    std::string body = edit.text();
    co_return co_await x.both(prefiller, {.body = body, .reads_reply = false}, {.body = body}, false);
  }
};

}  // namespace

std::unique_ptr<Connector> make_sglang(const SidecarConfig&) { return std::make_unique<Sglang>(); }

}  // namespace baton::sidecar
