#include "net/otlp.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <future>

#include "base/json.h"
#include "base/log.h"
#include "base/prng.h"
#include "net/otlp_limits.h"
#include "net/tls.h"

namespace baton::net {
namespace {

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

Result<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    uint8_t byte = 0;
    const char* from = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(from, from + 2, byte, 16).ptr != from + 2)
      return fail(Code::kInvalidArgument, "has a '%' that encodes nothing");
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

// Reads variables and keeps the first error.
struct Reader {
  const Environ& env;
  std::string error;
  std::string_view text(const char* name) const {
    const char* value = env(name);
    return value == nullptr ? std::string_view() : trimmed(value);
  }
  void wrong(std::string_view name, std::string_view why) {
    if (error.empty()) error = cat(name, " ", why);
  }
  template <class N>
  void number(const char* name, N& out, int64_t min) {
    const std::string_view value = text(name);
    if (value.empty()) return;
    int64_t n = 0;
    const auto [end, bad] = std::from_chars(value.data(), value.data() + value.size(), n);
    if (bad != std::errc() || end != value.data() + value.size() || n < min || n > 1'000'000'000)
      return wrong(name, cat("wants a number from ", min, ", not '", value, "'"));
    out = static_cast<N>(n);
  }
  void pairs(const char* name, std::vector<std::pair<std::string, std::string>>& out) {
    auto read = parse_otel_pairs(text(name));
    if (!read) return wrong(name, read.error().message);
    for (auto& pair : *read) out.push_back(std::move(pair));
  }
};

// "http://host:4318/base", IPv6 in brackets.
bool read_url(std::string_view url, OtlpConfig& out) {
  if (url.starts_with("https://")) {
    out.tls = true;
    url.remove_prefix(8);
  } else if (url.starts_with("http://") || url.starts_with("grpc://")) {  // the latter is how vLLM's documents write it
    url.remove_prefix(7);
  } else {
    return false;
  }
  const size_t slash = std::min(url.find('/'), url.size());
  std::string_view authority = url.substr(0, slash);
  out.path = url.substr(slash);
  out.port = out.tls ? 443 : 80;
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos) {
    const std::string_view port = authority.substr(colon + 1);
    const auto [end, bad] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (bad != std::errc() || end != port.data() + port.size() || out.port < 1 || out.port > 65535) return false;
    authority = authority.substr(0, colon);
  }
  if (authority.starts_with('[') && authority.ends_with(']')) authority = authority.substr(1, authority.size() - 2);
  out.host = authority;
  return !out.host.empty();
}

void read_endpoint(Reader& in, OtlpConfig& out) {
  constexpr const char *kTraces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", *kAll = "OTEL_EXPORTER_OTLP_ENDPOINT";
  const std::string_view traces = in.text(kTraces), all = in.text(kAll);
  const std::string_view url = !traces.empty() ? traces : all;
  if (url.empty()) return;
  if (!read_url(url, out)) return in.wrong(!traces.empty() ? kTraces : kAll, cat("is no http or https address: '", url, "'"));
  if (traces.empty()) {
    while (out.path.ends_with('/')) out.path.pop_back();
    out.path += "/v1/traces";
  } else if (out.path.empty()) {
    out.path = "/";
  }
  // llm-d's charts name the gRPC port; the collectors that listen there take OTLP over HTTP at the next.
  const std::string_view protocol = in.text("OTEL_EXPORTER_OTLP_PROTOCOL");
  if (out.port == 4317 && !protocol.starts_with("http")) {
    out.port = 4318;
    out.note = "the endpoint names OTLP's gRPC port 4317; spans go by HTTP to 4318 (OTEL_EXPORTER_OTLP_PROTOCOL=http/json keeps 4317)";
    if (out.path == "/") out.path = "/v1/traces";
  }
}

void read_resource(Reader& in, std::string_view service, OtlpConfig& out) {
  in.pairs("OTEL_RESOURCE_ATTRIBUTES", out.resource);
  const std::string_view name = in.text("OTEL_SERVICE_NAME");
  const auto at = std::ranges::find(out.resource, "service.name", &std::pair<std::string, std::string>::first);
  if (at == out.resource.end())
    out.resource.insert(out.resource.begin(), {"service.name", std::string(name.empty() ? service : name)});
  else if (!name.empty())
    at->second = name;
  out.resource.emplace_back("telemetry.sdk.name", "baton");
  out.resource.emplace_back("telemetry.sdk.language", "cpp");
}

void write_value(JsonWriter& w, const SpanAttribute::Value& value) {
  w.object();
  if (const auto* b = std::get_if<bool>(&value)) {
    w.field("boolValue", *b);
  } else if (const auto* n = std::get_if<int64_t>(&value)) {
    w.field("intValue", std::to_string(*n));  // 64 bits are text in protobuf's JSON
  } else if (const auto* d = std::get_if<double>(&value)) {
    w.field("doubleValue", *d);
  } else if (const auto* s = std::get_if<std::string>(&value)) {
    w.field("stringValue", *s);
  } else {
    w.key("arrayValue").object().key("values").array();
    if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
      for (const std::string& text : *texts) w.object().field("stringValue", text).end();
    } else {
      for (const double number : std::get<std::vector<double>>(value)) w.object().field("doubleValue", number).end();
    }
    w.end().end();
  }
  w.end();
}

