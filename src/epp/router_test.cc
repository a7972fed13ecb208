// The whole picker process in this one: real listeners on loopback, endpoints from a file.
#include "epp/router.h"

#include <gmock/gmock.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "ext_proc.pb.h"
#include "health.pb.h"
#include "net/grpc_test_client.h"
#include "net/http.h"

namespace baton::epp {
namespace {

namespace pb = envoy::service::ext_proc::v3;
namespace health = grpc::health::v1;
using testing::HasSubstr;

constexpr std::string_view kProcess = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

class RouterTest : public testing::Test {
 protected:
  RouterTest() {
    static std::atomic<int> number{0};
    folder_ = std::filesystem::temp_directory_path() / cat("baton-epp-", ::getpid(), "-", number++);
    std::filesystem::create_directories(folder_);
    write("endpoints.json", R"({"endpoints":[]})");
    flags_.endpoints_file = folder_ / "endpoints.json";
    flags_.host = "127.0.0.1";
    flags_.grpc_port = flags_.grpc_health_port = flags_.metrics_port = 0;
    flags_.secure_serving = false;
    flags_.io_threads = 2;
    flags_.drain_timeout_ms = 0;
  }
  ~RouterTest() override { std::filesystem::remove_all(folder_); }

  // As Kubernetes and careful people do: a new file, renamed over the old.
  void write(const std::string& name, std::string_view text) {
    std::ofstream(folder_ / (name + ".new")) << text;
    std::filesystem::rename(folder_ / (name + ".new"), folder_ / name);
  }
  void start() {
    ASSERT_TRUE(flags_.finish(false).has_value());
    router_ = std::make_unique<Router>(flags_);
    const auto started = router_->start();
    ASSERT_TRUE(started.has_value()) << started.error().message;
  }
  std::string get(const std::string& path) {
    std::string out;
    net::run_task([&]() -> net::Task<> {
      net::Client client;
      net::Call call;
      call.host = "127.0.0.1", call.port = router_->metrics_port(), call.target = path;
      auto response = co_await client.fetch(std::move(call));
      out = response ? cat(response->status, " ", response->body) : response.error().message;
    });
    return out;
  }
  static std::string check(int port, const std::string& service) {
    net::GrpcTestClient client(port);
    auto call = client.open("/grpc.health.v1.Health/Check");
    health::HealthCheckRequest request;
    request.set_service(service);
    call->send(request.SerializeAsString());
    call->half_close();
    health::HealthCheckResponse response;
    const auto bytes = call->receive();
    if (!bytes || !response.ParseFromString(*bytes)) return std::string(code_name(call->wait_end()));
    return health::HealthCheckResponse::ServingStatus_Name(response.status());
  }

