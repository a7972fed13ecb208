#include "gateway/config.h"

#include <array>
#include <utility>

namespace baton::gateway {
namespace {

constexpr std::array<std::pair<std::string_view, route::PickerKind>, 3> kPickers = {
    {{"max-score-picker", route::PickerKind::kMaxScore},
     {"random-picker", route::PickerKind::kRandom},
     {"weighted-random-picker", route::PickerKind::kWeightedRandom}}};
constexpr std::array<std::pair<std::string_view, route::DeciderKind>, 3> kDeciders = {
    {{"always-disagg-pd-decider", route::DeciderKind::kAlways},
     {"prefix-based-pd-decider", route::DeciderKind::kPrefixBased},
     {"never", route::DeciderKind::kNever}}};

template <class Rows>
std::vector<std::string> names(const Rows& rows) {
  std::vector<std::string> out;
  for (const auto& row : rows) out.emplace_back(row.first);
  return out;
}

}  // namespace

Result<route::RouteConfig> GatewayConfig::finish() const {
  route::RouteConfig out = route::RouteConfig::defaults();
  std::string errors;
  auto take = [&](std::string_view flag, const std::string& text, route::Profile& profile) {
    if (auto parsed = route::parse_profile(text))
      profile = *parsed;
    else
      errors += cat(errors.empty() ? "" : "; ", "--", flag, ": ", parsed.error().message);
  };
  take("scorers", scorers, out.decode);
  take("prefill-scorers", prefill_scorers.empty() ? scorers : prefill_scorers, out.prefill);
  for (const auto& [name, kind] : kPickers) {
    if (picker == name) out.picker = kind;
  }
  for (const auto& [name, kind] : kDeciders) {
    if (pd_decider == name) out.decider = kind;
  }
  if (out.decider == route::DeciderKind::kPrefixBased && non_cached_tokens == 0) {
    errors += cat(errors.empty() ? "" : "; ",
                  "--pd-decider prefix-based-pd-decider needs --non-cached-tokens above 0: 0 would never hand over");
  }
  out.non_cached_tokens = non_cached_tokens;
  out.prompt_tokens_min = prompt_tokens;
  out.stale_after_ms = metrics_staleness_threshold_ms;
  out.prefill_may_decode = prefill_may_decode;
  if (!errors.empty()) return fail(Code::kInvalidArgument, errors);
  return out;
}

Options gateway_options(GatewayConfig& c) {
  Options o("baton-router", "Endpoint picker with an embedded HTTP gateway: one address in front of prefill and decode workers.",
            "baton-router --endpoints FILE --http-port PORT");
  o.group("Listener")
      .add("http-port", &c.http_port, "port", "HTTP gateway; 0 takes any free port", 0, 65535)
      .add("host", &c.host, "address to listen on")
      .add("metrics-port", &c.metrics_port, "port", "also serve /metrics and /health here; 0 = only on the gateway's own port", 0,
           65535)
      .add("io-threads", &c.io_threads, "threads", "threads that accept and forward", 1, 64)
      .add("api-key", &c.api_key, "bearer token that /v1 asks of clients")
      .env("BATON_API_KEY")
      .add("drain-timeout", &c.drain_timeout_ms, "ms", "wait this long for running requests at the end", 0, 86'400'000);
  o.group("Endpoints")
      .add("endpoints", &c.endpoints_file,
           "YAML or JSON file of endpoints (llm-d's file-discovery schema), followed as it changes")
      .add("pool-name", &c.pool_name, "name of the pool in metrics")
      .add_duration("refresh-metrics-interval", &c.refresh_metrics_interval_ms, "between two looks at a busy endpoint's /metrics")
      .add_duration("metrics-staleness-threshold", &c.metrics_staleness_threshold_ms,
                    "older numbers of an endpoint count against it");
  o.group("Picking")
      .add("scorers", &c.scorers, "SCORER=WEIGHT,... for decode workers")
      .add("prefill-scorers", &c.prefill_scorers, "the same for prefill workers; empty = as --scorers")
      .add("picker", &c.picker, "how the scored endpoints become a choice", names(kPickers))
      .add("pd-decider", &c.pd_decider, "when a prompt is prefilled on another worker", names(kDeciders))
      .add("non-cached-tokens", &c.non_cached_tokens, "tokens",
           "prefix-based-pd-decider: hand over from this many uncached tokens on")
      .add("prompt-tokens", &c.prompt_tokens, "tokens", "prefix-based-pd-decider: and from this prompt length on")
      .add("prefill-candidates", &c.prefill_candidates, "workers",
           "prefill workers named to the sidecar, best first; more than 1 needs a sidecar that takes a list", 1,
           route::kRankedMax)
      .add("prefill-may-decode", &c.prefill_may_decode, "without any decode worker let a prefill worker serve whole requests")
      .add("seed", &c.seed, "", "seed of the picker's ties; 0 = random");
  o.group("Limits")
      .add("max-attempts", &c.attempts_max, "attempts", "endpoints tried for one request before its first answer byte", 1,
           route::kRankedMax)
      .add("max-concurrent-requests", &c.concurrent_requests_max, "requests", "over it: 429 with Retry-After", 1, 1'000'000)
      .add("max-body-bytes", &c.body_bytes_max, "bytes", "over it: 413", 1, int64_t{1} << 32)
      .add_duration("connect-timeout", &c.connect_timeout_ms, "to a worker")
      .add_duration("first-byte-timeout", &c.first_byte_timeout_ms, "from a worker, queueing and prefill included")
      .add_duration("idle-timeout", &c.idle_timeout_ms, "between two pieces of a worker's answer");
  o.group("Log").add("log-level", &c.log_level, "least severe line written", {"debug", "info", "warn", "error", "off"});
  o.unknown_is_warning("llm-d EPP");
  return o;
}

}  // namespace baton::gateway
