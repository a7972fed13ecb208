// KubernetesDiscovery against the fake API server: what it learns, and what every fault does to it: nothing.
#include "discovery/kubernetes.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/prng.h"
#include "discovery/fake_api.h"
#include "discovery/limits.h"
#include "discovery/reflector.h"
#include "net/tls.h"

namespace baton::discovery {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kPods = "/api/v1/namespaces/ns/pods";
constexpr const char* kPools = "/apis/inference.networking.k8s.io/v1/namespaces/ns/inferencepools";
constexpr const char* kOldPools = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ns/inferencepools";
constexpr const char* kObjectives = "/apis/llm-d.ai/v1alpha2/namespaces/ns/inferenceobjectives";
constexpr const char* kOldObjectives = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ns/inferenceobjectives";
constexpr const char* kRewrites = "/apis/llm-d.ai/v1alpha2/namespaces/ns/inferencemodelrewrites";

class KubernetesTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* kind : {kPods, kPools}) api.install(kind);
    options.access = api.access();
    options.pool_name = "pool";
    options.pool_namespace = "ns";
    options.seed = 7;
    options.timing.backoff_min = std::chrono::milliseconds(1);
    options.timing.backoff_max = std::chrono::milliseconds(20);
    options.timing.publish = std::chrono::milliseconds(0);
    options.timing.probe_missing = std::chrono::milliseconds(30);
  }
  void TearDown() override {
    if (discovery) discovery->stop();
  }
  void start() {
    discovery = std::make_unique<KubernetesDiscovery>(options);
    auto started = discovery->start([this](std::shared_ptr<const ClusterState> state) {
      std::lock_guard lock(mutex);
      states.push_back(std::move(state));
      wake.notify_all();
    });
    ASSERT_TRUE(started) << started.error().message;
  }
  static std::string members(const ClusterState& state) {
    std::string out;
    for (const Member& member : state.members) out += cat(out.empty() ? "" : " ", member.host, ':', member.port);
    return out;
  }
  // Waits until the newest state's members are these.
  testing::AssertionResult becomes(const std::string& wanted) {
    return becomes([&](const ClusterState& state) { return state.synced && members(state) == wanted; });
  }
  testing::AssertionResult becomes(const std::function<bool(const ClusterState&)>& right) {
    std::unique_lock lock(mutex);
    if (wake.wait_for(lock, std::chrono::seconds(30), [&] { return !states.empty() && right(*states.back()); }))
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << "the state is " << (states.empty() ? "none" : members(*states.back()));
  }
  bool ever_empty() {
    std::lock_guard lock(mutex);
    return std::ranges::any_of(states, [](const auto& state) { return state->members.empty(); });
  }
  void two_pods() {
    api.put(kPools, pool_json("pool"));
    api.put(kPods, pod_json("a", "10.0.0.1"));
    api.put(kPods, pod_json("b", "10.0.0.2"));
  }

  FakeApi api;
  KubernetesOptions options;
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::shared_ptr<const ClusterState>> states;
  std::unique_ptr<KubernetesDiscovery> discovery;
};

// Whatever pod_json() makes, running on this node.
std::string on_node(std::string pod, const std::string& name) { return pod.replace(pod.find("node-1"), 6, name); }

TEST_F(KubernetesTest, TopologyComesFromTheNodesWherePodsLackIt) {
  constexpr const char* kNodes = "/api/v1/nodes";
  api.install(kNodes);
  const auto node = [](const std::string& name, const std::string& zone) {
    return R"({"metadata":{"name":")" + name + R"(","labels":{"topology.kubernetes.io/zone":")" + zone +
           R"(","topology.kubernetes.io/rack":"r-)" + zone + R"(","topology.kubernetes.io/region":"eu"}}})";
  };
  api.put(kNodes, node("n1", "a"));
  api.put(kPools, pool_json("pool"));
  api.put(kPods, on_node(pod_json("p1", "10.0.0.1"), "n1"));
  api.put(kPods, on_node(pod_json("p2", "10.0.0.2", R"("app":"vllm","topology.kubernetes.io/zone":"own")"), "n2"));
  start();
  const auto places = [](const ClusterState& state) {
    std::string out;
    for (const Member& m : state.members) out += cat(out.empty() ? "" : " ", m.zone, '/', m.rack, '/', m.region);
    return out;
  };
  EXPECT_TRUE(becomes([&](const ClusterState& state) { return places(state) == "a/r-a/eu own//"; }));
  api.put(kNodes, node("n2", "b"));
  EXPECT_TRUE(becomes([&](const ClusterState& state) { return places(state) == "a/r-a/eu own/r-b/eu"; }));
}

