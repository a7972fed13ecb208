#include "gateway/pools.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "gateway/limits.h"
#include "route/config.h"

namespace baton::gateway {
namespace {

class PoolsReader {
 public:
  explicit PoolsReader(std::string_view folder) : folder_(folder) {}
  std::vector<PoolSpec> pools;
  std::string errors;

  void read(const YAML::Node& root) {
    const YAML::Node list = root.IsMap() ? root["pools"] : root;
    if (!list || !list.IsSequence() || list.size() == 0) return error(root, "a list of pools is wanted");
    if (list.size() > static_cast<size_t>(kPoolsMax)) return error(list, cat("more than ", kPoolsMax, " pools"));
    std::set<std::string> names;
    for (const YAML::Node& node : list) {
      if (!node.IsMap()) {
        error(node, "a pool is a map with name and endpoints");
        continue;
      }
      PoolSpec spec = pool(node);
      if (!spec.name.empty() && !names.insert(spec.name).second) error(node, cat("pool ", spec.name, " is there twice"));
      pools.push_back(std::move(spec));
    }
  }

 private:
  void error(const YAML::Node& node, std::string_view message) {
    errors += cat(errors.empty() ? "" : "; ", "line ", node.Mark().line + 1, ": ", message);
  }
  std::string text(const YAML::Node& node, std::string_view key) {
    if (!node.IsScalar()) return error(node, cat(key, " must be a text")), "";
    return node.Scalar();
  }
  std::string path(const YAML::Node& node, std::string_view key) {
    std::string name = text(node, key);
    return name.empty() || name.starts_with('/') || folder_.empty() ? name : cat(folder_, "/", name);
  }
  int number(const YAML::Node& node, std::string_view key) {
    const std::string n = text(node, key);
    int out = 0;
    const auto [end, bad] = std::from_chars(n.data(), n.data() + n.size(), out);
    if (bad != std::errc() || end != n.data() + n.size() || out < 1) error(node, cat(key, " must be a number above 0"));
    return out;
  }
  bool flag(const YAML::Node& node, std::string_view key) {
    const std::string word = text(node, key);
    if (word != "true" && word != "false") error(node, cat(key, " must be true or false"));
    return word == "true";
  }
  PoolSpec pool(const YAML::Node& node) {
    PoolSpec out;
    for (const auto& entry : node) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
      const YAML::Node& value = entry.second;
      if (key == "name") {
        out.name = text(value, key);
      } else if (key == "endpoints") {
        out.endpoints_file = path(value, key);
      } else if (key == "inference-pool") {
        const std::string name = text(value, key);
        const size_t slash = name.find('/');
        out.inference_pool = slash == std::string::npos ? name : name.substr(slash + 1);
        if (slash != std::string::npos) out.pool_namespace = name.substr(0, slash);
        if (out.inference_pool.empty() || out.inference_pool.find('/') != std::string::npos)
          error(value, "inference-pool is a name, or namespace/name");
      } else if (key == "endpoint-selector") {
        out.endpoint_selector = text(value, key);
      } else if (key == "endpoint-target-ports" && value.IsSequence()) {
        for (const YAML::Node& port : value) out.target_ports.push_back(number(port, key));
      } else if (key == "namespace") {
        out.pool_namespace = text(value, key);
      } else if (key == "kubeconfig") {
        out.kubeconfig = path(value, key);
      } else if (key == "config") {
        out.config_file = path(value, key);
      } else if (key == "models" && value.IsSequence()) {
        for (const YAML::Node& model : value) out.models.push_back(text(model, key));
      } else if (key == "max-concurrent-requests") {
        out.concurrent_requests_max = number(value, key);
      } else if (key == "propose-role-flips") {
        out.propose_role_flips = flag(value, key);
      } else {
        error(entry.first,
              cat("no key \"", key,
                  "\" in a pool; known are name, endpoints, inference-pool, endpoint-selector, endpoint-target-ports, namespace, "
                  "kubeconfig, config, models, max-concurrent-requests, propose-role-flips"));
      }
    }
    if (out.name.empty()) error(node, "a pool needs a name");
    const int sources = (out.endpoints_file.empty() ? 0 : 1) + (out.inference_pool.empty() ? 0 : 1) + (out.endpoint_selector.empty() ? 0 : 1);
    if (sources != 1) error(node, "a pool needs endpoints, inference-pool or endpoint-selector, one of them");
    if (out.endpoint_selector.empty() != out.target_ports.empty())
      error(node, "endpoint-selector and endpoint-target-ports belong together");
    return out;
  }
  std::string_view folder_;
};

// Past the string whose opening quote is at `at`; npos if it does not end.
size_t skip_string(std::string_view s, size_t at) {
  for (++at; (at = s.find_first_of("\"\\", at)) != s.npos; at += 2) {
    if (s[at] == '"') return at + 1;
  }
  return s.npos;
}

size_t skip_space(std::string_view s, size_t at) { return std::min(s.find_first_not_of(" \t\r\n", at), s.size()); }

// Past the value at `at`, whatever it is.
size_t skip_value(std::string_view s, size_t at) {
  if (at < s.size() && s[at] == '"') return skip_string(s, at);
  for (int depth = 0; at < s.size(); ++at) {
    const char c = s[at];
    if (c == '"') {
      at = skip_string(s, at);
      if (at == s.npos) return at;
      --at;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth-- == 0) return at;
      if (depth == 0) return at + 1;
    } else if (c == ',' && depth == 0) {
      return at;
    }
  }
  return s.npos;
}

}  // namespace

