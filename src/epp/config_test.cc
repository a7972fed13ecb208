#include "epp/config.h"

#include <gmock/gmock.h>

namespace baton::epp {
namespace {

Result<RouterFlags> parse(const std::vector<std::string>& args, bool with_gateway = false) {
  RouterFlags flags;
  Options options("baton-router", "", "");
  add_router_flags(options, flags);
  if (auto parsed = options.parse(args); !parsed) return std::unexpected(parsed.error());
  if (auto finished = flags.finish(with_gateway); !finished) return std::unexpected(finished.error());
  return flags;
}

TEST(Config, RoleFlipsAreProposedOnlyWhenAskedFor) {
  EXPECT_FALSE(parse({"--pool-name", "p"})->picker_options().propose_role_flips);
  EXPECT_TRUE(parse({"--pool-name", "p", "--propose-role-flips"})->picker_options().propose_role_flips);
}

TEST(Config, EveryGenerationsSpelling) {
  // what the charts of inferencepool v0.5.1, v1.0.1 and today's render
  const auto v05 = parse({"-poolName",
                          "gaie-pd",
                          "-poolNamespace",
                          "llm-d-pd",
                          "-v",
                          "1",
                          "-grpcPort",
                          "9002",
                          "-grpcHealthPort",
                          "9003",
                          "-metricsPort",
                          "9090",
                          "-configFile",
                          "/config/pd-config.yaml",
                          "-enablePprof=true",
                          "-secureServing=false",
                          "-modelServerMetricsPath",
                          "/m",
                          "-totalQueuedRequestsMetric",
                          "a",
                          "-kvCacheUsagePercentageMetric",
                          "b",
                          "-loraInfoMetric",
                          ""});
  ASSERT_TRUE(v05.has_value()) << v05.error().message;
  EXPECT_EQ(v05->pool_name, "gaie-pd");
  EXPECT_EQ(v05->config_file, "/config/pd-config.yaml");
  EXPECT_EQ(v05->metrics_path, "/m");
  EXPECT_FALSE(v05->secure_serving);
  const auto v1 = parse({"--pool-name", "p", "--pool-namespace", "n", "--pool-group", "inference.networking.x-k8s.io",
                         "--zap-encoder", "json", "--config-file", "f", "--tracing=false", "--model-server-metrics-port", "9000",
                         "--metrics-endpoint-auth=false", "--total-running-requests-metric", "r"});
  ASSERT_TRUE(v1.has_value()) << v1.error().message;
  EXPECT_EQ(v1->model_server_metrics_port, 9000);
  const auto now =
      parse({"--pool-name=p", "--ha-enable-leader-election", "--drain-timeout=5s", "--grpc-max-recv-msg-size=8Mi", "--v=5"});
  ASSERT_TRUE(now.has_value()) << now.error().message;
  EXPECT_TRUE(now->leader_election);
  EXPECT_EQ(now->drain_timeout_ms, 5'000);
  EXPECT_EQ(now->recv_msg_bytes_max, 8 << 20);
  EXPECT_EQ(now->log_level, "debug");
  EXPECT_EQ(now->grpc_port, 9002);
}

TEST(Config, PortsAreOffBesideTheGatewayUnlessAskedFor) {
  EXPECT_EQ(parse({"--endpoints=f"}, true)->grpc_port, kPortUnset);
  EXPECT_EQ(parse({"--endpoints=f", "--grpc-port=0"}, true)->grpc_port, 0);
  EXPECT_EQ(parse({"--endpoints=f"})->metrics_port, 9090);
}

TEST(Config, AllContradictionsTogether) {
  const auto r = parse({"--pool-name=p", "--endpoint-selector=a=b", "--config-file=f", "--config-text=t",
                        "--secure-serving=false", "--cert-path=x"});
  ASSERT_FALSE(r.has_value());
  for (const char* text :
       {"--config-file and --config-text", "--pool-name and --endpoint-selector", "--endpoint-target-ports", "--cert-path"}) {
    EXPECT_THAT(r.error().message, testing::HasSubstr(text));
  }
}

TEST(Config, QuantitiesAndPorts) {
  EXPECT_EQ(parse_quantity("4Mi").value(), 4 << 20);
  EXPECT_EQ(parse_quantity("4MiB").value(), 4 << 20);
  EXPECT_EQ(parse_quantity("10M").value(), 10'000'000);
  EXPECT_EQ(parse_quantity("4194304").value(), 4194304);
  for (const char* text : {"", "x", "4Q", "-1", "0", "99999999999G"}) EXPECT_FALSE(parse_quantity(text).has_value()) << text;
  EXPECT_THAT(parse_ports("8000,8001").value(), testing::ElementsAre(8000, 8001));
  EXPECT_THAT(parse_ports("[8000 8001]").value(), testing::ElementsAre(8000, 8001));
  for (const char* text : {"", "0", "70000", "8000,8000", "1,2,3,4,5,6,7,8,9", "a"})
    EXPECT_FALSE(parse_ports(text).has_value()) << text;
}

}  // namespace
}  // namespace baton::epp
