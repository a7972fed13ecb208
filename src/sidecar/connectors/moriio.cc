// MoRI-IO in WRITE mode: the prefiller writes KV into the decode worker's memory, so it is told up front where that is and which
// data-parallel rank will read it. Serial: the decode leg gets what the prefiller answered, completed. Parallel: both legs are
// made here and run at the same time; the client sees nothing before the prefill is known good. A mode of nixlv2.
// Source: facts sheet "kv_transfer" 1.10.
#include <openssl/evp.h>

#include "base/prng.h"
#include "sidecar/connector.h"
#include "sidecar/p2p.h"
#include "sidecar/resolver.h"
#include "wire/headers.h"

namespace baton::sidecar {

int moriio_rank(std::string_view request_id, int dp_size) {
  if (dp_size <= 1) return 0;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int bytes = 0;
  int ok = EVP_Digest(request_id.data(), request_id.size(), digest, &bytes, EVP_blake2s256(), nullptr);
  BATON_CHECK(ok == 1 && bytes == 32);
  uint64_t head = 0;
  for (int i = 0; i < 8; ++i) head = head << 8 | digest[i];
  return static_cast<int>(head % static_cast<uint64_t>(dp_size));
}

namespace {

void hosts_field(JsonWriter& w, const std::vector<std::string>& hosts, const MoriioConfig& m) {
  if (hosts.empty()) return;
  w.key("remote_hosts").array();
  for (const std::string& host : hosts) w.value(host);
  w.end();
  if (m.dp_size_local > 0) w.field("remote_dp_size_local", m.dp_size_local);
}

// What the prefiller must know of the decode worker.
std::string prefill_params(Exchange& x, const HostPort& prefiller, const std::string& transfer, int rank) {
  const MoriioConfig& m = x.config().moriio;
  Resolver& names = *x.shared().resolver;
  JsonWriter w;
  w.object().field("do_remote_decode", true).field("do_remote_prefill", false);
  w.field_null("remote_engine_id").field_null("remote_block_ids");
  w.field("remote_host", names.address(x.config().pod_ip)).field_null("remote_port");
  w.field("remote_notify_port", m.decode_notify_port).field("remote_dp_rank", rank).field("remote_dp_rank_override", true);
  w.field("remote_handshake_port", m.decode_handshake_port).field("transfer_id", transfer);
  w.field("tp_size", m.tp_size).field("remote_dp_size", m.dp_size);
  hosts_field(w, names.addresses(m.decode_hosts), m);
  std::string params = w.end().take(), source = p2p_source(x, prefiller);
  if (!source.empty()) params.insert(params.size() - 1, cat(',', source));
  return params;
}

// What the decode worker must know of the prefiller, when nobody has answered yet.
std::string parallel_params(Exchange& x, const HostPort& prefiller, const std::string& transfer, int rank) {
  const MoriioConfig& m = x.config().moriio;
  JsonWriter w;
  w.object().field("do_remote_prefill", true).field("do_remote_decode", false);
  w.field("remote_engine_id", cat(prefiller.host, ':', m.prefill_handshake_port)).key("remote_block_ids").array().end();
  w.field("remote_host", prefiller.host).field("remote_port", m.prefill_handshake_port);
  w.field("remote_notify_port", m.prefill_notify_port).field("remote_dp_rank", rank).field("remote_dp_rank_override", true);
  w.field("remote_handshake_port", m.prefill_handshake_port).field("transfer_id", transfer);
  w.field("tp_size", m.tp_size).field("remote_dp_size", m.dp_size);
  hosts_field(w, x.shared().resolver->addresses(m.remote_hosts), m);
  return w.end().take();
}

// What the prefiller answered, with what it does not echo.
std::string completed_params(Exchange& x, std::string_view given, const Json& root, const std::string& transfer, int rank) {
  const MoriioConfig& m = x.config().moriio;
  wire::Splice edit(given, root);
  auto missing = [&](std::string_view key, std::string json) {
    if (!root.find(key)) edit.set({key}, std::move(json));
  };
  edit.set({"remote_dp_rank"}, std::to_string(rank)).set({"remote_dp_rank_override"}, "true");
  missing("transfer_id", json_string(transfer));
  missing("remote_notify_port", std::to_string(m.decode_notify_port));
  missing("remote_handshake_port", std::to_string(m.decode_handshake_port));
  missing("remote_dp_size", std::to_string(m.dp_size));
  std::string list;
  for (const std::string& host : x.shared().resolver->addresses(m.remote_hosts))
    list += cat(list.empty() ? "" : ",", json_string(host));
  if (!list.empty()) {
    missing("remote_hosts", cat('[', list, ']'));
    if (m.dp_size_local > 0) missing("remote_dp_size_local", std::to_string(m.dp_size_local));
  }
  return edit.text();
}

class Moriio final : public Connector {
 public:
  net::Task<Prefill> attempt(Exchange& x, const HostPort& prefiller) override {
    const MoriioConfig& m = x.config().moriio;
    int rank = moriio_rank(x.id(), m.dp_size);
    std::string transfer = cat("tx", x.id());  // the connector routes messages by this prefix
    wire::Splice edit(x.body(), x.root());
    edit.set({kKvParams}, prefill_params(x, prefiller, transfer, rank));
    ask_for_no_stream(edit);
    ask_for_one_token(edit, x.api(), x.root(), OneToken::kEveryLimit);
    std::string asked = edit.text();
    if (m.parallel_dispatch) {
      std::string body = decode_body(x.body(), x.root(), parallel_params(x, prefiller, transfer, rank));
      HeaderList headers = rank_header(m, rank);
      headers.emplace_back(wire::kRequestId, x.id());  // set, not added: both engines derive the same rank from it
      PrefillAsk ask{.body = asked, .headers = headers, .timeout = net::Millis(m.wait_timeout_ms)};
      co_return co_await x.both(prefiller, std::move(ask), {.body = body, .headers = headers}, true);
    }
    Prefill done = co_await x.prefill(prefiller, {.body = asked, .headers = rank_header(m, rank)});
    if (!done.ok || x.answered()) co_return done;
    std::string params = done.reply.kv_params;
    if (auto root = parse_json(params); root && root->is_object()) {
      const Json* ran_on = root->find("remote_dp_rank");
      auto said = ran_on ? ran_on->as_int() : std::nullopt;
      if (m.dp_size > 1 && said && *said >= 0 && *said < m.dp_size) rank = static_cast<int>(*said);
      params = completed_params(x, params, *root, transfer, rank);
    }
    asked = std::string();
    std::string_view body = x.keep(decode_body(x.body(), x.root(), params));
    (void)co_await x.decode({.body = body, .headers = rank_header(m, rank), .cached_tokens = done.reply.cached_tokens});
    co_return done;
  }

 private:
  static HeaderList rank_header(const MoriioConfig& m, int rank) {
    if (m.dp_size <= 1) return {};
    return {{std::string(wire::kDataParallelRank), std::to_string(rank)}};
  }
};

}  // namespace

std::unique_ptr<Connector> make_moriio(const SidecarConfig&) { return std::make_unique<Moriio>(); }

}  // namespace baton::sidecar