std::string_view peek_model(std::string_view body) {
  size_t at = skip_space(body, 0);
  if (at >= body.size() || body[at] != '{') return "";
  for (++at;;) {
    at = skip_space(body, at);
    if (at >= body.size() || body[at] != '"') return "";
    const size_t key_end = skip_string(body, at);
    if (key_end == body.npos) return "";
    const std::string_view key = body.substr(at + 1, key_end - at - 2);
    at = skip_space(body, key_end);
    if (at >= body.size() || body[at] != ':') return "";
    at = skip_space(body, at + 1);
    const size_t end = skip_value(body, at);
    if (end == body.npos) return "";
    if (key == "model") {
      const std::string_view value = body.substr(at, end - at);
      const bool plain = value.size() >= 2 && value.starts_with('"') && value.find('\\') == value.npos;
      return plain ? value.substr(1, value.size() - 2) : "";
    }
    at = skip_space(body, end);
    if (at >= body.size() || body[at] != ',') return "";
    ++at;
  }
}

Result<std::vector<PoolSpec>> parse_pools(std::string_view text, std::string_view folder) {
  PoolsReader reader(folder);
  try {
    reader.read(YAML::Load(std::string(text)));
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalidArgument, "line ", e.mark.line + 1, ": ", e.msg);
  }
  if (!reader.errors.empty()) return fail(Code::kInvalidArgument, reader.errors);
  return std::move(reader.pools);
}

void GatewayPool::set_members(std::vector<discovery::Member> members) {
  auto state = std::make_shared<discovery::ClusterState>();
  state->generation = ++generation_;
  state->synced = true;
  state->pool = spec.name;
  state->members = std::move(members);
  picker->set_cluster(std::move(state));
}

Result<> GatewayPool::follow_kubernetes() {
  if (spec.inference_pool.empty() && spec.endpoint_selector.empty()) return {};
  discovery::KubernetesOptions options;
  options.kubeconfig = spec.kubeconfig;
  options.pool_name = spec.inference_pool;
  options.pool_namespace = spec.pool_namespace;
  options.endpoint_selector = spec.endpoint_selector;
  options.endpoint_target_ports = spec.target_ports;
  if (!spec.endpoint_selector.empty()) options.pod_name = spec.name + "-pool-0";  // it has our pool's name, not our Deployment's
  kubernetes = std::make_unique<discovery::KubernetesDiscovery>(std::move(options));
  auto started = kubernetes->start([this](std::shared_ptr<const discovery::ClusterState> state) { picker->set_cluster(std::move(state)); });
  if (!started) return within(cat("pool ", spec.name), started.error());
  return {};
}

Result<> Pools::add(PoolSpec spec, const GatewayConfig& config, Metrics& metrics, const Clock& clock) {
  auto pool = std::make_unique<GatewayPool>();
  pool->spec = std::move(spec);
  if (!pool->spec.config_file.empty()) {
    BATON_TRY(pool->config_text, read_file(pool->spec.config_file, kPoolsFileBytesMax));
  } else if (!config.config_text.empty()) {
    pool->config_text = config.config_text;
  } else {
    BATON_TRY(pool->config_text, config.picker_config());
  }
  const auto loaded = route::load_config(pool->config_text, {.allow_experimental = allow_experimental_});
  for (const std::string& warning : loaded.warnings) log_warn("configuration", "pool={} {}", pool->spec.name, warning);
  if (!loaded.plan) {
    std::string errors;
    for (const std::string& error : loaded.errors) errors += cat(errors.empty() ? "" : "; ", error);
    return fail(Code::kInvalidArgument, "configuration of pool ", pool->spec.name, ": ", errors);
  }
  picker::PickerOptions options;
  options.tracer = config.tracer;
  options.propose_role_flips = pool->spec.propose_role_flips;
  options.pool_name = pool->spec.name;
  if (!pool->spec.pool_namespace.empty()) options.pool_namespace = pool->spec.pool_namespace;
  options.scrape_interval_ms = config.refresh_metrics_interval_ms;
  options.staleness_ms = config.metrics_staleness_threshold_ms;
  options.body_bytes_max = static_cast<size_t>(config.body_bytes_max);
  options.seed = static_cast<uint64_t>(config.seed);
  pool->own = picker::Picker::make(options, loaded.plan, metrics, clock);
  pool->picker = pool->own.get();
  pools_.push_back(std::move(pool));
  return {};
}

