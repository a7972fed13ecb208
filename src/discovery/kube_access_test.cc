// Credentials: kubeconfig files as people have them, the service account, credential plugins, and what is refused and how.
#include "discovery/kube_access.h"

#include <filesystem>
#include <fstream>

#include "base/prng.h"
#include "discovery/kube_files.h"
#include "discovery/kubernetes.h"
#include "discovery/limits.h"

namespace baton::discovery {
namespace {

using testing::HasSubstr;

constexpr const char* kConfig = R"(
apiVersion: v1
kind: Config
current-context: prod
preferences: {}
clusters:
- name: c1
  cluster: {server: "https://api.example:6443/k8s/clusters/x/", certificate-authority: ca.crt, tls-server-name: kubernetes}
- name: c2
  cluster: {server: "http://[fd00::1]:8080", insecure-skip-tls-verify: true}
contexts:
- {name: prod, context: {cluster: c1, user: alice, namespace: llm-d}}
- {name: dev, context: {cluster: c2, user: bob}}
- {name: plain, context: {cluster: c2, user: ""}}
users:
- name: alice
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
- name: bob
  user: {tokenFile: tokens/bob, token: ignored}
)";

TEST(Kubeconfig, ReadsContexts) {
  auto prod = parse_kubeconfig({{"/home/a/.kube/config", kConfig}});
  ASSERT_TRUE(prod) << prod.error().message;
  EXPECT_TRUE(prod->tls);
  EXPECT_EQ(prod->host, "api.example");
  EXPECT_EQ(prod->port, 6443);
  EXPECT_EQ(prod->base_path, "/k8s/clusters/x");
  EXPECT_EQ(prod->ca_file, "/home/a/.kube/ca.crt");
  EXPECT_EQ(prod->server_name, "kubernetes");
  EXPECT_EQ(prod->cert_pem, "CERT");
  EXPECT_EQ(prod->key_pem, "KEY");
  EXPECT_EQ(prod->ns, "llm-d");
  auto dev = parse_kubeconfig({{"/home/a/.kube/config", kConfig}}, "dev");
  ASSERT_TRUE(dev) << dev.error().message;
  EXPECT_FALSE(dev->tls);
  EXPECT_FALSE(dev->verify);
  EXPECT_EQ(dev->host, "fd00::1");
  EXPECT_EQ(dev->port, 8080);
  EXPECT_EQ(dev->token_file, "/home/a/.kube/tokens/bob");
  EXPECT_TRUE(parse_kubeconfig({{"c", kConfig}}, "plain"));
}

TEST(Kubeconfig, TheFirstFileWins) {
  const std::string first = "current-context: dev\nusers:\n- {name: bob, user: {token: t1}}\n";
  auto merged = parse_kubeconfig({{"/x/first", first}, {"/y/second", kConfig}});
  ASSERT_TRUE(merged) << merged.error().message;
  EXPECT_EQ(merged->token, "t1");
  EXPECT_EQ(merged->host, "fd00::1");
}

TEST(Kubeconfig, SaysWhatIsWrong) {
  const auto with = [](const std::string& cluster, const std::string& user) {
    return cat("current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {",
               cluster, "}}]\nusers: [{name: u, user: {", user, "}}]\n");
  };
  const std::string good = "server: 'https://h'";
  const std::pair<std::string, const char*> kCases[] = {
      {"", "no current-context"},
      {"[1,2]", "no map"},
      {"a: [", "not YAML"},
      {"current-context: nope", "no context \"nope\""},
      {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]", "no cluster \"c\""},
      {"contexts: [5]", "no list of maps"},
      {with("server: 'ftp://h'", ""), "must begin with https://"},
      {with("server: 'https://'", ""), "no host"},
      {with("server: 'https://h:0'", ""), "bad port"},
      {with("server: 'https://h:99999'", ""), "bad port"},
      {with("server: 'https://u@h'", ""), "no plain URL"},
      {with("server: 'https://h', proxy-url: 'socks5://p'", ""), "proxy-url"},
      {with("server: 'https://h', certificate-authority-data: '!!'", ""), "not base64"},
      {with(good, "username: a, password: b"), "not supported"},
      {with(good, "auth-provider: {name: gcp}"), "auth-provider"},
      {with(good, "client-certificate-data: QQ=="), "come together"},
      {with(good, "exec: {command: ''}"), "no command"},
      {with(good, "exec: {command: x, apiVersion: client.authentication.k8s.io/v1alpha1}"), ""},
      {with(good, "exec: {command: x, apiVersion: v9}"), "apiVersion"},
  };
  for (const auto& [text, part] : kCases) {
    auto result = parse_kubeconfig({{"/k", text}});
    if (!*part) continue;
    ASSERT_FALSE(result) << text;
    EXPECT_THAT(result.error().message, HasSubstr(part)) << text;
    EXPECT_THAT(result.error().message, HasSubstr("/k")) << text;
  }
  EXPECT_FALSE(parse_kubeconfig({{"/k", std::string(kKubeconfigBytesMax + 1, '#')}}));
  EXPECT_FALSE(parse_kubeconfig({{"/k", std::string(200'000, '[')}}));
}

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("baton-kube-" + random_hex(16));
    std::filesystem::create_directories(dir_ / "home/.kube");
    std::filesystem::create_directories(dir_ / "account");
    env_.home = dir_ / "home";
    env_.account_dir = dir_ / "account";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ / name) << text;
    return dir_ / name;
  }
  std::filesystem::path dir_;
  Environment env_;
};

TEST_F(Folder, CredentialsAreLookedForInKubectlsOrder) {
  auto none = find_kube_access(env_);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, HasSubstr("no Kubernetes credentials"));

  write("home/.kube/config", kConfig);
  EXPECT_EQ(find_kube_access(env_)->host, "api.example");

  env_.service_host = "fd00::10";
  env_.service_port = "443";
  auto no_token = find_kube_access(env_);
  ASSERT_FALSE(no_token);
  EXPECT_THAT(no_token.error().message, HasSubstr("automountServiceAccountToken"));
  write("account/token", "abc\n");
  write("account/namespace", "llm-d-pd\n");
  auto inside = find_kube_access(env_);
  ASSERT_TRUE(inside) << inside.error().message;
  EXPECT_EQ(inside->host, "fd00::10");
  EXPECT_EQ(inside->port, 443);
  EXPECT_EQ(inside->ns, "llm-d-pd");
  EXPECT_EQ(inside->token_file, (dir_ / "account/token").string());
  EXPECT_EQ(inside->ca_file, (dir_ / "account/ca.crt").string());

  env_.kubeconfig = cat((dir_ / "missing").string(), ":", write("second", kConfig));
  EXPECT_EQ(find_kube_access(env_)->ns, "llm-d");
  EXPECT_EQ(find_kube_access(env_, "", "dev")->host, "fd00::1");
  EXPECT_FALSE(find_kube_access(env_, (dir_ / "missing").string()));
  env_.kubeconfig = dir_ / "missing";
  EXPECT_THAT(find_kube_access(env_).error().message, HasSubstr("no such file"));
}

TEST_F(Folder, RunsCredentialPlugins) {
  KubeAccess access;
  access.host = "h";
  ExecPlugin plugin{.api_version = "client.authentication.k8s.io/v1",
                    .command = "/bin/sh",
                    .install_hint = "get it",
                    .args = {},
                    .env = {{"WORD", "secret"}}};
  plugin.provide_cluster_info = true;
  const auto run = [&](const std::string& script, int timeout_ms = 20'000) {
    plugin.args = {"-c", script};
    access.exec = plugin;
    return run_exec_plugin(access, std::chrono::milliseconds(timeout_ms));
  };
  auto good = run(R"(case "$KUBERNETES_EXEC_INFO" in *'"server":"https://h:443"'*) ;; *) exit 9;; esac
    echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"'$WORD'","expirationTimestamp":"2030-01-01T00:00:00Z"}}')");
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_EQ(good->token, "secret");
  EXPECT_EQ(good->expires_s, 1'893'456'000);
  EXPECT_THAT(run("exit 3").error().message, HasSubstr("exit status 3"));
  EXPECT_THAT(run("echo secret").error().message, testing::Not(HasSubstr("secret")));
  EXPECT_EQ(run("exec 1>&-; read x < /dev/zero; tail -f /dev/null", 50).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(run("tail -f /dev/null & wait", 50).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(run("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done").error().code, Code::kResourceExhausted);
  plugin.command = "/no/such/plugin";
  EXPECT_THAT(run("").error().message, HasSubstr("get it"));
}

TEST(ExecCredential, IsReadStrictly) {
  EXPECT_FALSE(parse_exec_credential("{}"));
  EXPECT_FALSE(parse_exec_credential(R"({"kind":"ExecCredential","status":{}})"));
  EXPECT_FALSE(parse_exec_credential(R"({"kind":"ExecCredential","status":{"token":"x","clientCertificateData":"c"}})"));
  auto pair = parse_exec_credential(R"({"kind":"ExecCredential","status":{"clientCertificateData":"c","clientKeyData":"k"}})");
  ASSERT_TRUE(pair);
  EXPECT_FALSE(pair->expires_s);
}

TEST(KubeFiles, Base64TimesAndTokens) {
  EXPECT_EQ(decode_base64("aGVsbG8="), "hello");
  EXPECT_EQ(decode_base64("aGVs\nbG8"), "hello");
  EXPECT_EQ(decode_base64("_-8="), decode_base64("/+8="));
  for (const char* bad : {"a", "aGVsbG8=x", "a===", "a*b="}) EXPECT_FALSE(decode_base64(bad)) << bad;
  EXPECT_EQ(unix_from_rfc3339("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(unix_from_rfc3339("2026-11-21T14:00:00.25+02:00"), unix_from_rfc3339("2026-11-21T12:00:00Z"));
  for (const char* bad : {"", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00"}) {
    EXPECT_FALSE(unix_from_rfc3339(bad)) << bad;
  }
  // {"sub":"system:serviceaccount:ns:epp"}
  EXPECT_EQ(subject_of_token("e30.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6bnM6ZXBwIn0.x"), "system:serviceaccount:ns:epp");
  EXPECT_EQ(subject_of_token("opaque"), "");
}

TEST(StandaloneName, IsTheDeploymentOfThePod) {
  EXPECT_EQ(deployment_of_pod("gaie-pd-epp-54444ddc66-qv6ds"), "gaie-pd-epp");
  EXPECT_EQ(deployment_of_pod("a-b-c"), "a");
  for (const char* bad : {"", "a", "a-b", "-a-b", "a-b-", "a-B-c", "a--c"}) EXPECT_FALSE(deployment_of_pod(bad)) << bad;
}

}  // namespace
}  // namespace baton::discovery
