#include "deploy/checks.h"

#include <algorithm>

#include "discovery/kube_objects.h"

namespace baton::deploy {
namespace {

struct Row {
  const char* name;
  Outcome (*check)(const Cluster&);
  bool needed;  // nothing after it makes sense if it fails
};
constexpr Row kObjects[] = {
    {"API server", api_server, true},          {"kinds are served", kinds_served, false},
    {"gateway is programmed", gateway, false}, {"route leads to the pool", route, false},
    {"pool finds its pods", pool, false},      {"both roles are there", roles, false},
    {"pods are ready", pods_ready, false},     {"names fit", names_fit, false},
    {"secrets are filled", secrets, false},
};
constexpr Row kTraffic[] = {
    {"KV path", kv_path, false},
    {"KV arrives", kv_failures, false},
    {"metrics are scraped", scraped, false},
};

std::vector<CheckResult> run(std::span<const Row> rows, const Cluster& cluster) {
  std::vector<CheckResult> out;
  for (const Row& row : rows) {
    Outcome o = row.check(cluster);
    out.push_back({o.verdict, row.name, std::move(o.detail), std::move(o.advice)});
    if (row.needed && o.verdict == CheckResult::Verdict::kFailed) break;
  }
  return out;
}

constexpr std::string_view kInstallKinds =
    "guides/prereq/gateway-provider/install-gateway-provider-dependencies.sh installs them";

// Versions of a group, as "v1, v1beta1"; "" = it is not there.
std::string versions_of(const Cluster& cluster, std::string_view group) {
  const Look* groups = cluster.find("groups");
  std::string out;
  for (const Json& g : groups == nullptr ? std::span<const Json>() : items_at(groups->json, {"groups"})) {
    if (text_at(g, {"name"}) != group) continue;
    for (const Json& v : items_at(g, {"versions"})) out += cat(out.empty() ? "" : ", ", text_at(v, {"version"}));
  }
  return out;
}

bool has_version(const std::string& versions, std::string_view wanted) {
  return cat(", ", versions, ",").find(cat(", ", wanted, ",")) != std::string::npos;
}

bool is_true(const Json* one) { return one != nullptr && text_at(*one, {"status"}) == "True"; }
std::string why(const Json* one) {
  if (one == nullptr) return "";
  const std::string message = text_at(*one, {"message"});
  return message.empty() ? text_at(*one, {"reason"}) : message.substr(0, 160);
}

std::vector<std::string> names_in(std::span<const Json> objects) {
  std::vector<std::string> out;
  for (const Json& o : objects) out.push_back(object_name(o));
  return out;
}

// What is wrong with a route's backend; "" = nothing.
Outcome backend(const Cluster& cluster, const std::string& route_name, const Json& ref) {
  const std::string name = text_at(ref, {"name"}), group = text_at(ref, {"group"}), kind = text_at(ref, {"kind"});
  if (kind != "InferencePool")
    return note(cat(route_name, " leads to a ", kind.empty() ? "Service" : kind),
                "no picker takes part: its backend should be the InferencePool");
  const bool old = group.find(".x-k8s.io") != group.npos;
  const auto in = [&](std::string_view list) { return among(names_in(cluster.items(list)), name); };
  if (in(old ? "inferencepools.x" : "inferencepools")) return {};
  if (in(old ? "inferencepools" : "inferencepools.x"))
    return failed(
        cat(route_name, " names group ", group, ", pool ", name, " is of the other one"),
        "route, pool and the picker's --pool-group must say one group: inferencePool.apiVersion of the chart sets all three");
  return failed(cat(route_name, " leads to pool ", name, ", which is not there"),
                "the release's postfix differs? the pool is the gaie release's");
}

}  // namespace

Outcome failed(std::string detail, std::string advice) {
  return {CheckResult::Verdict::kFailed, std::move(detail), std::move(advice)};
}
Outcome note(std::string detail, std::string advice) {
  return {CheckResult::Verdict::kNote, std::move(detail), std::move(advice)};
}

std::vector<CheckResult> check_objects(const Cluster& cluster) { return run(kObjects, cluster); }
std::vector<CheckResult> check_traffic(const Cluster& cluster) { return run(kTraffic, cluster); }

bool among(const std::vector<std::string>& names, std::string_view name) { return std::ranges::find(names, name) != names.end(); }

bool builtin_gateway(const Cluster& cluster) { return cluster.items("gateways").empty() && !door_of(cluster).service.empty(); }

Door door_of(const Cluster& cluster) {
  const auto port_of = [](const Json& service) {
    for (const Json& port : items_at(service, {"spec", "ports"})) {
      const auto number = port.find("port") != nullptr ? port.find("port")->as_int() : std::nullopt;
      if (number && *number != 15021) return static_cast<int>(*number);  // Istio's status port
    }
    return 80;
  };
  for (const Json& gateway : cluster.items("gateways")) {
    const std::string name = object_name(gateway), made = cat(name, "-", text_at(gateway, {"spec", "gatewayClassName"}));
    for (const Json& service : cluster.items("services")) {
      const std::string own = object_name(service);
      if (own == name || own == made ||
          text_at(service, {"metadata", "labels", "gateway.networking.k8s.io/gateway-name"}) == name)
        return {own, port_of(service)};
    }
  }
  for (const Json& service : cluster.items("services")) {
    if (object_name(service).ends_with("-inference-gateway")) return {object_name(service), port_of(service)};
  }
  return {"", 80};
}

Outcome api_server(const Cluster& cluster) {
  const Look* groups = cluster.find("groups");
  if (groups == nullptr || groups->status == 0)
    return failed(groups == nullptr ? "not asked" : groups->error,
                  "is the kubeconfig right, and the cluster up?  kubectl get ns");
  if (groups->status != 200)
    return failed(groups->error, "log in to the cluster again; --kubeconfig and --context name another one");
  const Look* pods = cluster.find("pods");
  if (pods != nullptr && pods->status == 403)
    return failed(pods->error, cat("this account may not read namespace ", cluster.ns, ": role view is enough"));
  if (cluster.items("pods").empty())
    return failed(cat("namespace ", cluster.ns, " has no pods"),
                  "another namespace? -n NAMESPACE; nothing installed? baton deploy render");
  return {.detail = cat("namespace ", cluster.ns, ", ", cluster.items("pods").size(), " pods")};
}

Outcome kinds_served(const Cluster& cluster) {
  if (builtin_gateway(cluster)) return {.detail = "none needed: the router has its own door"};
  const std::string gateway = versions_of(cluster, "gateway.networking.k8s.io");
  // A group may be there for another of its kinds (InferenceObjective): then the list of pools is 404.
  const auto served = [&](std::string_view list, std::string_view group) {
    const Look* pools = cluster.find(list);
    return pools != nullptr && pools->status == 404 ? "" : versions_of(cluster, group);
  };
  const std::string pool = served("inferencepools", "inference.networking.k8s.io"),
                    old = served("inferencepools.x", "inference.networking.x-k8s.io");
  if (gateway.empty()) return failed("no Gateway API", std::string(kInstallKinds));
  if (!has_version(gateway, "v1")) return failed(cat("Gateway API ", gateway, ", not v1"), cat("too old: ", kInstallKinds));
  if (pool.empty() && old.empty()) return failed("no InferencePool", std::string(kInstallKinds));
  if (!has_version(pool, "v1") && !has_version(old, "v1alpha2"))
    return failed(cat("InferencePool ", pool, old), cat("needs v1, or v1alpha2 of the x-k8s.io group: ", kInstallKinds));
  return {.detail = cat("Gateway ", gateway, "; InferencePool ", pool, pool.empty() || old.empty() ? "" : ", ",
                        old.empty() ? "" : cat(old, " (x-k8s.io)"))};
}

Outcome gateway(const Cluster& cluster) {
  const auto gateways = cluster.items("gateways");
  if (builtin_gateway(cluster)) return {.detail = cat("Service ", door_of(cluster).service, " leads to the router")};
  if (gateways.empty()) return failed("there is no Gateway", "the infra release makes it: helm list, helm status infra-pd");
  for (const Json& g : gateways) {
    const std::string name = object_name(g), cls = text_at(g, {"spec", "gatewayClassName"});
    const auto& conditions = items_at(g, {"status", "conditions"});
    const Json* programmed = condition(conditions, "Programmed");
    if (is_true(programmed)) continue;
    const bool unseen = programmed == nullptr || text_at(*programmed, {"reason"}) == "Pending";
    if (unseen)
      return failed(cat(name, ": no controller of class ", cls, " has taken it"),
                    "install it: guides/prereq/gateway-provider (helmfile apply -f istio.helmfile.yaml, ...); or "
                    "GATEWAY=builtin, which needs none");
    return failed(cat(name, ": ", why(programmed)), cat("kubectl describe gateway ", name, " -n ", cluster.ns,
                                                        "; a LoadBalancer nobody serves? SERVICE_TYPE=ClusterIP"));
  }
  const auto& addresses = items_at(gateways[0], {"status", "addresses"});
  return {.detail = cat(named(names_in(gateways)), addresses.empty() ? "" : cat(" at ", text_at(addresses[0], {"value"})))};
}

Outcome route(const Cluster& cluster) {
  if (builtin_gateway(cluster)) return {.detail = "none needed"};
  const auto routes = cluster.items("httproutes");
  if (routes.empty())
    return failed("there is no HTTPRoute",
                  "kubectl apply -f guides/pd-disaggregation/httproute.yaml, or HTTP_ROUTE=yes (the default) for the helmfile");
  for (const Json& r : routes) {
    const std::string name = object_name(r);
    for (const Json& parent : items_at(r, {"spec", "parentRefs"})) {
      const std::string to = text_at(parent, {"name"});
      if (text_at(parent, {"namespace"}).empty() && !among(names_in(cluster.items("gateways")), to))
        return failed(cat(name, " is for Gateway ", to, ", which is not there"),
                      cat("the release's postfix differs? there is ", named(names_in(cluster.items("gateways")))));
    }
    for (const Json& rule : items_at(r, {"spec", "rules"})) {
      for (const Json& ref : items_at(rule, {"backendRefs"})) {
        if (Outcome o = backend(cluster, name, ref); o.verdict != CheckResult::Verdict::kOk) return o;
      }
    }
    const auto& parents = items_at(r, {"status", "parents"});
    if (parents.empty()) return failed(cat(name, ": no controller has looked at it"), "is the gateway's controller running?");
    for (const Json& parent : parents) {
      for (const char* type : {"Accepted", "ResolvedRefs"}) {
        const Json* seen = condition(items_at(parent, {"conditions"}), type);
        if (!is_true(seen))
          return failed(cat(name, ": not ", type, ": ", why(seen)), cat("kubectl describe httproute ", name, " -n ", cluster.ns));
      }
    }
  }
  return {.detail = named(names_in(routes))};
}

Outcome pool(const Cluster& cluster) {
  if (builtin_gateway(cluster) && cluster.items("inferencepools").empty())
    return {.detail = "none needed: the router follows labels"};
  std::vector<std::string> found;
  for (const auto& [list, group] :
       {std::pair{"inferencepools", "inference.networking.k8s.io"}, {"inferencepools.x", "inference.networking.x-k8s.io"}}) {
    for (const Json& object : cluster.items(list)) {
      auto spec = discovery::parse_pool(object, group);
      if (!spec) return failed(cat(object_name(object), ": ", spec.error().message), "helm upgrade its release");
      int selected = 0;
      for (const Json& pod : cluster.items("pods"))
        selected += discovery::selects(spec->selector, texts_at(pod, {"metadata", "labels"})) ? 1 : 0;
      const std::string selector = discovery::selector_text(spec->selector);
      if (selected == 0) {
        const bool spelling =
            selector.find("llm-d.ai/inference") != selector.npos && std::ranges::any_of(cluster.items("pods"), is_model_pod);
        return failed(
            cat(spec->name, " selects ", selector, ": no pod"),
            spelling
                ? "pods carry the other spelling: llm-d.ai/inferenceServing (charts up to 0.3) is llm-d.ai/inference-serving "
                  "since 0.4; ours carry both"
                : "compare with kubectl get pods --show-labels; inferencePool.modelServers.matchLabels of the chart sets it");
      }
      const auto services = names_in(cluster.items("services"));
      if (!spec->picker.empty() && !among(services, spec->picker))
        return failed(cat(spec->name, " asks Service ", spec->picker, ", which is not there"),
                      "the picker's Service is of the same release: helm status");
      found.push_back(cat(spec->name, ": ", selected, " pods"));
    }
  }
  if (found.empty()) return failed("there is no InferencePool", "the gaie release makes it; is its CRD there?");
  if (!cluster.items("inferencepools").empty() && !cluster.items("inferencepools.x").empty())
    return note(cat(named(found), ", in both groups"),
                "kubectl get inferencepool shows one of them; keep the one that the route names");
  return {.detail = named(found)};
}

}  // namespace baton::deploy
