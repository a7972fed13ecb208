#include "sidecar/config.h"

#include <algorithm>
#include <charconv>

#include "sidecar/allow_list.h"
#include "sidecar/connector.h"
#include "sidecar/encoder.h"
#include "sidecar/limits.h"

namespace baton::sidecar {
namespace {

// A row whose value is understood by `set`; `get` writes it back.
Option row(std::string name, std::string help, std::function<Result<>(std::string_view)> set, std::function<std::string()> get) {
  Option option;
  option.name = std::move(name), option.help = std::move(help);
  option.set = std::move(set), option.get = std::move(get);
  option.default_text = option.get();
  return option;
}

template <class F>
Result<> each_word(std::string_view list, F&& f) {
  while (!list.empty()) {
    size_t comma = list.find(',');
    std::string_view word = trimmed(list.substr(0, comma));
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    if (!word.empty()) BATON_OK(f(word));
  }
  return {};
}

// "prefiller,decoder": the stages for which `what` is so.
Option stages(SidecarConfig& c, std::string name, std::string help, bool StageTls::* what, bool so) {
  const std::pair<std::string_view, StageTls*> kStages[] = {
      {"prefiller", &c.prefiller_tls}, {"decoder", &c.decoder_tls}, {"encoder", &c.encoder_tls}};
  std::vector<std::pair<std::string_view, StageTls*>> all(std::begin(kStages), std::end(kStages));
  auto set = [all, what, so](std::string_view list) {
    return each_word(list, [&](std::string_view word) -> Result<> {
      auto at = std::ranges::find(all, word, &std::pair<std::string_view, StageTls*>::first);
      if (at == all.end()) return fail(Code::kInvalidArgument, "wants prefiller, decoder or encoder, not '", word, "'");
      at->second->*what = so;
      return {};
    });
  };
  auto get = [all, what, so] {
    std::string out;
    for (const auto& [word, stage] : all) {
      if (stage->*what == so) out += cat(out.empty() ? "" : ",", word);
    }
    return out;
  };
  return row(std::move(name), std::move(help), set, get);
}

// A bool flag of v0.3.0 that says the same about one stage.
Option old_bool(std::string name, std::string help, bool* target, bool so) {
  auto set = [target, so](std::string_view text) -> Result<> {
    bool yes = text == "true" || text == "1" || text == "True";
    if (!yes && text != "false" && text != "0" && text != "False") {
      return fail(Code::kInvalidArgument, "wants true or false, not '", text, "'");
    }
    *target = yes ? so : !so;
    return {};
  };
  Option option = row(std::move(name), std::move(help), set, [target, so] { return *target == so ? "true" : "false"; });
  option.is_bool = true;
  return option;
}

Option comma_list(std::string name, std::string help, std::vector<std::string>* target) {
  auto set = [target, first = true](std::string_view list) mutable {
    if (std::exchange(first, false)) target->clear();
    return each_word(list, [&](std::string_view word) -> Result<> {
      target->emplace_back(word);
      return {};
    });
  };
  auto get = [target] {
    std::string out;
    for (const auto& word : *target) out += cat(out.empty() ? "" : ",", word);
    return out;
  };
  Option option = row(std::move(name), std::move(help), set, get);
  option.is_list = true;
  return option;
}

// controller-runtime's --zap-log-level and klog's -v: names, or a number that grows with what is told.
Option verbosity(SidecarConfig& c, std::string name, int debug_from) {
  auto set = [&c, debug_from](std::string_view text) -> Result<> {
    int n = 0;
    auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (ec == std::errc() && end == text.data() + text.size() && n >= 0) {
      c.log_level = n >= debug_from ? "debug" : "info";
    } else if (text == "debug" || text == "info" || text == "warn" || text == "error") {
      c.log_level = text;
    } else if (text == "panic") {
      c.log_level = "error";
    } else {
      return fail(Code::kInvalidArgument, "wants debug, info, error, panic or a number, not '", text, "'");
    }
    return {};
  };
  return row(std::move(name), "the same in llm-d's words", set, [] { return std::string(); });
}

std::vector<std::string> connector_names() {
  std::vector<std::string> names;
  for (const ConnectorRow& known : connectors()) names.emplace_back(known.name);
  return names;
}

void add_listener(Options& o, SidecarConfig& c) {
  auto metrics_addr = [&c](std::string_view text) -> Result<> {
    size_t colon = text.rfind(':');
    auto addr = parse_host_port(cat("any", colon == std::string_view::npos ? text : text.substr(colon)));
    if (!addr) return fail(Code::kInvalidArgument, "wants host:port or :port, not '", text, "'");
    if (c.metrics_port == 0) c.metrics_port = addr->port;
    return {};
  };
  o.group("Listener")
      .add("port", &c.port, "port", "where clients and the gateway come; 0 takes any free port", 0, 65535)
      .add("host", &c.host, "address to listen on")
      .add("data-parallel-size", &c.data_parallel_size, "ranks",
           "listen on as many ports, from --port on, each before an engine from --model-server-port on", 1, kRanksMax)
      .add("secure-proxy", &c.secure_proxy, "serve TLS: llm-d's default, which its charts turn off")
      .add("cert-path", &c.cert_path, "folder of tls.crt and tls.key, read again when they change; empty = self-signed")
      .add("metrics-port", &c.metrics_port, "port", "serve /metrics here; 0 = off", 0, 65535)
      .add(row("moriio-metrics-addr", "llm-d's older way to say --metrics-port: host:port or :port", metrics_addr,
               [] { return std::string(); }))
      .env("MORIIO_METRICS_ADDR")
      .add("io-threads", &c.io_threads, "threads", "threads that accept and forward, for each rank", 1, 64)
      .add("max-body-bytes", &c.body_bytes_max, "bytes", "over it: 413", 1, int64_t{1} << 32)
      .add_duration("drain-timeout", &c.drain_timeout_ms, "wait this long for running requests at the end");
  o.group("Engine")
      .add("model-server-port", &c.model_server_port, "port", "the local decode engine", 1, 65535)
      .alias("vllm-port")
      .add("model-server-host", &c.model_server_host, "and its address")
      .add("max-idle-conns-per-host", &c.idle_connections_max, "connections", "kept open to engine and prefillers", 1, 65536)
      .add("decode-chunk-size", &c.decode_chunk_size, "tokens",
           "have chat completions decoded in calls of so many tokens, each going on from the last; 0 = in one", 0, 1 << 20);
}

void add_prefill(Options& o, SidecarConfig& c) {
  o.group("Prefill")
      .add("kv-connector", &c.connector, "protocol between the workers", connector_names())
      .alias("connector")
      .add("kv-push", &c.kv_push,
           "auto = both legs begin at once where both engines are Baton's, and the KV moves while it is computed; off = one leg "
           "after the other",
           {"auto", "off"})
      .add("on-prefill-failure", &c.on_prefill_failure,
           "a prefiller that is down, late, overloaded or broken: local = this engine reads the prompt itself; next = the next "
           "host of the header, then local; error = the client gets the failure, as llm-d does",
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
      .add("kv-params-token", &c.kv_params_token, "shown to the engines, for their --kv-params-trust=token")
      .env("BATON_KV_PARAMS_TOKEN")
      .add("expose-kv-params", &c.expose_kv_params,
           "show clients the kv_transfer_params of the answer; else the key stays and its value is null")
      .add("rewrite-cached-tokens", &c.rewrite_cached_tokens,
           "report the prefiller's usage.prompt_tokens_details.cached_tokens, as llm-d does, where the prefiller reports them")
      .add("pod-ip", &c.pod_ip, "address of this pod, which headers and MoRI-IO name it by")
      .alias("moriio-local-pod-ip")
      .env("POD_IP");
  o.group("Connectors")
      .add("mooncake-bootstrap-port", &c.mooncake_bootstrap_port, "port", "mooncake: where prefillers tell their engine ids", 1,
           65535)
      .env("MOONCAKE_BOOTSTRAP_PORT")
      .add("sglang-bootstrap-port", &c.sglang_bootstrap_port, "port", "sglang: bootstrap server of the prefillers", 1, 65535)
      .env("SGLANG_BOOTSTRAP_PORT")
      .add("p2p-connector-port", &c.p2p_connector_port, "port", "offloading: the workers' peer-to-peer port, of rank 0", 1, 65535)
      .env("P2P_CONNECTOR_PORT")
      .add("enable-p2p-pull", &c.p2p_pull, "nixlv2: honour x-kv-cache-source-host-port (the offloading connector always does)")
      .add("ec-connector", &c.ec_connector,
           "encoder stage before the prefill: ec-example = through shared storage, ec-nixl = with ec_transfer_params; empty = "
           "none",
           encoder_connectors());
}

void add_moriio(Options& o, SidecarConfig& c) {
  MoriioConfig& m = c.moriio;
  o.group("MoRI-IO (nixlv2, AMD)")
      .add("moriio-write-mode", &m.write_mode, "the prefiller writes KV into the decode worker")
      .add("moriio-parallel-dispatch", &m.parallel_dispatch,
           "both legs at once; the client sees nothing before the prefill is good")
      .add_duration("moriio-parallel-decode-wait-timeout", &m.wait_timeout_ms, "for the prefill of a parallel dispatch; then 504")
      .add("moriio-decode-notify-port", &m.decode_notify_port, "port", "of the decode worker", 1, 65535)
      .add("moriio-decode-handshake-port", &m.decode_handshake_port, "port", "of the decode worker", 1, 65535)
      .add("moriio-prefill-notify-port", &m.prefill_notify_port, "port", "of the prefill workers", 1, 65535)
      .add("moriio-prefill-handshake-port", &m.prefill_handshake_port, "port", "of the prefill workers", 1, 65535)
      .add("moriio-tp-size", &m.tp_size, "ranks", "tensor parallelism", 1, 4096)
      .add("moriio-dp-size", &m.dp_size, "ranks", "data parallelism, over all pods", 1, 4096)
      .add("moriio-dp-size-local", &m.dp_size_local, "ranks", "data parallelism of one pod; 0 = not said", 0, 4096)
      .add(comma_list("moriio-remote-hosts", "hosts of the prefill side, resolved again and again", &m.remote_hosts))
      .add(comma_list("moriio-decode-hosts", "hosts of the decode side, likewise", &m.decode_hosts))
      .add("moriio-dns-resolve-ttl", &m.resolve_ttl_s, "s", "how often", 1, 86'400)
      .env("MORIIO_DNS_RESOLVE_TTL_SECONDS");
}

void add_security(Options& o, SidecarConfig& c) {
  o.group("Workers' TLS and who they may be")
      .add(stages(c, "enable-tls", "stages reached over TLS: prefiller, decoder, encoder", &StageTls::use, true))
      .add(stages(c, "tls-insecure-skip-verify", "stages whose certificate is not verified", &StageTls::verify, false))
      .add(old_bool("prefiller-use-tls", "v0.3.0's --enable-tls=prefiller", &c.prefiller_tls.use, true))
      .add(old_bool("decoder-use-tls", "v0.3.0's --enable-tls=decoder", &c.decoder_tls.use, true))
      .add(old_bool("prefiller-tls-insecure-skip-verify", "v0.3.0's", &c.prefiller_tls.verify, false))
      .add(old_bool("decoder-tls-insecure-skip-verify", "v0.3.0's", &c.decoder_tls.verify, false))
      .add("tls-ca-file", &c.ca_file, "PEM bundle trusted for the workers' certificates; empty = the system's")
      .add(comma_list("allowed-prefillers",
                      "workers that headers may name: host, address or CIDR, each with or without :port; switches the check on",
                      &c.allowed_prefillers))
      .add("enable-ssrf-protection", &c.ssrf_protection, "headers may name members of --inference-pool only, address and port")
      .add("inference-pool", &c.inference_pool, "InferencePool, namespace/name or name")
      .env("INFERENCE_POOL")
      .add("inference-pool-namespace", &c.inference_pool_namespace, "v0.3.0's way to say it")
      .env("INFERENCE_POOL_NAMESPACE")
      .add("inference-pool-name", &c.inference_pool_name, "v0.3.0's way to say it")
      .env("INFERENCE_POOL_NAME")
      .add("pool-group", &c.pool_group, "API group of the InferencePool",
           {"inference.networking.k8s.io", "inference.networking.x-k8s.io"})
      .add("kubeconfig", &c.kubeconfig, "credentials for the API server; empty = the pod's, or ~/.kube/config");
}

}  // namespace

Result<std::pair<std::string, std::string>> SidecarConfig::pool() const {
  std::string text = inference_pool;
  if (text.empty() && !inference_pool_name.empty()) {
    text = cat(inference_pool_namespace.empty() ? "default" : inference_pool_namespace, '/', inference_pool_name);
  }
  size_t slash = text.find('/');
  std::string ns = slash == std::string::npos ? "default" : text.substr(0, slash);
  std::string name = slash == std::string::npos ? text : text.substr(slash + 1);
  if (ns.empty() || name.empty() || name.find('/') != std::string::npos) {
    return fail(Code::kInvalidArgument, "--inference-pool wants namespace/name or name, not '", text, "'");
  }
  return std::pair(ns, name);
}

Result<> SidecarConfig::check() const {
  std::vector<std::string> errors;
  auto must = [&](bool holds, std::string otherwise) {
    if (!holds) errors.push_back(std::move(otherwise));
  };
  must(find_connector(connector) != nullptr, cat("--kv-connector=", connector, ": no such connector"));
  must(prefill_max_retries == 0 || prefill_retry_backoff_ms > 0,
       "--prefill-retry-backoff must be above 0 when --prefill-max-retries is");
  int last = port + data_parallel_size - 1, engine_last = model_server_port + data_parallel_size - 1;
  must(port == 0 || last < model_server_port || port > engine_last || model_server_host != "127.0.0.1",
       cat("--port and --model-server-port are both ", std::max(port, model_server_port)));
  must(metrics_port == 0 || port == 0 || metrics_port < port || metrics_port > last,
       cat("--port and --metrics-port are both ", metrics_port));
  must(last <= 65535, cat("--port + --data-parallel-size goes up to ", last));
  must(engine_last <= 65535, cat("--model-server-port + --data-parallel-size goes up to ", engine_last));
  must(p2p_connector_port + data_parallel_size - 1 <= 65535,
       cat("--p2p-connector-port + --data-parallel-size goes up to ", p2p_connector_port + data_parallel_size - 1));
  must(!p2p_pull || connector == "nixlv2" || connector == "nixl", "--enable-p2p-pull works with --kv-connector=nixlv2 only");
  must(!moriio.parallel_dispatch || moriio.write_mode, "--moriio-parallel-dispatch needs --moriio-write-mode");
  if (moriio.write_mode) {
    must(connector == "nixlv2" || connector == "nixl", "--moriio-write-mode works with --kv-connector=nixlv2 only");
    must(!pod_ip.empty(), "--moriio-write-mode needs --moriio-local-pod-ip or the environment variable POD_IP");
    must(moriio.dp_size_local <= moriio.dp_size, "--moriio-dp-size-local is larger than --moriio-dp-size");
  }
  for (const std::string& text : allowed_prefillers) {
    if (auto r = parse_allowed(text); !r) errors.push_back(cat("--allowed-prefillers: ", r.error().message));
  }
  if (ssrf_protection) {
    bool named = !inference_pool.empty() || !inference_pool_name.empty();
    must(named || !allowed_prefillers.empty(), "--enable-ssrf-protection needs --inference-pool or --allowed-prefillers");
    if (auto r = pool(); named && !r) errors.push_back(r.error().message);
  }
  std::string all;
  for (const auto& error : errors) all += cat(all.empty() ? "" : "; ", error);
  if (!all.empty()) return fail(Code::kInvalidArgument, all);
  return {};
}

Options sidecar_options(SidecarConfig& c) {
  Options o("baton-sidecar", "Proxy beside a decode engine: has the prompt prefilled elsewhere, then lets the engine decode.",
            "baton-sidecar --port 8000 --model-server-port 8200 --secure-proxy=false");
  add_listener(o, c);
  add_prefill(o, c);
  add_moriio(o, c);
  add_security(o, c);
  o.group("Log")
      .add("log-level", &c.log_level, "least severe line written", {"debug", "info", "warn", "error", "off"})
      .add("zap-encoder", &c.log_encoder, "how lines are written", {"console", "json"})
      .add("tracing", &c.tracing, "spans by OTLP over HTTP to $OTEL_EXPORTER_OTLP_ENDPOINT (docs/tracing.md)")
      .add(verbosity(c, "zap-log-level", 1))
      .add(verbosity(c, "v", 4));
  o.ignore({"zap-devel", "zap-stacktrace-level", "zap-time-encoding"});
  return o;
}

}  // namespace baton::sidecar
