#include "sidecar/config.h"

#include <algorithm>

#include "sidecar/connector.h"

namespace baton::sidecar {
namespace {

// A flag whose only value we can serve is its default here.
Option only_default(SidecarConfig& c, std::string name, std::string value, std::string instead) {
  Option option;
  option.is_bool = value == "false";
  option.default_text = value;
  option.help = option.is_bool ? cat("true is refused: ", instead) : cat("other values are refused: ", instead);
  option.get = [value] { return value; };
  option.set = [&c, name, value, instead](std::string_view text) -> Result<> {
    bool same = text == value || (value == "false" && (text == "0" || text == "False"));
    if (!same) c.refused.push_back(cat("--", name, '=', text, ": ", instead));
    return {};
  };
  option.name = std::move(name);
  return option;
}

void add_compatibility(Options& o, SidecarConfig& c) {
  constexpr const char* kTls = "TLS comes with a later release; run without it, or terminate TLS in the mesh";
  o.group("llm-d flags whose function comes later")
      .add(only_default(c, "secure-proxy", "false", kTls))
      .add(only_default(c, "enable-tls", "", kTls))
      .add(only_default(c, "prefiller-use-tls", "false", kTls))
      .add(only_default(c, "decoder-use-tls", "false", kTls))
      .add(only_default(c, "ec-connector", "", "the encoder stage comes with a later release"))
      .add(only_default(c, "data-parallel-size", "1", "data-parallel ranks come with a later release"))
      .add(only_default(c, "decode-chunk-size", "0", "chunked decode comes with a later release"))
      .add(only_default(c, "enable-p2p-pull", "false", "KV source pull comes with a later release"))
      .add(only_default(c, "enable-ssrf-protection", "false", "the pool allow-list comes with a later release"))
      .add(only_default(c, "moriio-write-mode", "false", "the MoRI-IO connector comes with a later release"))
      .add(only_default(c, "moriio-parallel-dispatch", "false", "the MoRI-IO connector comes with a later release"))
      .add(only_default(c, "tracing", "false", "OpenTelemetry comes with a later release"))
      .add(only_default(c, "configuration", "", "give flags instead"))
      .add(only_default(c, "configuration-file", "", "give flags instead"));
  // No effect without what is refused above, or by llm-d's own meaning.
  o.ignore({"cert-path",
            "tls-insecure-skip-verify",
            "prefiller-tls-insecure-skip-verify",
            "decoder-tls-insecure-skip-verify",
            "mooncake-bootstrap-port",
            "p2p-connector-port",
            "inference-pool",
            "inference-pool-namespace",
            "inference-pool-name",
            "pool-group",
            "zap-devel",
            "zap-encoder",
            "zap-log-level",
            "zap-stacktrace-level",
            "zap-time-encoding",
            "v",
            "moriio-parallel-decode-wait-timeout",
            "moriio-local-pod-ip",
            "moriio-decode-notify-port",
            "moriio-decode-handshake-port",
            "moriio-prefill-handshake-port",
            "moriio-prefill-notify-port",
            "moriio-tp-size",
            "moriio-dp-size",
            "moriio-dp-size-local",
            "moriio-remote-hosts",
            "moriio-decode-hosts"});
}

std::vector<std::string> connector_names() {
  std::vector<std::string> names;
  for (const ConnectorRow& row : connectors()) names.emplace_back(row.name);
  return names;
}

}  // namespace

Result<> SidecarConfig::check() const {
  std::vector<std::string> errors = refused;
  if (!find_connector(connector)) errors.push_back(cat("--kv-connector=", connector, ": no such connector"));
  if (prefill_max_retries > 0 && prefill_retry_backoff_ms == 0) {
    errors.push_back("--prefill-retry-backoff must be above 0 when --prefill-max-retries is");
  }
  if (port != 0 && port == model_server_port) errors.push_back(cat("--port and --model-server-port are both ", port));
  if (port != 0 && port == metrics_port) errors.push_back(cat("--port and --metrics-port are both ", port));
  std::string all;
  for (const auto& error : errors) all += cat(all.empty() ? "" : "; ", error);
  if (!all.empty()) return fail(Code::kInvalidArgument, all);
  return {};
}

Options sidecar_options(SidecarConfig& c) {
  Options o("baton-sidecar", "Proxy beside a decode engine: has the prompt prefilled elsewhere, then lets the engine decode.",
            "baton-sidecar --port 8000 --model-server-port 8200");
  o.group("Listener")
      .add("port", &c.port, "port", "where clients and the gateway come; 0 takes any free port", 0, 65535)
      .add("host", &c.host, "address to listen on")
      .add("metrics-port", &c.metrics_port, "port", "serve /metrics here; 0 = off", 0, 65535)
      .add("io-threads", &c.io_threads, "threads", "threads that accept and forward", 1, 64)
      .add("max-body-bytes", &c.body_bytes_max, "bytes", "over it: 413", 1, int64_t{1} << 32)
      .add_duration("drain-timeout", &c.drain_timeout_ms, "wait this long for running requests at the end");
  o.group("Engine")
      .add("model-server-port", &c.model_server_port, "port", "the local decode engine", 1, 65535)
      .alias("vllm-port")
      .add("model-server-host", &c.model_server_host, "and its address")
      .add("max-idle-conns-per-host", &c.idle_connections_max, "connections", "kept open to engine and prefillers", 1, 65536);
  o.group("Prefill")
      .add("kv-connector", &c.connector, "protocol between the workers", connector_names())
      .alias("connector")
      .add("on-prefill-failure", &c.on_prefill_failure,
           "a prefiller that is down, late, overloaded or broken: local = this engine reads the prompt itself; next = the next "
           "host "
           "of the header, then local; error = the client gets the failure, as llm-d does",
           {"local", "next", "error"})
      .add_duration("prefill-timeout", &c.prefill_timeout_ms, "for one prefill, its queueing included; 0 = none")
      .add("prefill-max-retries", &c.prefill_max_retries, "attempts", "further attempts at the same host on 502, 503, 504", 0,
           100)
      .add_duration("prefill-retry-backoff", &c.prefill_retry_backoff_ms, "before each of them")
      .add("enable-prefiller-sampling", &c.prefiller_sampling, "start at a random host of the header instead of the first")
      .env("ENABLE_PREFILLER_SAMPLING")
      .add("kv-params-trust", &c.kv_params_trust,
           "whose kv_transfer_params reach the engine in a request without a prefiller: none = nobody's, any = the client's",
           {"none", "any"})
      .add("rewrite-cached-tokens", &c.rewrite_cached_tokens,
           "report the prefiller's usage.prompt_tokens_details.cached_tokens, as llm-d does, where the prefiller reports them");
  add_compatibility(o, c);
  o.group("Log").add("log-level", &c.log_level, "least severe line written", {"debug", "info", "warn", "error", "off"});
  return o;
}

}  // namespace baton::sidecar
