#include "discovery/kube_access.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "discovery/kube_files.h"
#include "discovery/limits.h"

namespace baton::discovery {
namespace {

constexpr std::string_view kInCluster = "in-cluster";

YAML::Node child(const YAML::Node& node, const char* key) {
  if (!node.IsMap()) return YAML::Node();
  YAML::Node found = node[key];
  return found ? found : YAML::Node();
}

// "" for what is absent or no scalar: kubectl treats an empty field as absent too.
std::string text(const YAML::Node& node, const char* key) {
  const YAML::Node found = child(node, key);
  return found.IsScalar() ? found.Scalar() : "";
}

bool flag(const YAML::Node& node, const char* key) { return text(node, key) == "true"; }

// The first entry of that name over all files, with the folder its relative paths start from.
struct Entry {
  YAML::Node body;
  std::string folder;
};

class Kubeconfig {
 public:
  Result<> add(const KubeconfigText& file) {
    if (file.text.size() > kKubeconfigBytesMax) {
      return fail(Code::kInvalidArgument, "kubeconfig ", file.path, " is larger than ", kKubeconfigBytesMax, " bytes");
    }
    const YAML::Node root = YAML::Load(file.text);
    if (root.IsNull()) return {};
    if (!root.IsMap()) return fail(Code::kInvalidArgument, "kubeconfig ", file.path, " is no map");
    const std::string folder = std::filesystem::path(file.path).parent_path().string();
    if (current.empty()) current = text(root, "current-context");
    for (Section* section : {&clusters, &contexts, &users}) {
      for (const YAML::Node& item : child(root, section->list)) {
        if (!item.IsMap())
          return fail(Code::kInvalidArgument, "kubeconfig ", file.path, ": ", section->list, " has no list of maps");
        section->entries.emplace_back(text(item, "name"), Entry{child(item, section->item), folder});
      }
    }
    return {};
  }

  struct Section {
    const char *list, *item;
    std::vector<std::pair<std::string, Entry>> entries;
    const Entry* find(const std::string& name) const {
      for (const auto& [key, entry] : entries) {
        if (key == name) return &entry;
      }
      return nullptr;
    }
  };
  Section clusters{"clusters", "cluster", {}}, contexts{"contexts", "context", {}}, users{"users", "user", {}};
  std::string current;
};

std::string beside(const std::string& folder, const std::string& path) {
  if (path.empty() || path.front() == '/' || folder.empty()) return path;
  return (std::filesystem::path(folder) / path).lexically_normal().string();
}

Result<> read_inline(const YAML::Node& node, const char* key, std::string& out) {
  const std::string data = text(node, key);
  if (data.empty()) return {};
  const auto decoded = decode_base64(data);
  if (!decoded) return fail(Code::kInvalidArgument, key, " is not base64");
  out = *decoded;
  return {};
}

Result<> read_server(const std::string& url, KubeAccess& out) {
  std::string_view rest = url;
  if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
    out.tls = false;
  } else {
    return fail(Code::kInvalidArgument, "server \"", url, "\" must begin with https:// or http://");
  }
  out.port = out.tls ? 443 : 80;
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos) out.base_path = rest.substr(slash);
  while (out.base_path.ends_with('/')) out.base_path.pop_back();
  std::string_view authority = rest.substr(0, slash), port;
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos) return fail(Code::kInvalidArgument, "server \"", url, "\" has no ]");
    out.host = authority.substr(1, close - 1);
    port = authority.substr(close + 1);
    if (!port.empty() && port.front() != ':') return fail(Code::kInvalidArgument, "server \"", url, "\": bad port");
    if (!port.empty()) port.remove_prefix(1);
  } else {
    const size_t colon = authority.find(':');
    out.host = authority.substr(0, colon);
    if (colon != std::string_view::npos) port = authority.substr(colon + 1);
  }
  if (!port.empty() || authority.ends_with(':')) {
    const auto [end, status] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (status != std::errc() || end != port.data() + port.size() || out.port < 1 || out.port > 65535) {
      return fail(Code::kInvalidArgument, "server \"", url, "\": bad port");
    }
  }
  for (const char c : cat(out.host, out.base_path)) {
    if (c <= ' ' || c == 0x7f || c == '@' || c == '?' || c == '#')
      return fail(Code::kInvalidArgument, "server \"", url, "\" is no plain URL");
  }
  if (out.host.empty()) return fail(Code::kInvalidArgument, "server \"", url, "\" has no host");
  return {};
}

