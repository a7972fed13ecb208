// Tracing against a collector in this process that reads what it gets.
#include "net/otlp.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "base/json.h"

namespace baton::net {
namespace {

using testing::HasSubstr;

class Collector {
 public:
  explicit Collector(int status = 200) : status_(status), server_({}, [this]() -> Handler {
    return [this](Request& request, ResponseWriter& writer) -> Task<> {
      int answer = 200;
      {
        std::lock_guard lock(mutex_);
        requests_.push_back(request);
        answer = status_;
      }
      came_.notify_all();
      (void)co_await writer.send(Response::json(answer, "{}"));
    };
  }) {
    EXPECT_TRUE(server_.start());
  }
  int port() const { return server_.port(); }
  std::vector<Request> wait(size_t n) {
    std::unique_lock lock(mutex_);
    came_.wait_for(lock, std::chrono::seconds(30), [&] { return requests_.size() >= n; });
    return requests_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<Request> requests_;
  int status_;
  Server server_;
};

using Variables = std::map<std::string, std::string>;
Environ environ_of(const Variables& variables) {
  return [variables](const char* name) { return variables.contains(name) ? variables.at(name).c_str() : nullptr; };
}
std::string endpoint(const Collector& collector) { return cat("http://127.0.0.1:", collector.port()); }

const Json* at(const Json& from, std::initializer_list<std::string_view> keys) {
  const Json* v = &from;
  for (std::string_view key : keys) {
    if (v == nullptr) return nullptr;
    v = v->is_array() ? (v->items.empty() ? nullptr : &v->items[0]) : v;
    v = v == nullptr ? nullptr : v->find(key);
  }
  return v;
}

TEST(Otlp, SpansArriveAsTheyWereMade) {
  Collector collector;
  const Variables variables = {{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint(collector) + "/base/"},
                               {"OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,b=2"},
                               {"OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=p%2C1"},
                               {"OTEL_SERVICE_NAME", "mine"},
                               {"OTEL_BSP_SCHEDULE_DELAY", "1"}};
  const auto config = otlp_config(environ_of(variables), "other");
  ASSERT_TRUE(config) << config.error().message;
  SteadyClock clock;
  auto tracing = *Tracing::make(*config, clock);
  {
    Span request = tracing->tracer()->begin("gateway.request", SpanKind::kServer,
                                            parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    request.set("text", "a\"b");
    request.set("broken", std::string_view("\xff\xfe"));
    request.set("int", SpanAttribute::Value(int64_t{1} << 60));
    request.set("real", SpanAttribute::Value(0.5));
    request.set("yes", SpanAttribute::Value(true));
    request.set("list", SpanAttribute::Value(std::vector<std::string>{"a:1", "b:2"}));
    request.fail("why");
  }
  const auto got = collector.wait(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].path, "/base/v1/traces");
  EXPECT_EQ(got[0].headers.get("authorization").value_or(""), "Bearer x");
  EXPECT_EQ(got[0].headers.get("content-type").value_or(""), "application/json");
  const auto root = parse_json(got[0].body);
  ASSERT_TRUE(root) << got[0].body;
  EXPECT_THAT(got[0].body, HasSubstr(R"({"key":"service.name","value":{"stringValue":"mine"}})"));
  EXPECT_THAT(got[0].body, HasSubstr(R"({"key":"k8s.pod.name","value":{"stringValue":"p,1"}})"));
  const Json* span = at(*root, {"resourceSpans", "scopeSpans", "spans"});
  ASSERT_TRUE(span != nullptr && span->items.size() == 1);
  span = &span->items[0];
  EXPECT_EQ(span->find("traceId")->text, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(span->find("parentSpanId")->text, "b7ad6b7169203331");
  EXPECT_EQ(span->find("spanId")->text.size(), 16u);
  EXPECT_EQ(span->find("kind")->text, "2");
  EXPECT_GE(std::stoll(span->find("endTimeUnixNano")->text), std::stoll(span->find("startTimeUnixNano")->text));
  EXPECT_GT(std::stoll(span->find("startTimeUnixNano")->text), 1'600'000'000'000'000'000);
  for (const char* attribute :
       {R"({"key":"text","value":{"stringValue":"a\"b"}})", R"({"key":"broken","value":{"stringValue":"??"}})",
        R"({"key":"int","value":{"intValue":"1152921504606846976"}})", R"({"key":"real","value":{"doubleValue":0.5}})",
        R"({"key":"yes","value":{"boolValue":true}})",
        R"({"key":"list","value":{"arrayValue":{"values":[{"stringValue":"a:1"},{"stringValue":"b:2"}]}}})",
        R"("status":{"code":2,"message":"why"})"})
    EXPECT_THAT(got[0].body, HasSubstr(attribute));
  tracing->stop();
  EXPECT_EQ(tracing->counts().sent, 1u);
}

TEST(Otlp, StopSendsWhatWaits) {
  Collector collector;
  const auto config = otlp_config(environ_of({{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint(collector) + "/exactly"}}), "s");
  ASSERT_TRUE(config);
  SteadyClock clock;
  auto tracing = *Tracing::make(*config, clock);
  for (int i = 0; i < 700; ++i) tracing->tracer()->begin("a", SpanKind::kInternal, std::nullopt).end();
  tracing->stop();
  const auto got = collector.wait(2);
  ASSERT_EQ(got.size(), 2u) << "512 and the rest";
  EXPECT_EQ(got[0].path, "/exactly");
  EXPECT_EQ(tracing->counts().sent, 2u);
  EXPECT_EQ(tracing->tracer()->counts().dropped, 0u);
}

TEST(Otlp, ACollectorThatRefusesCostsItsSpansAndNothingElse) {
  Collector collector(503);
  const auto config =
      otlp_config(environ_of({{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint(collector)}, {"OTEL_BSP_SCHEDULE_DELAY", "1"}}), "s");
  SteadyClock clock;
  auto tracing = *Tracing::make(*config, clock);
  tracing->tracer()->begin("a", SpanKind::kInternal, std::nullopt).end();
  EXPECT_GE(collector.wait(3).size(), 3u) << "it is tried again";
  tracing->stop();
  EXPECT_EQ(tracing->counts().failed, 1u);
  EXPECT_EQ(tracing->tracer()->counts().dropped, 1u);
}

TEST(Otlp, NothingIsMadeWhereNothingIsAskedFor) {
  SteadyClock clock;
  for (const Variables& variables : {Variables{}, Variables{{"OTEL_TRACES_EXPORTER", "none"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"}},
                                     Variables{{"OTEL_SDK_DISABLED", "true"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"}}}) {
    const auto config = otlp_config(environ_of(variables), "s");
    ASSERT_TRUE(config);
    EXPECT_EQ((*Tracing::make(*config, clock))->tracer(), nullptr);
  }
}

TEST(Otlp, ConfigurationIsOpenTelemetrys) {
  const auto of = [](const Variables& variables) { return otlp_config(environ_of(variables), "svc", "parentbased_traceidratio", "0.1"); };
  auto config = of({{"OTEL_TRACES_EXPORTER", "otlp"}});
  ASSERT_TRUE(config);
  EXPECT_EQ(cat(config->host, ":", config->port, config->path), "localhost:4318/v1/traces");
  EXPECT_EQ(config->sampler.ratio, 0.1);
  EXPECT_EQ(config->resource.at(0).second, "svc");
  config = of({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"}, {"OTEL_TRACES_SAMPLER", "always_on"}});
  EXPECT_EQ(config->port, 4318) << "llm-d's charts name the gRPC port";
  EXPECT_FALSE(config->note.empty());
  EXPECT_FALSE(config->sampler.parent_decides);
  config = of({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"}, {"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"}});
  EXPECT_EQ(config->port, 4317);
  config = of({{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://[::1]/x?y"}});
  EXPECT_EQ(cat(config->host, " ", config->port, " ", config->path, " ", config->tls), "::1 443 /x?y true");
  for (const auto& [name, value] : Variables{{"OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"},
                                             {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h:99999"},
                                             {"OTEL_TRACES_EXPORTER", "jaeger"},
                                             {"OTEL_TRACES_SAMPLER", "sometimes"},
                                             {"OTEL_EXPORTER_OTLP_HEADERS", "nothing"},
                                             {"OTEL_RESOURCE_ATTRIBUTES", "a=%zz"},
                                             {"OTEL_BSP_MAX_QUEUE_SIZE", "0"}}) {
    Variables variables = {{name, value}};
    if (name != "OTEL_TRACES_EXPORTER") variables["OTEL_TRACES_EXPORTER"] = "otlp";
    const auto wrong = of(variables);
    ASSERT_FALSE(wrong) << name;
    EXPECT_THAT(wrong.error().message, HasSubstr(name)) << wrong.error().message;
  }
}

}  // namespace
}  // namespace baton::net