TEST_F(KubernetesTest, NodesThatWeMayNotSeeCostNothing) {
  api.put(kPools, pool_json("pool"));
  api.put(kPods, on_node(pod_json("p1", "10.0.0.1"), "n1"));
  api.fault("list nodes", {.status = 403}, 3);
  start();
  EXPECT_TRUE(becomes("10.0.0.1:8000"));
  EXPECT_TRUE(api.wait_count("list nodes", 1));
}

TEST_F(KubernetesTest, PodsComeChangeAndGo) {
  two_pods();
  api.put(kPods, pod_json("other", "10.0.0.9", R"("app":"web")"));
  api.put(kPods, pod_json("young", "10.0.0.8", R"("app":"vllm")", false));
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
  EXPECT_EQ(discovery->current()->pool_group, "inference.networking.k8s.io");
  api.put(kPods, pod_json("young", "10.0.0.8"));
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000 10.0.0.8:8000"));
  api.put(kPods, pod_json("a", "10.0.0.1", R"("app":"web")"));  // out of the selector
  ASSERT_TRUE(becomes("10.0.0.2:8000 10.0.0.8:8000"));
  api.erase(kPods, "b");
  ASSERT_TRUE(becomes("10.0.0.8:8000"));
  api.put(kPods, pod_json("young", "10.0.0.7"));  // a new pod of the same name
  ASSERT_TRUE(becomes("10.0.0.7:8000"));
  EXPECT_EQ(api.count("list pods"), 1) << "everything after the first list came by watch";
}

TEST_F(KubernetesTest, PoolChangesAreFollowed) {
  two_pods();
  api.put(kPods, pod_json("c", "10.0.0.3", R"("app":"sglang")"));
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
  api.put(kPools, pool_json("pool", R"("app":"vllm")", "8000,8001"));
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.1:8001 10.0.0.2:8000 10.0.0.2:8001"));
  EXPECT_EQ(discovery->current()->members[1].name, "ns/a-rank-1");
  api.put(kPools, pool_json("pool", "", "8000"));  // cannot be used
  api.put(kPools, pool_json("pool", R"("app":"sglang")", "9000"));
  ASSERT_TRUE(becomes("10.0.0.3:9000"));
  api.erase(kPools, "pool");
  ASSERT_TRUE(becomes([](const ClusterState& state) { return !state.synced && state.members.empty(); }));
  api.put(kPools, pool_json("pool"));
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
}

TEST_F(KubernetesTest, TheOldGroupServesUntilTheNewOneHasThePool) {
  api.put(kOldPools, R"({"metadata":{"name":"pool"},"spec":{"selector":{"app":"vllm"},"targetPortNumber":8200}})");
  api.put(kPods, pod_json("a", "10.0.0.1"));
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8200"));
  EXPECT_EQ(discovery->current()->pool_group, "inference.networking.x-k8s.io");
  api.put(kPools, pool_json("pool", R"("app":"vllm")", "8000"));
  ASSERT_TRUE(becomes("10.0.0.1:8000"));
}

TEST_F(KubernetesTest, OneGroupAloneWhenToldSo) {
  options.pool_group = "inference.networking.x-k8s.io";
  api.put(kOldPools, R"({"metadata":{"name":"pool"},"spec":{"selector":{"app":"vllm"},"targetPortNumber":8200}})");
  api.put(kPools, pool_json("pool"));
  api.put(kPods, pod_json("a", "10.0.0.1"));
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8200"));
  for (const std::string& target : api.targets()) EXPECT_THAT(target, testing::Not(HasSubstr("inference.networking.k8s.io")));
}

TEST_F(KubernetesTest, StandaloneNeedsNoPool) {
  options.pool_name.clear();
  options.endpoint_selector = "app=vllm";
  options.endpoint_target_ports = {8000, 8001};
  options.pod_name = "my-epp-54444ddc66-qv6ds";
  api.put(kPods, pod_json("a", "10.0.0.1"));
  api.put(kObjectives, R"({"metadata":{"name":"o"},"spec":{"priority":5,"poolRef":{"name":"my-epp"}}})");
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.1:8001"));
  EXPECT_EQ(discovery->current()->pool, "my-epp");
  EXPECT_EQ(discovery->current()->objectives.size(), 1u);
  EXPECT_EQ(api.count("list inferencepools"), 0);
}