Result<> read_cluster(const Entry& entry, KubeAccess& out) {
  const YAML::Node& node = entry.body;
  BATON_OK(read_server(text(node, "server"), out));
  out.ca_file = beside(entry.folder, text(node, "certificate-authority"));
  BATON_OK(read_inline(node, "certificate-authority-data", out.ca_pem));
  if (!out.ca_pem.empty()) out.ca_file.clear();
  out.verify = !flag(node, "insecure-skip-tls-verify");
  out.server_name = text(node, "tls-server-name");
  if (!text(node, "proxy-url").empty()) return fail(Code::kUnimplemented, "proxy-url is not supported");
  return {};
}

Result<ExecPlugin> read_exec(const YAML::Node& node, const std::string& folder) {
  ExecPlugin out;
  out.api_version = text(node, "apiVersion");
  out.command = text(node, "command");
  out.install_hint = text(node, "installHint");
  out.provide_cluster_info = flag(node, "provideClusterInfo");
  if (out.command.empty()) return fail(Code::kInvalidArgument, "exec has no command");
  if (out.command.find('/') != std::string::npos) out.command = beside(folder, out.command);
  if (!out.api_version.starts_with("client.authentication.k8s.io/v1")) {
    return fail(Code::kInvalidArgument, "exec.apiVersion must be client.authentication.k8s.io/v1 or v1beta1, got \"",
                out.api_version, "\"");
  }
  if (text(node, "interactiveMode") == "Always")
    return fail(Code::kUnimplemented, "exec.interactiveMode Always: nobody is there to answer");
  for (const YAML::Node& arg : child(node, "args")) out.args.push_back(arg.IsScalar() ? arg.Scalar() : "");
  for (const YAML::Node& item : child(node, "env")) out.env.emplace_back(text(item, "name"), text(item, "value"));
  return out;
}

Result<> read_user(const Entry& entry, KubeAccess& out) {
  const YAML::Node& node = entry.body;
  for (const char* key : {"auth-provider", "username", "password", "as", "as-groups", "as-uid", "as-user-extra"}) {
    const YAML::Node found = child(node, key);
    if (!found.IsNull()) return fail(Code::kUnimplemented, key, " is not supported: use a token, a certificate or exec");
  }
  out.token = text(node, "token");
  out.token_file = beside(entry.folder, text(node, "tokenFile"));
  out.cert_file = beside(entry.folder, text(node, "client-certificate"));
  out.key_file = beside(entry.folder, text(node, "client-key"));
  BATON_OK(read_inline(node, "client-certificate-data", out.cert_pem));
  BATON_OK(read_inline(node, "client-key-data", out.key_pem));
  if (!out.cert_pem.empty()) out.cert_file.clear();
  if (!out.key_pem.empty()) out.key_file.clear();
  if ((out.cert_pem.empty() && out.cert_file.empty()) != (out.key_pem.empty() && out.key_file.empty())) {
    return fail(Code::kInvalidArgument, "a client certificate and its key come together");
  }
  if (const YAML::Node exec = child(node, "exec"); exec.IsMap()) {
    BATON_TRY(out.exec, read_exec(exec, entry.folder));
  }
  return {};
}

Result<KubeAccess> assemble(const Kubeconfig& config, const std::string& wanted, const std::string& paths) {
  const std::string name = wanted.empty() ? config.current : wanted;
  if (name.empty()) return fail(Code::kInvalidArgument, "kubeconfig ", paths, " has no current-context");
  const Entry* context = config.contexts.find(name);
  if (!context) return fail(Code::kInvalidArgument, "kubeconfig ", paths, " has no context \"", name, "\"");
  const std::string cluster = text(context->body, "cluster"), user = text(context->body, "user");
  const Entry* at = config.clusters.find(cluster);
  if (!at)
    return fail(Code::kInvalidArgument, "kubeconfig ", paths, " has no cluster \"", cluster, "\" (of context \"", name, "\")");
  KubeAccess out;
  out.ns = text(context->body, "namespace");
  out.origin = cat(paths, " context ", name);
  if (auto r = read_cluster(*at, out); !r) return within(cat("kubeconfig ", paths, " cluster \"", cluster, "\""), r.error());
  if (user.empty()) return out;
  const Entry* who = config.users.find(user);
  if (!who) return fail(Code::kInvalidArgument, "kubeconfig ", paths, " has no user \"", user, "\" (of context \"", name, "\")");
  if (auto r = read_user(*who, out); !r) return within(cat("kubeconfig ", paths, " user \"", user, "\""), r.error());
  return out;
}

