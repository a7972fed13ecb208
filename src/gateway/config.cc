#include "gateway/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/json.h"
#include "gateway/limits.h"
#include "route/config.h"

namespace baton::gateway {
namespace {

struct Weighted {
  std::string name;
  double weight = 1;
};

// "queue-scorer=2,prefix-cache-scorer"; names are the EndpointPickerConfig's and judged where that is read.
Result<std::vector<Weighted>> read_scorers(std::string_view flag, std::string_view text) {
  std::vector<Weighted> out;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(item.size() + 1, text.size()));
    const size_t equals = item.find('=');
    Weighted row{.name = std::string(item.substr(0, equals))};
    if (equals != std::string_view::npos) {
      const std::string_view weight = item.substr(equals + 1);
      const auto [end, error] = std::from_chars(weight.data(), weight.data() + weight.size(), row.weight);
      if (error != std::errc() || end != weight.data() + weight.size() || !std::isfinite(row.weight) || row.weight < 0) {
        return fail(Code::kInvalidArgument, "--", flag, ": weight of ", row.name, " must be a number >= 0, got \"", weight, "\"");
      }
    }
    out.push_back(std::move(row));
  }
  return out;
}

void write_profile(JsonWriter& w, std::string_view name, const std::vector<Weighted>& scorers, std::string_view picker) {
  w.object().field("name", name).key("plugins").array();
  w.object().field("pluginRef", cat(name, "-filter")).end();
  for (const Weighted& row : scorers) w.object().field("pluginRef", row.name).field("weight", row.weight).end();
  w.object().field("pluginRef", picker).end();
  w.end().end();
}

}  // namespace

Result<> GatewayConfig::check() const {
  std::string errors;
  auto complain = [&](std::string_view text) { errors += cat(errors.empty() ? "" : "; ", text); };
  if (pd_decider == "prefix-based-pd-decider" && non_cached_tokens == 0)
    complain("--pd-decider prefix-based-pd-decider needs --non-cached-tokens above 0: 0 would never hand over");
  if (config_file.empty() && config_text.empty() && pools_file.empty()) {
    const auto text = picker_config();
    if (!text) complain(text.error().message);
    const auto loaded = route::load_config(text.value_or("{}"), {.allow_experimental = allow_experimental_plugins});
    for (const std::string& error : text ? loaded.errors : std::vector<std::string>()) complain(error);
  }
  if (!config_file.empty() && !config_text.empty()) complain("--config-file and --config-text exclude each other");
  if (!pools_file.empty() && !endpoints_file.empty())
    complain("--pools names the endpoints of every pool, --endpoints those of the only one");
  if (tls_cert_file.empty() != tls_key_file.empty()) complain("--tls-cert-file and --tls-key-file come together");
  if (!tls_cert_dir.empty() && !tls_cert_file.empty()) complain("--tls-cert-dir and --tls-cert-file exclude each other");
  if (!errors.empty()) return fail(Code::kInvalidArgument, errors);
  return {};
}

Result<std::string> GatewayConfig::picker_config() const {
  BATON_TRY(const auto decode, read_scorers("scorers", scorers));
  BATON_TRY(const auto prefill, read_scorers("prefill-scorers", prefill_scorers.empty() ? scorers : prefill_scorers));
  constexpr std::string_view kDecodePicker = "decode-picker", kPrefillPicker = "prefill-picker";
  JsonWriter w;
  w.object().field("apiVersion", "llm-d.ai/v1alpha1").field("kind", "EndpointPickerConfig").key("plugins").array();
  const bool disaggregates = pd_decider != "never";
  w.object().field("type", "decode-filter").end();
  if (disaggregates) w.object().field("type", "prefill-filter").end();
  std::vector<std::string> seen;
  for (const auto* list : {&decode, &prefill}) {
    if (list == &prefill && !disaggregates) break;
    for (const Weighted& row : *list) {
      if (std::ranges::find(seen, row.name) == seen.end()) w.object().field("type", row.name).end(), seen.push_back(row.name);
    }
  }
  auto with_count = [&](std::string_view name, int count) {
    w.object().field("name", name).field("type", picker).key("parameters").object().field("maxNumOfEndpoints", count).end().end();
  };
  with_count(kDecodePicker, 1);
  if (disaggregates) {
    with_count(kPrefillPicker, prefill_candidates);
    w.object().field("type", pd_decider);
    if (pd_decider == "prefix-based-pd-decider")
      w.key("parameters").object().field("nonCachedTokens", non_cached_tokens).field("promptTokens", prompt_tokens).end();
    w.end();
  }
  w.object().field("type", "disagg-profile-handler").key("parameters").object();
  if (disaggregates) w.key("deciders").object().field("prefill", pd_decider).end();
  w.field("onMissingDecode", prefill_may_decode ? "serve" : "fail").end().end();
  w.end().key("schedulingProfiles").array();
  write_profile(w, "decode", decode, kDecodePicker);
  if (disaggregates) write_profile(w, "prefill", prefill, kPrefillPicker);
  return w.end().end().take();
}