TEST_F(KubernetesTest, ObjectivesAndRewritesOfThisPoolAlone) {
  two_pods();
  api.put(kOldObjectives, R"({"metadata":{"name":"old"},"spec":{"priority":1,"poolRef":{"name":"pool"}}})");
  start();
  ASSERT_TRUE(becomes([](const ClusterState& s) { return s.objectives == std::vector<Objective>{{"old", 1}}; }));
  // llm-d.ai gets installed while we run: its objects are the ones in force.
  api.put(kObjectives, R"({"metadata":{"name":"new"},"spec":{"priority":2,"poolRef":{"name":"pool"}}})");
  api.put(kObjectives, R"({"metadata":{"name":"foreign"},"spec":{"priority":3,"poolRef":{"name":"elsewhere"}}})");
  ASSERT_TRUE(becomes([](const ClusterState& s) { return s.objectives == std::vector<Objective>{{"new", 2}}; }));
  const auto rewrite = [](const char* name, const char* created) {
    return cat(R"({"metadata":{"name":")", name, R"(","creationTimestamp":")", created,
               R"("},"spec":{"poolRef":{"name":"pool"},"rules":[{"targets":[{"modelRewrite":"x"}]}]}})");
  };
  api.put(kRewrites, rewrite("a", "2026-01-02T00:00:00Z"));
  api.put(kRewrites, rewrite("c", "2026-01-01T00:00:00Z"));
  api.put(kRewrites, rewrite("b", "2026-01-01T00:00:00Z"));
  ASSERT_TRUE(becomes([](const ClusterState& s) { return s.rewrites.size() == 3; }));
  const auto state = discovery->current();
  EXPECT_EQ(cat(state->rewrites[0].name, state->rewrites[1].name, state->rewrites[2].name), "bca")
      << "oldest first, then by name";
}

TEST_F(KubernetesTest, ManyPodsComeInPagesAndTheRestIsCut) {
  api.put(kPools, pool_json("pool"));
  for (int i = 0; i < 1203; ++i) api.put(kPods, pod_json(cat("pod-", i), cat("10.1.", i / 250, '.', i % 250)));
  start();
  ASSERT_TRUE(becomes([](const ClusterState& s) { return s.members.size() == 1203; }));
  EXPECT_EQ(api.count("list pods"), 3);
}

TEST_F(KubernetesTest, AFloodOfEventsEndsInTheRightState) {
  two_pods();
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
  Prng prng(11);
  std::map<std::string, std::string> wanted{{"a", "10.0.0.1:8000"}, {"b", "10.0.0.2:8000"}};
  for (int i = 0; i < 10'000; ++i) {
    const std::string name = cat("p", prng.below(100));
    if (wanted.contains(name) && prng.chance(0.3)) {
      api.erase(kPods, name);
      wanted.erase(name);
    } else {
      const std::string ip = cat("10.2.0.", prng.below(250));
      api.put(kPods, pod_json(name, ip));
      wanted[name] = ip + ":8000";
    }
  }
  std::string all;
  for (const auto& [name, at] : wanted) all += cat(all.empty() ? "" : " ", at);
  ASSERT_TRUE(becomes(all));
  EXPECT_EQ(api.count("list pods"), 1);
}

TEST_F(KubernetesTest, AGoneApiServerTakesNothingAway) {
  two_pods();
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
  api.stop();
  const auto errors = [&] { return discovery->status().errors; };
  for (const uint64_t before = errors(); errors() < before + 12;) std::this_thread::yield();
  EXPECT_EQ(members(*discovery->current()), "10.0.0.1:8000 10.0.0.2:8000");
  EXPECT_TRUE(discovery->status().synced);
  EXPECT_GE(discovery->status().age_ms, 0);
  EXPECT_NE(discovery->status().last_error, "");
  api.put(kPods, pod_json("c", "10.0.0.3"));
  api.erase(kPods, "a");
  api.start();
  ASSERT_TRUE(becomes("10.0.0.2:8000 10.0.0.3:8000"));
  EXPECT_FALSE(ever_empty());
}

TEST_F(KubernetesTest, ASilentApiServerIsLeftAfterAWhile) {
  options.timing.answer_timeout = std::chrono::milliseconds(50);
  options.timing.watch_quiet = std::chrono::milliseconds(50);
  two_pods();
  api.fault("list pods", {.hang = true}, 3);
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
  // A watch on a half-open connection says nothing: it is broken off and begun anew, from where it was.
  ASSERT_TRUE(api.wait_count("watch pods", 4));
  EXPECT_EQ(api.count("list pods"), 4);
  api.put(kPods, pod_json("c", "10.0.0.3"));
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000 10.0.0.3:8000"));
}

