// shared-storage and lmcache: both workers see one store, so the legs exchange nothing. A request with a cache_hit_threshold is
// tried on the decode engine first, which ends it with finish_reason "cache_threshold" if it has too little of the prompt.
// lmcache is v0.3.0's form: without a threshold in the request none is sent. Source: facts sheet "kv_transfer" 1.7.
#include "sidecar/connector.h"

namespace baton::sidecar {
namespace {

bool below_threshold(std::string_view json) {
  auto root = parse_json(json);
  const Json* choices = root ? root->find("choices") : nullptr;
  if (!choices || !choices->is_array() || choices->items.empty()) return false;
  const Json* reason = choices->items[0].find("finish_reason");
  return reason && reason->as_string() == "cache_threshold";
}

// A stream is decided by its first two events: the first one of a chat only names the role.
std::optional<bool> judge_stream(std::string_view so_far, bool end) {
  int events = 0;
  for (std::string_view rest = so_far; events < 2 && rest.find('\n') != std::string_view::npos;) {
    std::string_view line = trimmed(rest.substr(0, rest.find('\n')));
    rest.remove_prefix(rest.find('\n') + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.starts_with("data:")) continue;
    if (below_threshold(line.substr(5))) return false;
    ++events;
  }
  return end || events >= 2 ? std::optional(true) : std::nullopt;
}

std::optional<bool> judge(std::string_view so_far, bool end) {
  if (trimmed(so_far).starts_with('{')) return end ? std::optional(!below_threshold(so_far)) : std::nullopt;
  return judge_stream(so_far, end);
}

class SharedStorage final : public Connector {
 public:
  explicit SharedStorage(bool always_threshold) : always_threshold_(always_threshold) {}

  net::Task<bool> decode_first(Exchange& x) override {
    if (!x.root().find(kCacheHitThreshold)) co_return false;
    co_return co_await x.decode({.body = x.body(), .judge = judge}) == Decoded::kAnswered;
  }

  net::Task<Prefill> attempt(Exchange& x, const HostPort& prefiller) override {
    bool threshold = always_threshold_ || x.root().find(kCacheHitThreshold);
    wire::Splice edit(x.body(), x.root());
    if (x.api() == Api::kResponses || x.api() == Api::kGenerate) {
      ask_for_one_token(edit, x.api(), x.root(), OneToken::kAsClient);
    } else {
      edit.set({"max_tokens"}, "1").set({"max_completion_tokens"}, "1");
      if (x.root().find("min_tokens")) edit.set({"min_tokens"}, "1");  // else more than max_tokens: a 400
    }
    if (threshold) edit.set({kCacheHitThreshold}, "0");
    std::string asked = edit.text();
    Prefill done = co_await x.prefill(prefiller, {.body = asked, .reads_reply = false});
    if (!done.ok || x.answered()) co_return done;
    if (threshold) {
      asked = std::string();
      (void)co_await x.decode({.body = x.keep(wire::Splice(x.body(), x.root()).set({kCacheHitThreshold}, "0").text())});
    } else {
      (void)co_await x.decode({.body = x.body()});
    }
    co_return done;
  }

 private:
  bool always_threshold_;
};

}  // namespace

std::unique_ptr<Connector> make_shared_storage(const SidecarConfig&) { return std::make_unique<SharedStorage>(true); }
std::unique_ptr<Connector> make_lmcache(const SidecarConfig&) { return std::make_unique<SharedStorage>(false); }

}  // namespace baton::sidecar