Result<> Pools::make(const GatewayConfig& config, Metrics& metrics, const Clock& clock) {
  allow_experimental_ = config.allow_experimental_plugins;
  if (config.pools_file.empty()) {
    PoolSpec only;
    only.name = config.pool_name;
    only.endpoints_file = config.endpoints_file;
    only.config_file = config.config_file;
    return add(std::move(only), config, metrics, clock);
  }
  BATON_TRY(const std::string text, read_file(config.pools_file, kPoolsFileBytesMax));
  const size_t slash = config.pools_file.rfind('/');
  auto specs = parse_pools(text, slash == std::string::npos ? "" : config.pools_file.substr(0, slash));
  if (!specs) return fail(specs.error().code, config.pools_file, ": ", specs.error().message);
  for (PoolSpec& spec : *specs) BATON_OK(add(std::move(spec), config, metrics, clock));
  return {};
}

void Pools::adopt(std::string name, picker::Picker& picker) {
  auto pool = std::make_unique<GatewayPool>();
  pool->spec.name = std::move(name);
  pool->picker = &picker;
  pools_.push_back(std::move(pool));
}

Result<> Pools::start() {
  for (auto& pool : pools_) {
    if (!pool->own) continue;
    BATON_OK(pool->own->start());
    BATON_OK(pool->follow_kubernetes());
    if (pool->spec.endpoints_file.empty()) continue;
    pool->discovery = std::make_unique<discovery::FileDiscovery>(pool->spec.endpoints_file);
    BATON_OK(pool->discovery->start([p = pool.get()](auto membership) { p->set_members(membership->members); }));
  }
  return {};
}

void Pools::stop_discovery() {
  for (auto& pool : pools_) {
    if (pool->discovery) pool->discovery->stop();
    if (pool->kubernetes) pool->kubernetes->stop();
  }
}

void Pools::stop() {
  for (auto& pool : pools_) {
    if (pool->own) pool->own->stop();
  }
}

void Pools::look_at_configs() {
  for (auto& pool : pools_) {
    if (!pool->own || pool->spec.config_file.empty()) continue;
    auto text = read_file(pool->spec.config_file, kPoolsFileBytesMax);
    if (!text || *text == pool->config_text) continue;
    pool->config_text = *std::move(text);
    const auto loaded = route::load_config(pool->config_text, {.allow_experimental = allow_experimental_});
    if (loaded.plan) {
      pool->own->set_plan(loaded.plan);
      log_info("configuration loaded", "pool={} file={}", pool->spec.name, pool->spec.config_file);
    }
    for (const std::string& error : loaded.errors)
      log_error("new configuration refused, the old one stays", "pool={} error={}", pool->spec.name, json_string(error));
  }
}

GatewayPool& Pools::route(std::string_view model) {
  if (pools_.size() == 1 || model.empty()) return *pools_.front();
  for (auto& pool : pools_) {
    if (std::ranges::find(pool->spec.models, model) != pool->spec.models.end()) return *pool;
  }
  for (auto& pool : pools_) {
    if (pool->picker->knows_model(model)) return *pool;
  }
  return *pools_.front();
}

bool Pools::can_serve() const {
  return std::ranges::any_of(pools_, [](const auto& pool) { return pool->picker->can_serve(); });
}

bool Pools::knows_model(std::string_view id) const {
  return std::ranges::any_of(pools_, [&](const auto& pool) { return pool->picker->knows_model(id); });
}

std::vector<std::pair<std::string, std::string>> Pools::model_cards() const {
  std::vector<std::pair<std::string, std::string>> out;
  std::set<std::string> ids;
  for (const auto& pool : pools_) {
    for (std::string& card : pool->picker->model_cards()) {
      const auto root = parse_json(card);
      const Json* id = root ? root->find("id") : nullptr;
      if (id != nullptr && id->is_string() && ids.insert(id->text).second) out.emplace_back(id->text, std::move(card));
    }
  }
  return out;
}

}  // namespace baton::gateway