struct FaultCase {
  const char* name;
  const char* what;
  FakeApi::Fault fault;
};

class FaultTest : public KubernetesTest, public testing::WithParamInterface<FaultCase> {};

// Whatever goes wrong, a few times over: the state is right afterwards and was never empty in between.
TEST_P(FaultTest, EndsInTheRightState) {
  two_pods();
  const std::string what = GetParam().what;
  if (what.starts_with("list")) api.fault(what, GetParam().fault, 3);
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
  for (int round = 0; round < 3; ++round) {
    api.fault(what, GetParam().fault, 3);
    if (what.starts_with("list")) api.forget_history();
    api.cut_watches();
    api.put(kPods, pod_json("c", cat("10.0.1.", round)));
    ASSERT_TRUE(becomes(cat("10.0.0.1:8000 10.0.0.2:8000 10.0.1.", round, ":8000")));
  }
  EXPECT_FALSE(ever_empty());
}

std::string event(const char* type, const std::string& object) {
  return cat(R"({"type":")", type, R"(","object":)", object, "}\n");
}

INSTANTIATE_TEST_SUITE_P(
    Every, FaultTest,
    testing::Values(
        FaultCase{"ListError", "list pods", {.status = 500}}, FaultCase{"ListDenied", "list pods", {.status = 403}},
        FaultCase{"ListUnknown", "list pods", {.status = 404}}, FaultCase{"ListGone", "list pods", {.status = 410}},
        FaultCase{"ListNonsense", "list pods", {.status = 0, .raw = "<html>"}},
        FaultCase{"ListNoItems", "list pods", {.status = 0, .raw = R"({"metadata":{"resourceVersion":"9"}})"}},
        FaultCase{"ListNoVersion", "list pods", {.status = 0, .raw = R"({"metadata":{},"items":[]})"}},
        FaultCase{"ListCut", "list pods", {.status = 0, .raw = R"({"metadata":{"resourceVersion":"9"},"items":[)", .cut = true}},
        FaultCase{"WatchError", "watch pods", {.status = 503}}, FaultCase{"WatchDenied", "watch pods", {.status = 403}},
        FaultCase{"WatchGone", "watch pods", {.status = 410}}, FaultCase{"WatchBad", "watch pods", {.status = 400}},
        FaultCase{"WatchTooMany", "watch pods", {.status = 429}}, FaultCase{"WatchEndsAtOnce", "watch pods", {.status = 0}},
        FaultCase{"WatchNonsense", "watch pods", {.status = 0, .raw = "{\"type\":\n"}},
        FaultCase{"WatchCutInAnEvent",
                  "watch pods",
                  {.status = 0, .raw = R"({"type":"DELETED","object":{"metadata":{"name":"a")", .cut = true}},
        FaultCase{"WatchNoVersion", "watch pods", {.status = 0, .raw = event("DELETED", R"({"metadata":{"name":"x"}})")}},
        FaultCase{"WatchErrorEvent", "watch pods", {.status = 0, .raw = event("ERROR", R"({"code":500,"message":"etcd"})")}},
        FaultCase{"WatchOfTheFuture",
                  "watch pods",
                  {.status = 0, .raw = event("BOOKMARK", R"({"metadata":{"resourceVersion":"99999999"}})")}},
        FaultCase{"WatchOverlongEvent", "watch pods", {.status = 0, .raw = std::string(kWatchEventBytesMax + 1, ' ')}}),
    [](const auto& param) { return std::string(param.param.name); });

