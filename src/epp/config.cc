#include "epp/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <thread>

#include "discovery/kubernetes.h"

namespace baton::epp {
namespace {

Option port_row(std::string name, int* target, int fallback, std::string help) {
  Option o;
  o.name = std::move(name), o.unit = "port", o.help = std::move(help);
  o.default_text = cat(fallback, ", none with --http-port");
  o.get = [target] { return *target == kPortUnset ? std::string() : cat(*target); };
  o.set = [target](std::string_view text) -> Result<> {
    int value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > 65535) {
      return fail(Code::kInvalidArgument, "wants a port, 0 to 65535, not '", text, "'");
    }
    *target = value;
    return {};
  };
  return o;
}

Option quantity_row(std::string name, int64_t* target, std::string help) {
  Option o;
  o.name = std::move(name), o.unit = "bytes", o.help = std::move(help);
  o.get = [target] { return cat(*target); };
  o.default_text = o.get();
  o.set = [target](std::string_view text) -> Result<> {
    if (text.empty()) return {};  // charts render an empty value for "the default"
    BATON_TRY(*target, parse_quantity(text));
    return {};
  };
  return o;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void add_listeners(Options& o, RouterFlags& f) {
  o.group("Endpoint picker (ext_proc)")
      .add(port_row("grpc-port", &f.grpc_port, 9002, "Envoy's external processing; 0 takes any free port"))
      .alias("grpcPort")
      .add(port_row("grpc-health-port", &f.grpc_health_port, 9003, "gRPC health, plaintext"))
      .alias("grpcHealthPort")
      .add(port_row("metrics-port", &f.metrics_port, 9090, "/metrics, /healthz and /debug/plugins/state"))
      .alias("metricsPort")
      .add("grpc-host", &f.host, "address of these three; :: takes IPv4 too")
      .add("grpc-threads", &f.io_threads, "threads", "threads that serve ext_proc; 0 = one a core, four at most", 0, 64)
      .add("secure-serving", &f.secure_serving, "TLS on the ext_proc port, with a certificate made at start unless --cert-path")
      .alias("secureServing")
      .add("cert-path", &f.cert_path, "folder with tls.crt and tls.key")
      .alias("certPath")
      .add("enable-cert-reload", &f.enable_cert_reload, "follow the certificate's files as they change")
      .add("tls-min-version", &f.tls_min_version, "VersionTLS12 or VersionTLS13")
      .add("tls-cipher-suites", &f.tls_cipher_suites, "comma list, as Go names them")
      .add("health-checking", &f.health_checking, "answer gRPC health on the ext_proc port too")
      .alias("healthChecking")
      .add(quantity_row("grpc-max-recv-msg-size", &f.recv_msg_bytes_max, "longest message taken from the proxy (4Mi)"))
      .add(quantity_row("grpc-max-send-msg-size", &f.send_msg_bytes_max, "accepted; our messages are 62 kB at most"))
      .add("echo-headers", &f.echo_headers, "set every request and response header again, as llm-d does; else changed ones only")
      .add("emit-endpoint-scores", &f.emit_endpoint_scores, "all candidates' scores as dynamic metadata")
      .add("disable-endpoint-subset-filter", &f.disable_endpoint_subset_filter, "ignore the proxy's subset hint")
      .add("enable-grpc-stream-metrics", &f.stream_metrics, "llm_d_epp_extproc_* metrics");
}

void add_pool(Options& o, RouterFlags& f) {
  o.group("Pool")
      .add("pool-name", &f.pool_name, "InferencePool to follow; with --endpoints its name in metrics")
      .alias("poolName")
      .add("pool-namespace", &f.pool_namespace, "its namespace; empty = $NAMESPACE, else default")
      .alias("poolNamespace")
      .add("pool-group", &f.pool_group, "its API group; empty = whichever the cluster has")
      .alias("poolGroup")
      .add("endpoint-selector", &f.endpoint_selector, "without InferencePool: label selector of the pods")
      .add("endpoint-target-ports", &f.endpoint_target_ports, "without InferencePool: 1 to 8 ports of each pod, comma separated")
      .add("endpoints", &f.endpoints_file,
           "without Kubernetes: YAML or JSON file of endpoints (llm-d's file-discovery schema), followed as it changes")
      .add("kubeconfig", &f.kubeconfig, "credentials; empty = $KUBECONFIG, the pod's service account, ~/.kube/config")
      .add("ha-enable-leader-election", &f.leader_election, "of several replicas one serves, by a Lease")
      .alias("haEnableLeaderElection")
      .add_duration("refresh-metrics-interval", &f.refresh_metrics_interval_ms, "between two looks at an endpoint's metrics")
      .alias("refreshMetricsInterval")
      .add_duration("metrics-staleness-threshold", &f.metrics_staleness_threshold_ms,
                    "older numbers of an endpoint count against it")
      .alias("metricsStalenessThreshold")
      .add("propose-role-flips", &f.propose_role_flips,
           "show how pressed prefill and decode are, and log which worker should change its role");
}

void add_configuration(Options& o, RouterFlags& f) {
  o.group("Policies")
      .add("config-file", &f.config_file, "EndpointPickerConfig of any release, followed as it changes")
      .alias("configFile")
      .add("config-text", &f.config_text, "the same as text")
      .alias("configText")
      .add("validate-config", &f.validate_config, "say all that is wrong with flags and configuration, and stop")
      .add("allow-experimental-plugins", &f.allow_experimental_plugins, "plugins marked alpha")
      .add("experimental-flow-control", &f.experimental_flow_control, "feature gate flowControl on")
      .env("ENABLE_EXPERIMENTAL_FLOW_CONTROL_LAYER")
      .add("seed", &f.seed, "", "seed of the picker's ties; 0 = random");
  o.group("Endpoint picker limits")
      .add("ext-proc-max-body-bytes", &f.body_bytes_max, "bytes", "of a request; over it: 413", 1, int64_t{1} << 32)
      .add_duration("ext-proc-body-timeout", &f.body_timeout_ms, "a client that sends nothing of its body for so long gets 408")
      .add_duration("drain-timeout", &f.drain_timeout_ms, "after SIGTERM serve on for so long, not ready any more");
}

// What earlier releases took as flags and today's configuration file says instead.
void add_historic(Options& o, RouterFlags& f) {
  o.group("Metrics of the model servers, as earlier releases took them")
      .add("model-server-metrics-port", &f.model_server_metrics_port, "port", "0 = the endpoint's own", 0, 65535)
      .alias("modelServerMetricsPort")
      .add("model-server-metrics-path", &f.metrics_path, "empty = /metrics")
      .alias("modelServerMetricsPath")
      .add("model-server-metrics-scheme", &f.metrics_scheme, "empty = http")
      .alias("modelServerMetricsScheme")
      .add("model-server-metrics-https-insecure-skip-verify", &f.metrics_insecure_skip_verify, "take any certificate")
      .alias("modelServerMetricsHttpsInsecureSkipVerify")
      .add("total-queued-requests-metric", &f.waiting_metric, "name of the gauge of waiting requests")
      .alias("totalQueuedRequestsMetric")
      .add("total-running-requests-metric", &f.running_metric, "of running requests")
      .alias("totalRunningRequestsMetric")
      .add("kv-cache-usage-percentage-metric", &f.kv_usage_metric, "of KV cache use")
      .alias("kvCacheUsagePercentageMetric")
      .add("lora-info-metric", &f.lora_metric, "of LoRA adapters")
      .alias("loraInfoMetric")
      .add("cache-info-metric", &f.cache_info_metric, "of block size and count")
      .alias("cacheInfoMetric");
}

void add_watching(Options& o, RouterFlags& f) {
  o.group("Watching")
      .add("metrics-endpoint-auth", &f.metrics_endpoint_auth, "with Kubernetes: /metrics and /debug want a bearer token whose user may get that path (TokenReview, SubjectAccessReview); "
           "else they are open")
      .add("metrics-cert-dir", &f.metrics_cert_dir, "accepted; /metrics is plain HTTP")
      .add("metrics-client-ca-file", &f.metrics_client_ca_file, "accepted; /metrics is plain HTTP")
      .add_duration("refresh-prometheus-metrics-interval", &f.refresh_prometheus_metrics_interval_ms,
                    "accepted; pool gauges are brought up to date when /metrics is read")
      .alias("refreshPrometheusMetricsInterval")
      .add("enable-pprof", &f.enable_pprof, "accepted; there is no such page, use perf")
      .alias("enablePprof")
      .add("tracing", &f.tracing, "spans by OTLP over HTTP to $OTEL_EXPORTER_OTLP_ENDPOINT, by OpenTelemetry's environment variables; where that names "
           "no collector, traceparent passes through untouched")
      .add("log-level", &f.log_level, "least severe line written", {"debug", "info", "warn", "error", "off"})
      .add("zap-encoder", &f.log_encoder, "how log lines are written: json is one object a line, with x-request-id",
           {"console", "json"})
      .add("v", &f.verbosity, "level", "llm-d's log level: from 4 on debug", 0, 10);
}

}  // namespace

Result<int64_t> parse_quantity(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, int64_t>, 9> kSuffixes = {{{"Ki", 1 << 10},
                                                                              {"Mi", 1 << 20},
                                                                              {"Gi", 1 << 30},
                                                                              {"k", 1'000},
                                                                              {"K", 1'000},
                                                                              {"M", 1'000'000},
                                                                              {"m", 1'000'000},
                                                                              {"G", 1'000'000'000},
                                                                              {"", 1}}};
  std::string_view rest = text;
  if (rest.ends_with('B')) rest.remove_suffix(1);
  int64_t number = 0;
  auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  const auto unit = std::ranges::find(kSuffixes, rest, &std::pair<std::string_view, int64_t>::first);
  if (error != std::errc() || unit == kSuffixes.end() || number <= 0 || number > (int64_t{1} << 40) / unit->second) {
    return fail(Code::kInvalidArgument, "wants a size such as 4Mi, not '", text, "'");
  }
  return number * unit->second;
}

Result<std::vector<int>> parse_ports(std::string_view text) {
  std::vector<int> out;
  for (size_t i = 0; i < text.size();) {
    if (std::string_view(" ,[]").find(text[i]) != std::string_view::npos) {
      ++i;
      continue;
    }
    int port = 0;
    auto [end, error] = std::from_chars(text.data() + i, text.data() + text.size(), port);
    if (error != std::errc() || port < 1 || port > 65535) return fail(Code::kInvalidArgument, "wants ports, not '", text, "'");
    if (std::ranges::find(out, port) != out.end()) return fail(Code::kInvalidArgument, "has port ", port, " twice");
    out.push_back(port);
    i = static_cast<size_t>(end - text.data());
  }
  if (out.empty() || out.size() > 8) return fail(Code::kInvalidArgument, "wants 1 to 8 ports, not ", out.size());
  return out;
}

void add_router_flags(Options& options, RouterFlags& flags) {
  add_listeners(options, flags);
  add_pool(options, flags);
  add_configuration(options, flags);
  add_historic(options, flags);
  add_watching(options, flags);
  options.ignore({"zap-log-level", "zap-devel", "zap-stacktrace-level", "zap-time-encoding"});
  options.unknown_is_warning("llm-d EPP");
}

Result<> RouterFlags::finish(bool with_gateway) {
  std::string errors;
  auto wrong = [&errors](const auto&... parts) { errors += cat(errors.empty() ? "" : "\n", parts...); };
  if (!with_gateway) {
    if (grpc_port == kPortUnset) grpc_port = 9002;
    if (grpc_health_port == kPortUnset) grpc_health_port = 9003;
    if (metrics_port == kPortUnset) metrics_port = 9090;
  }
  if (pool_namespace.empty()) pool_namespace = environment("NAMESPACE");
  if (io_threads == 0) io_threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 4u));
  refresh_metrics_interval_ms = std::max<int64_t>(refresh_metrics_interval_ms, 50);  // as llm-d does
  if (!config_file.empty() && !config_text.empty()) wrong("--config-file and --config-text exclude each other");
  if (!pool_name.empty() && !endpoint_selector.empty()) wrong("--pool-name and --endpoint-selector exclude each other");
  if (!endpoint_selector.empty() && endpoint_target_ports.empty()) wrong("--endpoint-selector needs --endpoint-target-ports");
  if (!endpoint_target_ports.empty()) {
    if (auto ports = parse_ports(endpoint_target_ports); !ports) wrong("--endpoint-target-ports ", ports.error().message);
    if (endpoint_selector.empty()) wrong("--endpoint-target-ports needs --endpoint-selector");
  }
  if (!cert_path.empty() && !secure_serving) wrong("--cert-path needs --secure-serving");
  if (body_timeout_ms <= 0) wrong("--ext-proc-body-timeout must be above 0");
  if (verbosity >= 4 && log_level == "info") log_level = "debug";
  if (!errors.empty()) return fail(Code::kInvalidArgument, errors);
  return {};
}

std::vector<int> RouterFlags::target_ports() const {
  return endpoint_target_ports.empty() ? std::vector<int>() : parse_ports(endpoint_target_ports).value_or(std::vector<int>());
}

picker::PickerOptions RouterFlags::picker_options() const {
  picker::PickerOptions out;
  if (!pool_name.empty()) out.pool_name = pool_name;
  if (!endpoint_selector.empty()) {  // as discovery names it
    if (auto deployment = discovery::deployment_of_pod(environment("POD_NAME"))) out.pool_name = *std::move(deployment);
  }
  if (!pool_namespace.empty()) out.pool_namespace = pool_namespace;
  out.scrape_interval_ms = refresh_metrics_interval_ms;
  out.staleness_ms = metrics_staleness_threshold_ms;
  out.body_bytes_max = static_cast<size_t>(body_bytes_max);
  out.subset_filter = !disable_endpoint_subset_filter;
  out.emit_scores = emit_endpoint_scores;
  out.propose_role_flips = propose_role_flips;
  out.allow_experimental = allow_experimental_plugins;
  out.seed = static_cast<uint64_t>(seed);
  return out;
}

net::TlsServerOptions RouterFlags::tls_options() const {
  net::TlsServerOptions out;
  out.cert_dir = cert_path;
  out.reload = enable_cert_reload;
  out.min_version = tls_min_version;
  out.cipher_suites = tls_cipher_suites;
  out.alpn = {"h2"};
  return out;
}

}  // namespace baton::epp