  std::filesystem::path folder_;
  RouterFlags flags_;
  std::unique_ptr<Router> router_;
};

TEST_F(RouterTest, NoPodsIsSaidOverARealConnection) {
  start();
  net::GrpcTestClient client(router_->grpc_port());
  auto call = client.open(kProcess);
  pb::ProcessingRequest request;
  auto* header = request.mutable_request_headers()->mutable_headers()->add_headers();
  header->set_key(":method"), header->set_raw_value("GET");
  request.mutable_request_headers()->set_end_of_stream(true);
  call->send(request.SerializeAsString());
  pb::ProcessingResponse response;
  ASSERT_TRUE(response.ParseFromString(call->receive().value_or("")));
  EXPECT_EQ(response.immediate_response().status().code(), 500);
  EXPECT_EQ(response.immediate_response().body(), "inference error: Internal - no pods available in datastore");
  call->half_close();
  EXPECT_EQ(call->wait_end(), Code::kOk);
}

TEST_F(RouterTest, HealthIsItsOwnPortAndTurnsWithTheDrain) {
  start();
  EXPECT_EQ(check(router_->health_port(), ""), "SERVING");
  EXPECT_EQ(check(router_->health_port(), "inference-extension"), "SERVING");  // without election the name does not matter
  EXPECT_EQ(check(router_->grpc_port(), ""), "UNIMPLEMENTED");                 // only with --health-checking
  net::GrpcTestClient client(router_->health_port());
  auto watch = client.open("/grpc.health.v1.Health/Watch");
  watch->half_close();
  EXPECT_EQ(watch->wait_end(), Code::kUnimplemented);
  auto list = client.open("/grpc.health.v1.Health/List");
  list->send("");
  list->half_close();
  health::HealthListResponse all;
  ASSERT_TRUE(all.ParseFromString(list->receive().value_or("")));
  EXPECT_EQ(all.statuses().at("readiness").status(), health::HealthCheckResponse::SERVING);
  EXPECT_EQ(get("/readyz"), "200 ok\n");
  router_->begin_drain();
  EXPECT_EQ(check(router_->health_port(), ""), "NOT_SERVING");
  EXPECT_EQ(get("/readyz"), "503 not ready\n");
  EXPECT_TRUE(router_->drained());
  net::GrpcTestClient late(router_->grpc_port());  // still served
  auto call = late.open(kProcess);
  call->half_close();
  EXPECT_EQ(call->wait_end(), Code::kOk);
}

TEST_F(RouterTest, HealthOnTheExtProcPortWhenAsked) {
  flags_.health_checking = true;
  start();
  EXPECT_EQ(check(router_->grpc_port(), "envoy.service.ext_proc.v3.ExternalProcessor"), "SERVING");
}

TEST_F(RouterTest, MetricsAndState) {
  start();
  EXPECT_THAT(get("/metrics"), HasSubstr("baton_epp_config_reloads_total 0.0"));
  EXPECT_THAT(get("/metrics"), HasSubstr("llm_d_epp_ready_endpoints"));
  EXPECT_THAT(get("/debug/plugins/state"), HasSubstr("200 {"));
  EXPECT_EQ(get("/healthz"), "200 ok\n");
  EXPECT_EQ(get("/else"), "404 not found\n");
}

// A collector in this process.
class Collector {
 public:
  Collector() : server_({}, [this]() -> net::Handler {
    return [this](net::Request& request, net::ResponseWriter& writer) -> net::Task<> {
      {
        std::lock_guard lock(mutex_);
        text_ += request.body;
      }
      (void)co_await writer.send(net::Response::json(200, "{}"));
    };
  }) {
    EXPECT_TRUE(server_.start());
  }
  std::string endpoint() const { return cat("http://127.0.0.1:", server_.port()); }
  std::string text() {
    std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  std::mutex mutex_;
  std::string text_;
  net::Server server_;
};

struct Variable {  // of the environment, for one test
  Variable(const char* n, const std::string& value) : name(n) { ::setenv(n, value.c_str(), 1); }
  ~Variable() { ::unsetenv(name); }
  const char* name;
};

TEST_F(RouterTest, ACallIsATraceThatGoesOn) {
  Collector collector;
  const Variable endpoint("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()), name("OTEL_SERVICE_NAME", "my-epp");
  write("endpoints.json", R"({"endpoints":[{"name":"e","address":"127.0.0.1","port":1}]})");
  flags_.stream_metrics = true;
  start();
  auto client = std::make_unique<net::GrpcTestClient>(router_->grpc_port());
  auto call = client->open(kProcess);
  pb::ProcessingRequest request;
  request.mutable_protocol_config()->set_request_body_mode(4);  // full duplex
  const auto add = [&](const char* key, const char* value) {
    auto* header = request.mutable_request_headers()->mutable_headers()->add_headers();
    header->set_key(key), header->set_raw_value(value);
  };
  add(":method", "POST"), add(":path", "/v1/completions"), add("x-request-id", "r-1");
  add("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  call->send(request.SerializeAsString());
  pb::ProcessingRequest body;
  body.mutable_request_body()->set_body(R"({"model":"m","prompt":"x"})");
  body.mutable_request_body()->set_end_of_stream(true);
  call->send(body.SerializeAsString());
  pb::ProcessingResponse response;
  ASSERT_TRUE(response.ParseFromString(call->receive().value_or("")));
  call->half_close();
  call->wait_end();
  // Counted when the stream is gone, a moment after its client heard the end.
  for (int i = 0; i < 1000 && get("/metrics").find("llm_d_epp_extproc_streams_total{code=") == std::string::npos; ++i)
    net::run_task([]() -> net::Task<> { co_await net::sleep_for(net::Millis(10)); });
  EXPECT_THAT(get("/metrics"), HasSubstr("llm_d_epp_extproc_streams_total{code="));
  EXPECT_THAT(get("/metrics"), HasSubstr("llm_d_epp_extproc_stream_duration_seconds_count"));
  call.reset(), client.reset();  // a connection that is there is drained
  router_->stop();
  const std::string text = collector.text();
  for (const char* part : {R"("traceId":"0af7651916cd43dd8448eb211c80319c")", R"("parentSpanId":"b7ad6b7169203331")",
                           R"("name":"gateway.request")", R"("name":"gateway.request_orchestration")",
                           R"({"key":"gen_ai.request.id","value":{"stringValue":"r-1"}})",
                           R"({"key":"service.name","value":{"stringValue":"my-epp"}})"})
    EXPECT_THAT(text, HasSubstr(part));
}

TEST_F(RouterTest, TracingCanBeOff) {
  Collector collector;
  const Variable endpoint("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
  flags_.tracing = false;
  start();
  EXPECT_EQ(router_->tracer(), nullptr);
  EXPECT_EQ(router_->metrics_guard(), nullptr) << "no cluster, nobody to ask: metrics are open";
}

TEST_F(RouterTest, ACollectorThatIsNoneIsSaidAtStart) {
  const Variable endpoint("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense");
  ASSERT_TRUE(flags_.finish(false).has_value());
  Router router(flags_);
  const auto started = router.start();
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("OTEL_EXPORTER_OTLP_ENDPOINT"));
}

TEST_F(RouterTest, ANewConfigurationIsTakenAWrongOneIsNot) {
  write("config.yaml",
        "plugins: [{type: queue-scorer}, {type: max-score-picker}]\nkind: EndpointPickerConfig\napiVersion: llm-d.ai/v1alpha1\n");
  flags_.config_file = folder_ / "config.yaml";
  start();
  router_->look_at_config();
  EXPECT_THAT(get("/metrics"), HasSubstr("baton_epp_config_reloads_total 0.0"));
  write("config.yaml", "plugins: [{type: no-such-plugin}]\n");
  router_->look_at_config();
  router_->look_at_config();  // the same wrong text is said once
  EXPECT_THAT(get("/metrics"), HasSubstr("baton_epp_config_refused_total 1.0"));
  write("config.yaml", "plugins: [{type: random-picker}]\nkind: EndpointPickerConfig\napiVersion: llm-d.ai/v1alpha1\n");
  router_->look_at_config();
  EXPECT_THAT(get("/metrics"), HasSubstr("baton_epp_config_reloads_total 1.0"));
  std::filesystem::remove(folder_ / "config.yaml");
  router_->look_at_config();
  EXPECT_THAT(get("/metrics"), HasSubstr("baton_epp_config_refused_total 2.0"));
}

TEST_F(RouterTest, StartSaysWhatIsWrong) {
  flags_.config_text = "plugins: [{type: no-such-plugin}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: b}]}]\n";
  ASSERT_TRUE(flags_.finish(false).has_value());
  const auto started = Router(flags_).start();
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error().message, HasSubstr("no-such-plugin"));
  flags_.config_text.clear();
  flags_.endpoints_file.clear();
  EXPECT_THAT(Router(flags_).start().error().message, HasSubstr("--pool-name"));
}

}  // namespace
}  // namespace baton::epp