TEST_F(KubernetesTest, DeniedOptionalKindsDoNotHoldItUp) {
  two_pods();
  for (const char* what : {"list inferenceobjectives", "list inferencemodelrewrites"}) api.fault(what, {.status = 403}, 1'000);
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
}

TEST_F(KubernetesTest, WithoutAPoolItIsNotSyncedUntilItComes) {
  api.put(kPods, pod_json("a", "10.0.0.1"));
  start();
  ASSERT_TRUE(api.wait_count("watch inferencepools", 1));
  EXPECT_FALSE(discovery->current()->synced);
  EXPECT_EQ(api.count("list pods"), 0) << "nobody knows yet which pods";
  api.put(kPools, pool_json("pool"));
  ASSERT_TRUE(becomes("10.0.0.1:8000"));
}

TEST_F(KubernetesTest, ATokenIsReadAgainWhenItWasRefused) {
  const auto path = std::filesystem::temp_directory_path() / ("baton-token-" + random_hex(16));
  std::ofstream(path) << "first\n";
  options.access->token_file = path;
  api.need_token("first");
  two_pods();
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
  api.need_token("second");
  std::ofstream(path) << "second\n";
  api.put(kPods, pod_json("c", "10.0.0.3"));
  api.forget_history();
  api.cut_watches();
  api.erase(kPods, "a");
  ASSERT_TRUE(becomes("10.0.0.2:8000 10.0.0.3:8000"));
  std::filesystem::remove(path);
}

TEST_F(KubernetesTest, OverTlsAndOnlyToAServerItTrusts) {
  net::TlsServerOptions self_signed;
  self_signed.alpn = {"http/1.1"};
  auto tls = net::TlsServer::make(self_signed);
  ASSERT_TRUE(tls) << tls.error().message;
  FakeApi secure(*tls);
  for (const char* kind : {kPods, kPools}) secure.install(kind);
  secure.put(kPools, pool_json("pool"));
  secure.put(kPods, pod_json("a", "10.0.0.1"));
  options.access = secure.access();
  start();
  for (; discovery->status().errors == 0;) std::this_thread::yield();
  EXPECT_TRUE(secure.targets().empty()) << "a token must never go to a server that is not verified";
  EXPECT_FALSE(discovery->current()->synced);
  options.access->verify = false;
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000"));
  discovery->stop();
}

TEST_F(KubernetesTest, StatesAreNumberedAndDifferent) {
  two_pods();
  start();
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000"));
  for (int i = 0; i < 20; ++i) api.put(kPods, pod_json("a", "10.0.0.1"));  // heartbeats of the kubelet: nothing new in them
  api.bookmark();
  api.put(kPods, pod_json("c", "10.0.0.3"));
  ASSERT_TRUE(becomes("10.0.0.1:8000 10.0.0.2:8000 10.0.0.3:8000"));
  discovery->stop();
  ASSERT_EQ(states.size(), 2u);
  EXPECT_EQ(states[0]->generation, 1u);
  EXPECT_EQ(states[1]->generation, 2u);
}

TEST_F(KubernetesTest, OptionsThatContradictAreRefused) {
  const auto refused = [&](auto change, const char* part) {
    KubernetesOptions changed = options;
    change(changed);
    auto result = KubernetesDiscovery(changed).start(nullptr);
    ASSERT_FALSE(result) << part;
    EXPECT_THAT(result.error().message, HasSubstr(part));
  };
  refused([](auto& o) { o.endpoint_selector = "a=b"; }, "exactly one");
  refused([](auto& o) { o.pool_name = ""; }, "exactly one");
  refused([](auto& o) { o.pool_name = "../x"; }, "no Kubernetes name");
  refused([](auto& o) { o.pool_namespace = "a/b"; }, "no Kubernetes name");
  refused([](auto& o) { o.pool_group = "example.com"; }, "pool-group");
  refused([](auto& o) { o.ip_family = "v5"; }, "ip family");
  refused([](auto& o) { o.endpoint_target_ports = {1}; }, "belongs to");
  const auto standalone = [](auto& o) {
    o.pool_name = "";
    o.endpoint_selector = "a=b";
  };
  refused([&](auto& o) { standalone(o); }, "endpoint-target-ports");
  refused([&](auto& o) { standalone(o), o.endpoint_target_ports = {1, 1}; }, "endpoint-target-ports");
  refused([&](auto& o) { standalone(o), o.endpoint_target_ports = {1}, o.pod_name = "x"; }, "POD_NAME");
}

TEST(Backoff, GrowsToItsMaximumAndDiffersBySeed) {
  Backoff a(net::Millis(100), net::Millis(1000), 1), b(net::Millis(100), net::Millis(1000), 2);
  bool differ = false;
  for (int i = 0; i < 100; ++i) {
    const int64_t whole = std::min<int64_t>(1000, i < 10 ? 100 << i : 1000), x = a.next().count(), y = b.next().count();
    EXPECT_GE(x, whole / 2);
    EXPECT_LE(x, whole);
    differ |= x != y;
  }
  EXPECT_TRUE(differ);
  a.reset();
  EXPECT_LE(a.next().count(), 100);
}

}  // namespace
}  // namespace baton::discovery
