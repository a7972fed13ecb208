// Credential plugins: one child process, its standard output, and an end to waiting for it.
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/clock.h"
#include "base/json.h"
#include "discovery/kube_access.h"
#include "discovery/kube_files.h"
#include "discovery/limits.h"

extern char** environ;

namespace baton::discovery {
namespace {

std::string exec_info(const KubeAccess& access) {
  JsonWriter w;
  w.object().field("kind", "ExecCredential").field("apiVersion", access.exec->api_version).key("spec").object();
  w.field("interactive", false);
  if (access.exec->provide_cluster_info) {
    const bool v6 = access.host.find(':') != std::string::npos;
    w.key("cluster").object();
    w.field("server", cat(access.tls ? "https://" : "http://", v6 ? "[" : "", access.host, v6 ? "]" : "", ':', access.port,
                          access.base_path));
    w.field("insecure-skip-tls-verify", !access.verify).end();
  }
  return w.end().end().take();
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

// Ours, with the plugin's own in place of ours of the same name.
std::vector<std::string> variables_of(const KubeAccess& access) {
  std::vector<std::string> out = {"KUBERNETES_EXEC_INFO=" + exec_info(access)};
  for (const auto& [name, value] : access.exec->env) out.push_back(cat(name, '=', value));
  const size_t own = out.size();
  for (char** e = environ; *e; ++e) {
    const std::string_view variable = *e;
    const std::string_view name = variable.substr(0, variable.find('=') + 1);
    bool replaced = false;
    for (size_t i = 0; i < own; ++i) replaced |= out[i].starts_with(name);
    if (!replaced) out.emplace_back(variable);
  }
  return out;
}

// In a process group of its own, so that what a script started ends with it.
class Child {
 public:
  explicit Child(std::chrono::milliseconds timeout) : timeout_ms_(timeout.count()), end_ms_(clock_.now_ms() + timeout_ms_) {}
  ~Child() {
    if (pid_ > 0) {
      kill(-pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    for (const int fd : {out_fd_, pid_fd_}) {
      if (fd >= 0) close(fd);
    }
  }

  Result<> spawn(const KubeAccess& access) {
    const ExecPlugin& plugin = *access.exec;
    std::vector<std::string> words = {plugin.command}, variables = variables_of(access);
    words.insert(words.end(), plugin.args.begin(), plugin.args.end());
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail(Code::kResourceExhausted, "no pipe for the credential plugin");
    out_fd_ = ends[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);  // our programs block SIGTERM
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    const int error =
        posix_spawnp(&pid_, plugin.command.c_str(), &actions, &attributes, pointers(words).data(), pointers(variables).data());
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (error == 0) {
      pid_fd_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));  // Debian 12's <sys/pidfd.h> is not for C++
      return {};
    }
    pid_ = -1;
    return fail(Code::kNotFound, "cannot run the credential plugin ", plugin.command, plugin.install_hint.empty() ? "" : ": ",
                plugin.install_hint);
  }

  Result<std::string> output() {
    std::string out;
    std::array<char, 4096> part;
    for (;;) {
      BATON_OK(wait_for(out_fd_));
      const ssize_t n = read(out_fd_, part.data(), part.size());
      if (n <= 0) break;
      out.append(part.data(), static_cast<size_t>(n));
      if (out.size() > kExecOutputBytesMax) return fail(Code::kResourceExhausted, "the credential plugin wrote over 1 MiB");
    }
    BATON_OK(wait_for(pid_fd_));
    int status = 0;
    const bool reaped = waitpid(pid_, &status, 0) == pid_;
    pid_ = -1;
    if (reaped && WIFEXITED(status) && WEXITSTATUS(status) == 0) return out;
    return fail(Code::kUnauthenticated, "the credential plugin failed, exit status ",
                WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }

 private:
  Result<> wait_for(int fd) {
    for (;;) {
      const int64_t left = end_ms_ - clock_.now_ms();
      if (left <= 0) return fail(Code::kDeadlineExceeded, "the credential plugin took longer than ", timeout_ms_, " ms");
      pollfd wait{fd, POLLIN, 0};
      if (poll(&wait, 1, static_cast<int>(left)) > 0) return {};
    }
  }

  SteadyClock clock_;
  int64_t timeout_ms_, end_ms_;
  pid_t pid_ = -1;
  int out_fd_ = -1, pid_fd_ = -1;
};

}  // namespace

Result<ExecCredential> parse_exec_credential(std::string_view text) {
  auto json = parse_json(text, {.bytes_max = kExecOutputBytesMax, .nodes_max = 4096, .depth_max = 16});
  if (!json) return fail(Code::kUnauthenticated, "the credential plugin wrote no JSON");  // its text may hold secrets
  const auto get = [&](const char* key) -> std::string {
    const Json* found = json->find_path({"status", key});
    return found && found->is_string() ? found->text : "";
  };
  const Json* kind = json->find("kind");
  if (!kind || kind->text != "ExecCredential")
    return fail(Code::kUnauthenticated, "the credential plugin wrote no ExecCredential");
  ExecCredential out{get("token"), get("clientCertificateData"), get("clientKeyData"),
                     unix_from_rfc3339(get("expirationTimestamp"))};
  if (out.cert_pem.empty() != out.key_pem.empty()) {
    return fail(Code::kUnauthenticated, "the credential plugin gave a certificate without its key");
  }
  if (out.token.empty() && out.cert_pem.empty()) {
    return fail(Code::kUnauthenticated, "the credential plugin gave neither a token nor a certificate");
  }
  if (out.token.size() > kTokenBytesMax) return fail(Code::kUnauthenticated, "the credential plugin's token is over 64 KiB");
  return out;
}

Result<ExecCredential> run_exec_plugin(const KubeAccess& access, std::chrono::milliseconds timeout) {
  BATON_CHECK(access.exec.has_value());
  Child child(timeout);
  BATON_OK(child.spawn(access));
  BATON_TRY(const std::string output, child.output());
  return parse_exec_credential(output);
}

}  // namespace baton::discovery
