// mooncake: the prefiller pushes KV to the engine, which finds it through the prefiller's bootstrap server: the legs meet by a
// transfer id and run at the same time. The engine ids of a prefiller's ranks are asked of that server and kept for a while;
// llm-d keeps them for ever, so that a restarted prefiller is never found again. Source: facts sheet "kv_transfer" 1.9, 2.11.
#include <map>

#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"
#include "sidecar/connector.h"
#include "sidecar/limits.h"
#include "wire/headers.h"

namespace baton::sidecar {
namespace {

using Ranks = std::vector<std::pair<std::string, std::string>>;  // data-parallel rank, engine id

// {"0": {"engine_id": "...", ...}, ...}
Result<Ranks> read_ranks(std::string_view body) {
  BATON_TRY(Json root, parse_json(body));
  Ranks ranks;
  for (size_t i = 0; root.is_object() && i < root.items.size(); ++i) {
    const Json* id = root.items[i].find("engine_id");
    bool number = !root.keys[i].empty() && root.keys[i].find_first_not_of("0123456789") == std::string::npos;
    if (id && id->is_string() && number) ranks.emplace_back(root.keys[i], id->text);
  }
  if (ranks.empty()) return fail(Code::kInvalidArgument, "the bootstrap server names no engine_id");
  return ranks;
}

class Mooncake final : public Connector {
 public:
  net::Task<Prefill> attempt(Exchange& x, const HostPort& prefiller) override {
    HostPort server{prefiller.host, x.config().mooncake_bootstrap_port};
    auto ranks = co_await ranks_of(x, server);
    if (!ranks) co_return Prefill{.why = cat("bootstrap server: ", ranks.error().message)};
    const auto& [rank, engine_id] = (*ranks)[secure_random_u64() % ranks->size()];
    std::string transfer = cat("xfer-", uuid4());
    wire::Splice edit(x.body(), x.root());
    edit.set({kKvParams}, cat(R"({"do_remote_prefill":false,"do_remote_decode":true,"transfer_id":")", transfer, "\"}"));
    ask_for_no_stream(edit);
    ask_for_one_token(edit, x.api(), x.root(), OneToken::kAsClient);
    std::string asked = edit.text();
    JsonWriter params;
    params.object().field("do_remote_prefill", true).field("do_remote_decode", false).field("transfer_id", transfer);
    params.field("remote_bootstrap_addr", cat("http://", server.text())).field("remote_engine_id", engine_id);
    std::string body = decode_body(x.body(), x.root(), params.end().text());
    PrefillAsk ask{.body = asked, .headers = {{std::string(wire::kDataParallelRank), rank}}, .reads_reply = false};
    Prefill done = co_await x.both(prefiller, std::move(ask), {.body = body}, false);
    if (!done.ok || x.status() >= 500) known_.erase(server.text());  // it may have come back as another engine
    co_return done;
  }

 private:
  struct Known {
    Ranks ranks;
    int64_t asked_ns;
  };

  net::Task<Result<Ranks>> ranks_of(Exchange& x, const HostPort& server) {
    const std::string key = server.text();
    auto at = known_.find(key);
    constexpr int64_t kFreshNs = std::chrono::nanoseconds(kEngineIdsFresh).count();
    if (at != known_.end() && clock_.now_ns() - at->second.asked_ns < kFreshNs) co_return at->second.ranks;
    net::Call call;
    call.host = server.host, call.port = server.port, call.target = "/query";
    call.connect_timeout = kConnectTimeout;
    call.first_byte_timeout = call.idle_timeout = kBootstrapTimeout;
    call.body_bytes_max = kBootstrapBytesMax;
    call.cancel = &x.cancel();
    BATON_CO_TRY(net::Response answer, co_await x.client().fetch(call));
    if (answer.status != 200) co_return fail(Code::kUnavailable, "status ", answer.status);
    BATON_CO_TRY(Ranks ranks, read_ranks(answer.body));
    at = known_.find(key);
    if (at != known_.end() && at->second.ranks != ranks) log_info("a prefiller has new engine ids", "bootstrap={}", key);
    if (at == known_.end() && known_.size() >= kMooncakePrefillersMax) forget_oldest();
    known_.insert_or_assign(key, Known{ranks, clock_.now_ns()});
    co_return ranks;
  }

  void forget_oldest() {
    known_.erase(std::ranges::min_element(known_, {}, [](const auto& item) { return item.second.asked_ns; }));
  }

  SteadyClock clock_;
  std::map<std::string, Known> known_;  // by bootstrap server
};

}  // namespace

std::unique_ptr<Connector> make_mooncake(const SidecarConfig&) { return std::make_unique<Mooncake>(); }

}  // namespace baton::sidecar