Result<KubeAccess> from_files(const std::string& list, bool all_needed, const std::string& context) {
  std::vector<KubeconfigText> files;
  std::string missing;
  for (size_t from = 0; from <= list.size();) {
    const size_t colon = std::min(list.find(':', from), list.size());
    const std::string path = list.substr(from, colon - from);
    from = colon + 1;
    if (path.empty()) continue;
    auto read = read_file(path, kKubeconfigBytesMax);
    if (!read) {
      if (all_needed || read.error().code != Code::kNotFound) return within("kubeconfig", read.error());
      missing += cat(missing.empty() ? "" : ", ", path);
      continue;
    }
    files.push_back({path, *std::move(read)});
  }
  if (files.empty()) return fail(Code::kNotFound, "kubeconfig: no such file: ", missing.empty() ? list : missing);
  return parse_kubeconfig(files, context);
}

}  // namespace

Environment Environment::of_process() {
  const auto get = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  return {get("KUBECONFIG"), get("HOME"), get("KUBERNETES_SERVICE_HOST"), get("KUBERNETES_SERVICE_PORT")};
}

Result<KubeAccess> parse_kubeconfig(const std::vector<KubeconfigText>& files, const std::string& context) {
  if (files.size() > kKubeconfigFilesMax)
    return fail(Code::kInvalidArgument, "more than ", kKubeconfigFilesMax, " kubeconfig files");
  Kubeconfig config;
  std::string paths;
  for (const KubeconfigText& file : files) {
    paths += cat(paths.empty() ? "" : ":", file.path);
    try {
      BATON_OK(config.add(file));
    } catch (const std::exception& e) {
      return fail(Code::kInvalidArgument, "kubeconfig ", file.path, " is not YAML: ", e.what());
    }
  }
  try {
    return assemble(config, context, paths);
  } catch (const std::exception& e) {
    return fail(Code::kInvalidArgument, "kubeconfig ", paths, ": ", e.what());
  }
}

Result<KubeAccess> in_cluster_access(const Environment& env) {
  KubeAccess out;
  out.origin = kInCluster;
  out.host = env.service_host;
  const std::string& port = env.service_port;
  const auto [end, status] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (env.service_host.empty() || status != std::errc() || end != port.data() + port.size()) {
    return fail(Code::kFailedPrecondition, "not in a cluster: KUBERNETES_SERVICE_HOST and _PORT are not set");
  }
  out.token_file = env.account_dir + "/token";
  out.ca_file = env.account_dir + "/ca.crt";
  // Read once now: a pod without a mounted service account would otherwise only say 401.
  if (auto token = read_file(out.token_file, kTokenBytesMax); !token) {
    return fail(Code::kFailedPrecondition, token.error().message,
                ": the pod has no service account token (automountServiceAccountToken: false?)");
  }
  if (auto ns = read_file(env.account_dir + "/namespace", kTextBytesMax)) out.ns = trimmed(*ns);
  return out;
}

Result<KubeAccess> find_kube_access(const Environment& env, const std::string& kubeconfig, const std::string& context) {
  if (!kubeconfig.empty()) return from_files(kubeconfig, true, context);
  if (!env.kubeconfig.empty()) return from_files(env.kubeconfig, false, context);
  if (!env.service_host.empty()) return in_cluster_access(env);
  const std::string path = env.home + "/.kube/config";
  if (!env.home.empty() && std::filesystem::exists(path)) return from_files(path, true, context);
  return fail(Code::kFailedPrecondition,
              "no Kubernetes credentials: not in a cluster (KUBERNETES_SERVICE_HOST), no --kubeconfig, no KUBECONFIG, no ", path);
}

}  // namespace baton::discovery
