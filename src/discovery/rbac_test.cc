// docs/kubernetes-rbac.yaml allows what the Kubernetes source and leader election ask for, and nothing else.
#include <yaml-cpp/yaml.h>

#include <set>

#include "discovery/fake_api.h"
#include "discovery/kubernetes.h"
#include "discovery/leader.h"

namespace baton::discovery {
namespace {

// "list inference.networking.k8s.io/inferencepools" of "GET
// /apis/inference.networking.k8s.io/v1/namespaces/ns/inferencepools?limit=500".
std::string permission(const std::string& target) {
  const size_t space = target.find(' '), question = target.find('?');
  const std::string method = target.substr(0, space), query = question == std::string::npos ? "" : target.substr(question);
  std::vector<std::string> parts;
  for (size_t at = space + 2; at < std::min(question, target.size());) {
    const size_t slash = std::min({target.find('/', at), question, target.size()});
    parts.push_back(target.substr(at, slash - at));
    at = slash + 1;
  }
  const bool core = parts[0] == "api";
  const size_t first = core ? 2 : 3;  // [api v1 namespaces ns pods], [api v1 nodes] or [apis group v1 namespaces ns things]
  const size_t plural = parts[first] == "namespaces" ? first + 2 : first;
  const bool named = parts.size() > plural + 1;
  const std::string verb = method == "POST"                             ? "create"
                           : method == "PUT"                            ? "update"
                           : query.find("watch=1") != std::string::npos ? "watch"
                           : named                                      ? "get"
                                                                        : "list";
  return cat(verb, ' ', core ? "" : parts[1], '/', parts[plural]);
}

std::set<std::string> documented() {
  std::set<std::string> out;
  for (const YAML::Node& document : YAML::LoadAllFromFile(BATON_SOURCE_DIR "/docs/kubernetes-rbac.yaml")) {
    if (document["kind"].Scalar() != "Role" && document["kind"].Scalar() != "ClusterRole") continue;
    if (document["metadata"]["name"].Scalar() == "baton-router-auth") continue;  // access_review_test holds it to what is asked
    for (const YAML::Node& rule : document["rules"]) {
      for (const YAML::Node& group : rule["apiGroups"]) {
        for (const YAML::Node& resource : rule["resources"]) {
          for (const YAML::Node& verb : rule["verbs"])
            out.insert(cat(verb.Scalar(), ' ', group.Scalar(), '/', resource.Scalar()));
        }
      }
    }
  }
  return out;
}

TEST(Rbac, TheDocumentedRoleIsWhatIsAskedFor) {
  FakeApi api;
  const std::string pools = "/namespaces/ns/inferencepools", rewrites = "/namespaces/ns/inferencemodelrewrites";
  const std::string objectives = "/namespaces/ns/inferenceobjectives",
                    leases = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
  api.install("/api/v1/namespaces/ns/pods");
  api.install("/apis/inference.networking.k8s.io/v1" + pools);
  for (const char* group : {"llm-d.ai", "inference.networking.x-k8s.io"}) {
    for (const std::string& kind : {pools, rewrites, objectives}) api.install(cat("/apis/", group, "/v1alpha2", kind));
  }
  api.install(leases);
  api.install("/api/v1/nodes");
  api.put("/api/v1/namespaces/ns/pods", pod_json("p", "10.0.0.1"));  // it does not say in which zone it runs
  api.put("/apis/inference.networking.k8s.io/v1" + pools, pool_json("pool"));
  KubernetesOptions options;
  options.access = api.access();
  options.pool_name = "pool";
  options.pool_namespace = "ns";
  KubernetesDiscovery discovery(options);
  ASSERT_TRUE(discovery.start([](const auto&) {}));
  LeaderOptions election;
  election.access = api.access();
  election.ns = "ns";
  election.lease_name = "l";
  election.retry = std::chrono::milliseconds(1);
  LeaderElection leader(election);
  ASSERT_TRUE(leader.start([](bool) {}));
  ASSERT_TRUE(api.wait_count("put leases", 1));
  ASSERT_TRUE(api.wait_count("watch pods", 1));
  ASSERT_TRUE(api.wait_count("watch nodes", 1));
  ASSERT_TRUE(api.wait_count("watch inferencepools", 2));
  ASSERT_TRUE(api.wait_count("watch inferenceobjectives", 2));
  ASSERT_TRUE(api.wait_count("watch inferencemodelrewrites", 2));
  leader.stop();
  discovery.stop();
  std::set<std::string> asked;
  for (const std::string& target : api.targets()) asked.insert(permission(target));
  std::set<std::string> allowed = documented();
  for (const std::string& permission : asked) EXPECT_TRUE(allowed.contains(permission)) << permission;
  // "get" comes with "list" and "watch" by convention; kubectl users expect the three together.
  std::erase_if(allowed, [&](const std::string& p) { return p.starts_with("get ") && asked.contains("list " + p.substr(4)); });
  EXPECT_TRUE(std::ranges::includes(asked, allowed)) << "the role allows more than is asked for";
}

}  // namespace
}  // namespace baton::discovery
