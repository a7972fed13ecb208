// What the decode servers' metrics say about KV, and who reads them.
#include <algorithm>
#include <charconv>

#include "deploy/checks.h"
#include "discovery/kube_objects.h"

namespace baton::deploy {
namespace {

// A sample's value, if the line is of this metric and has `with` in its labels.
std::optional<double> sample(std::string_view line, std::string_view name, std::string_view with) {
  if (!line.starts_with(name) || line.size() <= name.size()) return std::nullopt;
  const char after = line[name.size()];
  if (after != '{' && after != ' ') return std::nullopt;
  if (line.find(with) == line.npos) return std::nullopt;
  const std::string_view number = line.substr(line.rfind(' ') + 1);
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

// The network device that a pod's containers ask for; "" = none.
std::string rdma_of(const Json& pod) {
  for (const Json& container : items_at(pod, {"spec", "containers"})) {
    for (const auto& [name, count] : texts_at(container, {"resources", "limits"})) {
      if (name.starts_with("rdma/") || name.find(".com/rdma") != name.npos) return name;
    }
  }
  return "";
}

std::string variable_of(const Json& pod, std::string_view name) {
  for (const Json& container : items_at(pod, {"spec", "containers"})) {
    for (const Json& variable : items_at(container, {"env"})) {
      if (text_at(variable, {"name"}) == name) return text_at(variable, {"value"});
    }
  }
  return "";
}

std::string speed(double bytes_s) {
  const double gb = bytes_s / 1e9;
  return gb >= 10 ? cat(static_cast<int>(gb), " GB/s") : cat(static_cast<int>(gb * 100) / 100.0, " GB/s");
}

constexpr double kTcpBytesS =
    1.5e9;  // slower than one 25 Gb/s stream: what UCX falls to without a device (facts sheet "performance" 3.1)

}  // namespace

std::optional<double> sample_sum(std::string_view text, std::string_view name, std::string_view with) {
  std::optional<double> out;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (const auto value = sample(line, name, with)) out = out.value_or(0) + *value;
  }
  return out;
}

Outcome kv_path(const Cluster& cluster) {
  double bytes = 0, seconds = 0;
  std::vector<std::string> paths;
  for (const Json& pod : cluster.items("pods")) {
    const auto at = cluster.metrics.find(object_name(pod));
    if (at == cluster.metrics.end() || at->second.empty()) continue;
    const std::string rdma = rdma_of(pod), &text = at->second;
    bytes += sample_sum(text, "vllm:nixl_bytes_transferred_sum").value_or(0);
    seconds += sample_sum(text, "vllm:nixl_xfer_time_seconds_sum").value_or(0);
    for (const char* path : {"shm", "ucx", "ucx_get", "tcp"}) {
      const std::string with = cat("path=\"", path, "\"");
      if (!sample_sum(text, "kv_path_bandwidth", with)) continue;
      if (!among(paths, path)) paths.emplace_back(path);
      if (std::string_view(path) == "tcp" && !rdma.empty())
        return failed(
            cat(object_name(pod), " takes KV over TCP, though it has ", rdma),
            "UCX_TLS and UCX_NET_DEVICES name the device; ucx_info -d in the pod lists what it sees; memlock must be unlimited");
      if (sample_sum(text, "kv_path_slow", with).value_or(0) > 0)
        return failed(cat(object_name(pod), ": its ", path, " path is slower than it should be"),
                      "kv_path_bandwidth has the figure of each peer; shared hosts, a wrong device, an MTU of 1500?");
    }
    const std::string tls = variable_of(pod, "UCX_TLS");
    if (!rdma.empty() && tls == "tcp")
      return failed(cat(object_name(pod), ": UCX_TLS=tcp, though it has ", rdma), "leave UCX_TLS away, or name rc with it");
  }
  if (cluster.metrics.empty())
    return note("no decode pod's metrics can be read", "this account may not use pods/proxy, or no decode pod is there");
  if (bytes <= 0)
    return note(paths.empty() ? "no KV has moved yet" : cat("over ", named(paths), ", no KV has moved yet"),
                "ask a long prompt, then again");
  const std::string detail = cat(static_cast<int64_t>(bytes / 1024), " KiB", paths.empty() ? "" : cat(" over ", named(paths)),
                                 seconds > 0 ? cat(", ", speed(bytes / seconds)) : "");
  const bool large = bytes > 64e6;  // of small transfers the fixed cost is most of the time
  if (large && seconds > 0 && bytes / seconds < kTcpBytesS && !among(paths, "shm"))
    return note(detail, "as slow as TCP: for RDMA the pods want a device (RDMA_RESOURCE), and UCX_TLS must allow it");
  return {.detail = detail};
}

Outcome kv_failures(const Cluster& cluster) {
  if (cluster.metrics.empty()) return note("not known", "see above");
  double lost = 0, expired = 0, computed = 0;
  for (const auto& [pod, text] : cluster.metrics) {
    lost += sample_sum(text, "vllm:nixl_num_failed_transfers_total")
                .value_or(sample_sum(text, "vllm:nixl_num_failed_transfers").value_or(0));
    expired += sample_sum(text, "vllm:nixl_num_kv_expired_reqs_total")
                   .value_or(sample_sum(text, "vllm:nixl_num_kv_expired_reqs").value_or(0));
    computed += sample_sum(text, "kv_fallback_total").value_or(0);
  }
  if (lost + expired + computed == 0) return {.detail = "no transfer failed"};
  return note(cat(static_cast<int64_t>(lost), " failed, ", static_cast<int64_t>(expired), " expired, ",
                  static_cast<int64_t>(computed), " computed again, since the pods began"),
              "kv_transfer_failures_total and kv_fallback_total have the reasons; growing now? kubectl logs of both sides");
}

Outcome scraped(const Cluster& cluster) {
  std::vector<std::string> monitors;
  for (const char* list : {"podmonitors", "podmonitorings"}) {
    for (const Json& monitor : cluster.items(list)) {
      const auto selector = texts_at(monitor, {"spec", "selector", "matchLabels"});
      const bool google = std::string_view(list) == "podmonitorings";
      bool pods = false, port = google;
      std::string wanted;
      for (const Json& end : items_at(monitor, {"spec", "podMetricsEndpoints"})) wanted = text_at(end, {"port"});
      for (const Json& pod : cluster.items("pods")) {
        if (!discovery::selects(selector, texts_at(pod, {"metadata", "labels"}))) continue;
        pods = true;
        for (const char* group : {"containers", "initContainers"}) {
          for (const Json& container : items_at(pod, {"spec", group})) {
            for (const Json& p : items_at(container, {"ports"})) port |= text_at(p, {"name"}) == wanted;
          }
        }
      }
      if (!pods)
        return failed(cat(object_name(monitor), " selects no pod"), "its labels are the workload's: helm upgrade the release");
      if (!port)
        return failed(cat(object_name(monitor), " scrapes port ", wanted, ", which no container has"),
                      "monitoring.podmonitor.portName must be the name of a container's port: empty graphs otherwise");
      monitors.push_back(object_name(monitor));
    }
  }
  for (const Json& monitor : cluster.items("servicemonitors")) monitors.push_back(object_name(monitor));
  if (monitors.empty())
    return note("no monitor is there",
                "docs/monitoring/scripts/install-prometheus-grafana.sh, then decode.monitoring.podmonitor.enabled of the chart");
  const Look* up = cluster.find("up");
  if (up == nullptr || up->status != 200) return {.detail = cat(monitors.size(), " monitors; no Prometheus was asked")};
  int targets = 0, down = 0;
  for (const Json& one : items_at(up->json, {"data", "result"})) {
    const auto& value = items_at(one, {"value"});
    ++targets;
    down += value.size() == 2 && value[1].text == "0" ? 1 : 0;
  }
  if (targets == 0)
    return failed("Prometheus scrapes nothing of this namespace",
                  "does it select these monitors? docs/monitoring: labels, serviceMonitorSelector, its rights");
  if (down > 0)
    return failed(cat(down, " of ", targets, " targets are down"),
                  "Prometheus' page /targets says why: a NetworkPolicy, TLS, a port");
  return {.detail = cat(targets, " targets up")};
}

}  // namespace baton::deploy