namespace {

void add_pool_flags(Options& o, GatewayConfig& c) {
  o.group("Endpoints")
      .add("endpoints", &c.endpoints_file,
           "YAML or JSON file of endpoints (llm-d's file-discovery schema), followed as it changes")
      .add("pool-name", &c.pool_name, "name of the pool in metrics")
      .add_duration("refresh-metrics-interval", &c.refresh_metrics_interval_ms, "between two looks at a busy endpoint's /metrics")
      .add_duration("metrics-staleness-threshold", &c.metrics_staleness_threshold_ms,
                    "older numbers of an endpoint count against it");
  o.group("Configuration")
      .add("config-file", &c.config_file, "EndpointPickerConfig, as llm-d's picker takes it; the picking flags are then unused")
      .add("config-text", &c.config_text, "the same as text")
      .add("allow-experimental-plugins", &c.allow_experimental_plugins, "accept plugins that llm-d calls alpha")
      .add("seed", &c.seed, "", "seed of the picker's ties; 0 = random");
}

}  // namespace

void add_gateway_flags(Options& o, GatewayConfig& c) {
  o.group("Gateway")
      .add("http-port", &c.http_port, "port", "HTTP gateway; 0 takes any free port", 0, 65535)
      .add("host", &c.host, "address to listen on")
      .add("io-threads", &c.io_threads, "threads", "threads that accept and forward", 1, 64)
      .add("pools", &c.pools_file, "file of several pools in this one process: name, endpoints, configuration and models of each")
      .add("resume-streams", &c.resume_streams, "a stream whose worker is lost goes on from another one, from the text so far")
      .add("http2", &c.http2, "take HTTP/2 beside HTTP/1.1 (by ALPN, or with prior knowledge)")
      .add("access-log", &c.access_log,
           "JSON lines, one a request: who, which workers and why, times, tokens; - = standard output");
  o.group("Clients")
      .add("api-key", &c.api_key, "bearer token that /v1 asks of clients")
      .env("BATON_API_KEY")
      .add("api-keys", &c.api_keys_file,
           "file of keys, one a line: NAME KEY-or-sha256:HEX [tokens_per_minute=N] [burst=N] [objective=NAME]; followed as it "
           "changes")
      .add("tls", &c.tls, "HTTPS, with a certificate made at start unless files are named")
      .add("tls-cert-dir", &c.tls_cert_dir, "folder with tls.crt and tls.key; followed as they change")
      .add("tls-cert-file", &c.tls_cert_file, "the same as two files")
      .add("tls-key-file", &c.tls_key_file, "the same as two files");
  o.group("Picking without a configuration file")
      .add("scorers", &c.scorers, "SCORER=WEIGHT,... for decode workers")
      .add("prefill-scorers", &c.prefill_scorers, "the same for prefill workers; empty = as --scorers")
      .add("picker", &c.picker, "how the scored endpoints become a choice",
           {"max-score-picker", "random-picker", "weighted-random-picker"})
      .add("pd-decider", &c.pd_decider, "when a prompt is prefilled on another worker",
           {"always-disagg-pd-decider", "prefix-based-pd-decider", "never"})
      .add("non-cached-tokens", &c.non_cached_tokens, "tokens",
           "prefix-based-pd-decider: hand over from this many uncached tokens on")
      .add("prompt-tokens", &c.prompt_tokens, "tokens", "prefix-based-pd-decider: and from this prompt length on")
      .add("prefill-candidates", &c.prefill_candidates, "workers",
           "prefill workers named to the sidecar, best first; more than 1 needs a sidecar that takes a list", 1,
           kPrefillCandidatesMax)
      .add("prefill-may-decode", &c.prefill_may_decode, "without any decode worker let a prefill worker serve whole requests");
  o.group("Gateway limits")
      .add("max-attempts", &c.attempts_max, "attempts", "endpoints tried for one request before its first answer byte", 1,
           kAttemptsMax)
      .add("max-concurrent-requests", &c.concurrent_requests_max, "requests", "over it: 429 with Retry-After", 1, 1'000'000)
      .add("max-header-bytes", &c.header_bytes_max, "bytes", "over it: 431", 1'024, 1 << 20)
      .add("max-body-bytes", &c.body_bytes_max, "bytes", "over it: 413", 1, int64_t{1} << 32)
      .add_duration("body-timeout", &c.body_timeout_ms, "a client that sends nothing more of its body for so long: 408")
      .add_duration("connect-timeout", &c.connect_timeout_ms, "to a worker")
      .add_duration("first-byte-timeout", &c.first_byte_timeout_ms, "from a worker, queueing and prefill included")
      .add_duration("idle-timeout", &c.idle_timeout_ms, "between two pieces of a worker's answer");
}

Options gateway_options(GatewayConfig& c) {
  Options o("baton-router", "Endpoint picker with an embedded HTTP gateway: one address in front of prefill and decode workers.",
            "baton-router --endpoints FILE --http-port PORT");
  add_gateway_flags(o, c);
  add_pool_flags(o, c);
  o.group("Process")
      .add("metrics-port", &c.metrics_port, "port",
           "also serve /metrics, /health and /debug/plugins/state here; 0 = only on the gateway's own port", 0, 65535)
      .add("drain-timeout", &c.drain_timeout_ms, "ms", "wait this long for running requests at the end", 0, 86'400'000)
      .add("log-level", &c.log_level, "least severe line written", {"debug", "info", "warn", "error", "off"});
  o.unknown_is_warning("llm-d EPP");
  return o;
}

}  // namespace baton::gateway
