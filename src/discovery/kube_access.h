#pragma once
// KubeAccess: where the API server is and how to prove who we are, from the pod's service account or from kubeconfig files.
// Credentials that change are named, not copied: the token file is read again as it rotates, the exec plugin is run again when
// its credential ends. Guarantees: an error names the file and what is wrong in it; no secret is ever part of a message.
// Not supported, refused by name: auth-provider, username/password, impersonation, proxy-url.
// Source: Kubernetes API access documentation; facts sheet "epp" 6; client.authentication.k8s.io/v1.
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace baton::discovery {

struct ExecPlugin {
  std::string api_version, command, install_hint;
  std::vector<std::string> args;
  std::vector<std::pair<std::string, std::string>> env;
  bool provide_cluster_info = false;
};

struct KubeAccess {
  bool tls = true;
  std::string host;  // IPv6 without brackets
  int port = 443;
  std::string base_path;        // "" or "/prefix" (a proxy's path, Rancher for one)
  std::string ns;               // "" = not said
  std::string ca_file, ca_pem;  // both "" = the system's
  bool verify = true;
  std::string server_name;  // of the certificate; "" = host
  std::string cert_file, key_file, cert_pem, key_pem;
  std::string token, token_file;
  std::optional<ExecPlugin> exec;
  std::string origin;  // "in-cluster" or the kubeconfig's path and context, for logs
};

struct Environment {  // what is read of the process's environment, so that tests own it
  std::string kubeconfig, home, service_host, service_port;
  std::string account_dir = "/var/run/secrets/kubernetes.io/serviceaccount";
  static Environment of_process();
};

// kubeconfig: path list (':'), "" = $KUBECONFIG, else the service account when in a cluster, else ~/.kube/config.
Result<KubeAccess> find_kube_access(const Environment& env, const std::string& kubeconfig = "", const std::string& context = "");
Result<KubeAccess> in_cluster_access(const Environment& env);

struct KubeconfigText {
  std::string path;  // relative paths inside are relative to its folder
  std::string text;
};
// Several files become one: the first that names a cluster, user, context or the current context wins.
Result<KubeAccess> parse_kubeconfig(const std::vector<KubeconfigText>& files, const std::string& context = "");

struct ExecCredential {
  std::string token, cert_pem, key_pem;
  std::optional<int64_t> expires_s;  // Unix seconds
};
Result<ExecCredential> parse_exec_credential(std::string_view json);
// Runs the plugin, at most `timeout`, then kills it. Blocks.
Result<ExecCredential> run_exec_plugin(const KubeAccess& access, std::chrono::milliseconds timeout);

}  // namespace baton::discovery