// What a stranger sent may be no UTF-8, and JSON has no other text.
SpanAttribute::Value printable(SpanAttribute::Value value) {
  if (auto* text = std::get_if<std::string>(&value); text != nullptr && !valid_utf8(*text)) {
    for (char& c : *text) c = static_cast<unsigned char>(c) < 0x80 ? c : '?';
  }
  return value;
}

void write_span(JsonWriter& w, const SpanRecord& span) {
  w.object().field("traceId", hex(span.context.trace_id)).field("spanId", hex(span.context.span_id));
  if (std::ranges::any_of(span.parent, [](uint8_t b) { return b != 0; })) w.field("parentSpanId", hex(span.parent));
  w.field("name", span.name).field("kind", static_cast<int>(span.kind));
  w.field("startTimeUnixNano", std::to_string(span.begin_unix_ns)).field("endTimeUnixNano", std::to_string(span.end_unix_ns));
  w.key("attributes").array();
  for (const SpanAttribute& attribute : span.attributes) {
    w.object().field("key", attribute.key).key("value");
    write_value(w, printable(attribute.value));
    w.end();
  }
  w.end().key("status").object();
  if (span.failed) w.field("code", 2).field("message", std::get<std::string>(printable(span.error)));
  w.end().end();
}

}  // namespace

Result<std::vector<std::pair<std::string, std::string>>> parse_otel_pairs(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> out;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = trimmed(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos || trimmed(item.substr(0, equals)).empty())
      return fail(Code::kInvalidArgument, "wants name=value, not '", item, "'");
    if (out.size() >= kOtelPairsMax) return fail(Code::kInvalidArgument, "has more than ", kOtelPairsMax, " pairs");
    BATON_TRY(std::string value, percent_decoded(trimmed(item.substr(equals + 1))));
    out.emplace_back(trimmed(item.substr(0, equals)), std::move(value));
  }
  return out;
}

Result<OtlpConfig> otlp_config(const Environ& env, std::string_view service, std::string_view sampler,
                               std::string_view sampler_argument) {
  using Exporter = OtlpConfig::Exporter;
  OtlpConfig out;
  Reader in{env, {}};
  if (in.text("OTEL_SDK_DISABLED") == "true") return out;
  const std::string_view exporter = in.text("OTEL_TRACES_EXPORTER");
  const bool named = !in.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").empty() || !in.text("OTEL_EXPORTER_OTLP_ENDPOINT").empty();
  if (exporter == "console") {
    out.exporter = Exporter::kConsole;
  } else if (exporter == "otlp" || (exporter.empty() && named)) {
    out.exporter = Exporter::kOtlp;
  } else if (!exporter.empty() && exporter != "none") {
    in.wrong("OTEL_TRACES_EXPORTER", cat("wants otlp, console or none, not '", exporter, "'"));
  }
  if (out.exporter == Exporter::kNone && in.error.empty()) return out;
  read_endpoint(in, out);
  in.pairs(in.text("OTEL_EXPORTER_OTLP_TRACES_HEADERS").empty() ? "OTEL_EXPORTER_OTLP_HEADERS"
                                                                : "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
           out.headers);
  read_resource(in, service, out);
  const std::string_view name = in.text("OTEL_TRACES_SAMPLER"), argument = in.text("OTEL_TRACES_SAMPLER_ARG");
  const auto read = parse_sampler(name.empty() ? sampler : name, argument.empty() && name.empty() ? sampler_argument : argument);
  if (read)
    out.sampler = *read;
  else
    in.wrong("OTEL_TRACES_SAMPLER", cat("and its argument are no sampler: '", name, "' '", argument, "'"));
  out.ca_file = in.text("OTEL_EXPORTER_OTLP_CERTIFICATE");
  in.number("OTEL_EXPORTER_OTLP_TIMEOUT", out.timeout_ms, 1);
  in.number("OTEL_BSP_SCHEDULE_DELAY", out.delay_ms, 1);
  in.number("OTEL_BSP_MAX_QUEUE_SIZE", out.queue_max, 1);
  in.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", out.batch_max, 1);
  out.batch_max = std::min(out.batch_max, out.queue_max);
  if (!in.error.empty()) return fail(Code::kInvalidArgument, in.error);
  return out;
}

