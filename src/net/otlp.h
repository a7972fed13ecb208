#pragma once
// Tracing of a program: a Tracer and the background task that sends what it records to an OpenTelemetry collector: OTLP over HTTP,
// JSON, in batches, on a thread of its own, never on a request's path. Configured by OpenTelemetry's own environment:
//   OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER (otlp, console, none), OTEL_EXPORTER_OTLP_ENDPOINT (+ /v1/traces),
//   OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (as it is), OTEL_EXPORTER_OTLP_[TRACES_]HEADERS, _TIMEOUT, _CERTIFICATE,
//   OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG,
//   OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_SCHEDULE_DELAY
// Where neither an endpoint nor an exporter is named there is no tracing and no cost. A batch that the collector does not take is
// tried kOtlpAttempts times, then dropped and counted; requests never wait for it. Owner: the program; stop() sends what waits.
// Source: OpenTelemetry specification (OTLP 1.x over HTTP, SDK environment variables).
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/trace.h"
#include "net/http.h"

namespace baton::net {

struct OtlpConfig {
  enum class Exporter : uint8_t { kNone, kConsole, kOtlp } exporter = Exporter::kNone;
  bool tls = false;
  std::string host = "localhost", path = "/v1/traces";
  int port = 4318;
  std::string ca_file;
  std::vector<std::pair<std::string, std::string>> headers;    // of each export
  std::vector<std::pair<std::string, std::string>> resource;   // service.name and the rest
  Sampler sampler;
  size_t queue_max = 2'048, batch_max = 512;
  int64_t delay_ms = 5'000, timeout_ms = 10'000;
  std::string note;  // what a person should know of this configuration, "" = nothing
};

using Environ = std::function<const char*(const char* name)>;  // std::getenv, or a test's
// service: where OTEL_SERVICE_NAME is not set. sampler: likewise ("parentbased_traceidratio", "0.1").
// Errors: kInvalidArgument, naming the variable.
Result<OtlpConfig> otlp_config(const Environ& env, std::string_view service, std::string_view sampler = "parentbased_always_on",
                               std::string_view sampler_argument = "");
// "a=b,c=d", percent-encoded values; for headers and resource attributes.
Result<std::vector<std::pair<std::string, std::string>>> parse_otel_pairs(std::string_view text);
std::string otlp_json(const std::vector<std::pair<std::string, std::string>>& resource, std::span<const SpanRecord> spans);

struct ExportCounts {
  uint64_t sent = 0, failed = 0;  // batches
};

class Tracing {
 public:
  // clock outlives it.
  static Result<std::unique_ptr<Tracing>> make(OtlpConfig config, const Clock& clock);
  ~Tracing();
  Tracer* tracer() { return tracer_ ? tracer_.get() : nullptr; }  // nullptr: off
  void stop();                                                    // sends what waits, within kOtlpFlush
  ExportCounts counts() const { return {sent_.load(), failed_.load()}; }

 private:
  Tracing(OtlpConfig config, const Clock& clock);
  Task<> run();
  Task<> send(Client& client, std::vector<SpanRecord> batch);
  Task<bool> post(Client& client, std::string_view body);

  const OtlpConfig config_;
  const Clock& clock_;
  std::unique_ptr<Tracer> tracer_;
  std::shared_ptr<TlsClient> tls_;
  Cancel wake_;  // the thread's
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> sent_{0}, failed_{0};
  bool complained_ = false;
  struct Done;
  std::shared_ptr<Done> done_;
  std::unique_ptr<IoThread> thread_;
};

}  // namespace baton::net
