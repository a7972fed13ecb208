#include "deploy/cluster.h"

#include <set>

#include "deploy/limits.h"

namespace baton::deploy {
namespace {

struct ListRow {
  std::string_view what, prefix;  // prefix: "/api/v1" or "/apis/group/version"
};
constexpr ListRow kLists[] = {
    {"gateways", "/apis/gateway.networking.k8s.io/v1"},
    {"httproutes", "/apis/gateway.networking.k8s.io/v1"},
    {"inferencepools", "/apis/inference.networking.k8s.io/v1"},
    {"inferencepools.x", "/apis/inference.networking.x-k8s.io/v1alpha2"},
    {"pods", "/api/v1"},
    {"services", "/api/v1"},
    {"podmonitors", "/apis/monitoring.coreos.com/v1"},
    {"servicemonitors", "/apis/monitoring.coreos.com/v1"},
    {"podmonitorings", "/apis/monitoring.googleapis.com/v1"},
};

net::Task<Look> look(discovery::KubeClient& client, std::string target, size_t bytes_max) {
  discovery::KubeClient::Ask ask;
  ask.target = std::move(target), ask.bytes_max = bytes_max;
  ask.answer_timeout = ask.body_timeout = net::Millis(kAnswerMs);
  auto response = co_await client.fetch(ask);
  Look out;
  if (!response) {
    out.error = response.error().message;
    co_return out;
  }
  out.status = response->status;
  if (out.status != 200) {
    out.error = discovery::status_error(out.status, response->body).message;
  } else if (auto json = parse_json(response->body, {.bytes_max = bytes_max})) {
    out.json = *std::move(json);
  } else {
    out.status = 0, out.error = cat("no JSON: ", json.error().message);
  }
  co_return out;
}

// Names of the secrets that model server pods read.
std::set<std::string> secrets_of(const Cluster& cluster) {
  std::set<std::string> out;
  for (const Json& pod : cluster.items("pods")) {
    for (const Json& container : items_at(pod, {"spec", "containers"})) {
      for (const Json& variable : items_at(container, {"env"})) {
        const std::string name = text_at(variable, {"valueFrom", "secretKeyRef", "name"});
        if (!name.empty() && out.size() < 50) out.insert(name);
      }
    }
  }
  return out;
}

}  // namespace

const Look* Cluster::find(std::string_view what) const {
  const auto at = looks.find(what);
  return at == looks.end() ? nullptr : &at->second;
}

std::span<const Json> Cluster::items(std::string_view what) const {
  const Look* seen = find(what);
  return seen == nullptr ? std::span<const Json>() : items_at(seen->json, {"items"});
}

std::string list_path(std::string_view what, std::string_view ns) {
  for (const ListRow& row : kLists) {
    if (row.what == what)
      return cat(row.prefix, "/namespaces/", ns, "/", what.substr(0, what.find('.')), "?limit=", kListObjectsMax);
  }
  return "";
}

net::Task<Cluster> read_cluster(discovery::KubeClient& client, std::string ns) {
  Cluster out;
  out.ns = std::move(ns);
  out.looks["groups"] = co_await look(client, "/apis", kListBytesMax);
  if (out.looks["groups"].status == 0) co_return out;  // nobody there
  for (const ListRow& row : kLists)
    out.looks[std::string(row.what)] = co_await look(client, list_path(row.what, out.ns), kListBytesMax);
  for (const std::string& name : secrets_of(out))
    out.looks["secret/" + name] = co_await look(client, cat("/api/v1/namespaces/", out.ns, "/secrets/", name), kListBytesMax);
  // The operator's own Service has this name in any namespace; that takes the right to list Services everywhere.
  out.looks["prometheus"] =
      co_await look(client, "/api/v1/services?fieldSelector=metadata.name%3Dprometheus-operated", kListBytesMax);
  for (const Json& service : out.items("prometheus")) {
    const std::string at =
        cat("/api/v1/namespaces/", text_at(service, {"metadata", "namespace"}), "/services/prometheus-operated:9090/proxy");
    out.looks["up"] = co_await look(
        client, cat(at, "/api/v1/query?query=", discovery::query_escaped(cat("up{namespace=\"", out.ns, "\"}"))), kListBytesMax);
    break;
  }
  co_return out;
}

net::Task<> read_metrics(discovery::KubeClient& client, Cluster& cluster) {
  for (const Json& pod : cluster.items("pods")) {
    const int port = metrics_port(pod);
    if (role_of(pod) != "decode" || port == 0 || cluster.metrics.size() >= 8) continue;
    discovery::KubeClient::Ask ask;
    ask.target = cat("/api/v1/namespaces/", cluster.ns, "/pods/", object_name(pod), ":", port, "/proxy/metrics");
    ask.bytes_max = kMetricsBytesMax;
    ask.answer_timeout = ask.body_timeout = net::Millis(kAnswerMs);
    auto response = co_await client.fetch(ask);
    cluster.metrics[object_name(pod)] = response && response->status == 200 ? response->body : "";
  }
}

Result<Cluster> recorded_cluster(std::string_view text, std::string ns) {
  BATON_TRY(const Json json, parse_json(text, {.bytes_max = kListBytesMax}));
  if (!json.is_object()) return fail(Code::kInvalidArgument, "no recorded cluster");
  Cluster out;
  out.ns = std::move(ns);
  for (size_t i = 0; i < json.keys.size(); ++i) {
    const Json& value = json.items[i];
    if (json.keys[i] == "metrics") {
      for (size_t j = 0; j < value.keys.size(); ++j) out.metrics[value.keys[j]] = value.items[j].text;
      continue;
    }
    Look& seen = out.looks[json.keys[i]];
    const Json* status = value.find("code");  // a Status object is an answer too
    seen.status = status != nullptr ? static_cast<int>(status->as_int().value_or(0)) : 200;
    if (seen.status != 200) seen.error = text_at(value, {"message"});
    if (seen.status == 200) seen.json = value;
  }
  return out;
}

std::string text_at(const Json& object, std::initializer_list<std::string_view> path) {
  const Json* found = object.find_path(path);
  return found != nullptr && (found->is_string() || found->is_number()) ? found->text : "";
}

const Json* condition(std::span<const Json> conditions, std::string_view type) {
  for (const Json& one : conditions) {
    if (text_at(one, {"type"}) == type) return &one;
  }
  return nullptr;
}

std::string role_of(const Json& pod) { return text_at(pod, {"metadata", "labels", "llm-d.ai/role"}); }

int metrics_port(const Json& pod) {
  int any = 0;
  for (const Json& container : items_at(pod, {"spec", "containers"})) {
    for (const Json& port : items_at(container, {"ports"})) {
      const Json* number = port.find("containerPort");
      const int n = number != nullptr ? static_cast<int>(number->as_int().value_or(0)) : 0;
      const std::string name = text_at(port, {"name"});
      if (name == "metrics" || name == "vllm") return n;
      if (text_at(container, {"name"}) == "vllm" && any == 0) any = n;
    }
  }
  return any;
}

bool is_model_pod(const Json& pod) {
  const auto labels = texts_at(pod, {"metadata", "labels"});
  return labels.contains("llm-d.ai/inferenceServing") || labels.contains("llm-d.ai/inference-serving") ||
         labels.contains("llm-d.ai/role");
}

std::string named(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kNamedMax; ++i) out += cat(i > 0 ? ", " : "", names[i]);
  if (names.size() > kNamedMax) out += cat(" and ", names.size() - kNamedMax, " more");
  return out;
}

}  // namespace baton::deploy