std::string otlp_json(const std::vector<std::pair<std::string, std::string>>& resource, std::span<const SpanRecord> spans) {
  JsonWriter w;
  w.object().key("resourceSpans").array().object().key("resource").object().key("attributes").array();
  for (const auto& [key, value] : resource) {
    w.object().field("key", key).key("value");
    write_value(w, printable(value));
    w.end();
  }
  w.end().end().key("scopeSpans").array().object().key("scope").object().field("name", "baton").end().key("spans").array();
  for (const SpanRecord& span : spans) write_span(w, span);
  w.end().end().end().end().end().end();
  return w.take();
}

struct Tracing::Done {
  std::promise<void> over;
  std::future<void> future = over.get_future();
};

Tracing::Tracing(OtlpConfig config, const Clock& clock)
    : config_(std::move(config)), clock_(clock), done_(std::make_shared<Done>()) {}

Result<std::unique_ptr<Tracing>> Tracing::make(OtlpConfig config, const Clock& clock) {
  std::unique_ptr<Tracing> out(new Tracing(std::move(config), clock));
  const OtlpConfig& c = out->config_;
  if (c.exporter == OtlpConfig::Exporter::kNone) return out;
  if (c.tls) {
    BATON_TRY(out->tls_, TlsClient::make({.ca_file = c.ca_file}));
  }
  out->tracer_ = std::make_unique<Tracer>(TracerOptions{.sampler = c.sampler, .queue_max = c.queue_max}, clock);
  if (!c.note.empty()) log_warn("tracing", "{}", c.note);
  if (c.exporter == OtlpConfig::Exporter::kOtlp)
    log_info("spans are exported", "host={} port={} path={} service={}", c.host, c.port, c.path, c.resource.front().second);
  out->thread_ = std::make_unique<IoThread>();
  out->thread_->spawn([self = out.get()] { return self->run(); });
  return out;
}

Tracing::~Tracing() { stop(); }

void Tracing::stop() {
  if (!thread_ || stopping_.exchange(true)) return;
  thread_->post([this] { wake_.cancel(); });
  done_->future.wait_for(kOtlpFlush);
  thread_->stop();
}

Task<> Tracing::run() {
  Client client(1);
  constexpr Millis kLook{100};
  int64_t sent_ms = clock_.now_ms();
  while (!stopping_) {
    co_await sleep_for(std::min(kLook, Millis(config_.delay_ms)), &wake_);
    const size_t waiting = tracer_->waiting();
    const bool due = waiting > 0 && clock_.now_ms() - sent_ms >= config_.delay_ms;
    if (!due && waiting < config_.batch_max) continue;
    sent_ms = clock_.now_ms();
    while (tracer_->waiting() > 0 && !stopping_) co_await send(client, tracer_->take(config_.batch_max));
  }
  while (tracer_->waiting() > 0) co_await send(client, tracer_->take(config_.batch_max));
  done_->over.set_value();
}

Task<> Tracing::send(Client& client, std::vector<SpanRecord> batch) {
  const std::string body = otlp_json(config_.resource, batch);
  if (config_.exporter == OtlpConfig::Exporter::kConsole) {
    std::fprintf(stderr, "%s\n", body.c_str());
    sent_ += 1;
    co_return;
  }
  for (int attempt = 1; attempt <= kOtlpAttempts; ++attempt) {
    if (co_await post(client, body)) {
      sent_ += 1;
      complained_ = false;
      co_return;
    }
    if (stopping_) break;
    if (attempt < kOtlpAttempts) co_await sleep_for(kOtlpRetryAfter * attempt, &wake_);
  }
  failed_ += 1;
  tracer_->count_dropped(batch.size());
}

Task<bool> Tracing::post(Client& client, std::string_view body) {
  Call call;
  call.host = config_.host;
  call.port = config_.port;
  call.method = "POST";
  call.target = config_.path;
  call.tls = tls_;
  call.headers.set("Content-Type", "application/json");
  for (const auto& [name, value] : config_.headers) call.headers.set(name, value);
  call.body = body;
  call.body_bytes_max = kOtlpAnswerBytesMax;
  const Millis most = stopping_ ? std::min(Millis(config_.timeout_ms), kOtlpFlush / 2) : Millis(config_.timeout_ms);
  call.connect_timeout = call.first_byte_timeout = call.idle_timeout = most;
  const auto answer = co_await client.fetch(std::move(call));
  if (answer && answer->status >= 200 && answer->status < 300) co_return true;
  if (!std::exchange(complained_, true)) {
    log_warn("the collector does not take spans", "host={} port={} status={} error=\"{}\"", config_.host, config_.port,
             answer ? answer->status : 0, answer ? answer->body.substr(0, 200) : answer.error().message);
  }
  co_return false;
}

}  // namespace baton::net
