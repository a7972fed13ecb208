#include "stack/plan.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/json.h"
#include "stack/limits.h"

namespace baton::stack {

Options up_options(StackConfig& c) {
  Options o("baton up", "start, watch and stop a whole stack on this machine",
            "baton up [--prefill N] [--decode M] [--model M] [flags]");
  o.group("stack");
  o.add("prefill", &c.prefill, "workers", "prefill engines; 0 = aggregated, every engine does both", 0, kWorkersMax);
  o.add("decode", &c.decode, "workers", "decode engines, each with its sidecar", 1, kWorkersMax);
  o.add("model", &c.model, "GGUF file or Hugging Face directory; empty = the demo model, pulled if it is not there");
  o.add("model-dir", &c.model_dir, "where pulled models lie").env("BATON_MODEL_DIR");
  o.add("host", &c.host, "address every part listens on");
  o.add("port", &c.port, "port", "the gateway's port; 0 = any free one", 0, 65535);
  o.add("detach", &c.detach, "return once the stack is ready and leave it running; `baton down` stops it");
  o.group("workers");
  o.add("threads", &c.threads, "threads", "compute threads of each engine; 0 = the cores shared evenly", 0, 1024);
  o.add("kv-transport", &c.kv_transport, "how KV moves", {"auto", "shm", "ucx", "tcp"});
  o.add("on-prefill-failure", &c.on_prefill_failure, "what a sidecar does when prefill fails", {"local", "next", "error"});
  o.add("kv-push", &c.kv_push, "auto = KV moves while it is computed; off = one leg after the other", {"auto", "off"});
  o.add("engine-arg", &c.engine_args, "a further flag for every engine, e.g. --engine-arg=--max-model-len=2048; repeatable");
  o.add("log-level", &c.log_level, "of every part", {"debug", "info", "warning", "error"});
  o.group("places");
  o.add("bin-dir", &c.bin_dir, "where baton-engine, baton-sidecar and baton-router lie; empty = beside this program");
  o.add("state-dir", &c.state_dir, "logs and the supervisor's pid; empty = ~/.local/state/baton").env("BATON_STATE_DIR");
  return o;
}

std::string_view role_name(Role role) {
  static constexpr std::string_view kNames[] = {"prefill", "decode", "engine", "sidecar", "router"};
  return kNames[static_cast<size_t>(role)];
}

// Every engine has an HTTP and a KV port, a decode engine one for its sidecar too; the router's comes first.
int ports_needed(const StackConfig& c) { return 1 + 2 * (c.prefill + c.decode) + (c.prefill > 0 ? c.decode : 0); }

namespace {

struct EnginePorts {
  int http = 0, kv = 0, sidecar = 0;
};

// Builds the plan worker by worker; `split` is P/D, otherwise every engine does both.
class Builder {
 public:
  Builder(const StackConfig& config, int threads) : c_(config), threads_(threads), split_(config.prefill > 0) {
    // What clients call the model: its file's name; the path works too, as it does with vLLM.
    served_ = c_.model.substr(c_.model.rfind('/') + 1);
    if (served_.ends_with(".gguf")) served_.resize(served_.size() - 5);
  }

  void engine(Role role, size_t i, const EnginePorts& at, const std::vector<std::string>& peers) {
    WorkerSpec& w = worker(cat(role_name(role), "-", i), role, at.http, "/baton-engine");
    push(w, {"serve", c_.model, "--served-model-name", served_, c_.model});
    push(w, {"--host", c_.host, "--port", std::to_string(at.http), "--threads", std::to_string(threads_), "--log-level",
             c_.log_level});
    if (split_) {
      push(w, {"--kv-transfer-host", c_.host, "--kv-transfer-port", std::to_string(at.kv), "--kv-transport", c_.kv_transport});
    }
    if (!peers.empty()) push(w, {"--kv-peers"}), push(w, peers);
    push(w, c_.engine_args);
  }

  void sidecar(size_t i, const EnginePorts& at) {
    WorkerSpec& w = worker(cat("sidecar-", i), Role::kSidecar, at.sidecar, "/baton-sidecar");
    push(w, {"--port", std::to_string(at.sidecar), "--model-server-port", std::to_string(at.http)});
    push(w, {"--on-prefill-failure", c_.on_prefill_failure, "--kv-push", c_.kv_push, "--secure-proxy=false"});
  }

  void router(int port, const std::string& endpoints_file) {
    WorkerSpec& w = worker("router", Role::kRouter, port, "/baton-router");
    push(w, {"--http-port", std::to_string(port), "--endpoints", endpoints_file});
    plan_.router_port = port;
  }

  void endpoint(Role role, size_t i, int port) {
    endpoints_.push_back({cat(role_name(role), "-", i), port, role == Role::kBoth ? "both" : std::string(role_name(role))});
  }

  StackPlan take() {
    JsonWriter w;
    w.object().key("endpoints").array();
    for (const auto& [name, port, role] : endpoints_) {
      w.object().field("name", name).field("address", c_.host).field("port", port).field("role", role).end();
    }
    plan_.endpoints = w.end().end().take() + "\n";
    return std::move(plan_);
  }

 private:
  struct Endpoint {
    std::string name;
    int port;
    std::string role;
  };
  WorkerSpec& worker(std::string name, Role role, int port, std::string_view program) {
    plan_.workers.push_back({.name = std::move(name), .role = role, .port = port, .argv = {cat(c_.bin_dir, program)}});
    WorkerSpec& w = plan_.workers.back();
    if (program == "/baton-engine") return w;  // its first word is the command
    push(w, {"--host", c_.host, "--log-level",
             c_.log_level == "warning" ? "warn" : c_.log_level});  // each as its counterpart spells it
    return w;
  }
  static void push(WorkerSpec& w, const std::vector<std::string>& words) {
    w.argv.insert(w.argv.end(), words.begin(), words.end());
  }

  const StackConfig& c_;
  int threads_;
  bool split_;
  std::string served_;
  StackPlan plan_;
  std::vector<Endpoint> endpoints_;
};

}  // namespace

Result<StackPlan> make_plan(const StackConfig& c, const std::vector<int>& ports, const std::string& endpoints_file, int cores) {
  if (c.prefill + c.decode > kWorkersMax) {
    return fail(Code::kInvalidArgument, c.prefill, " + ", c.decode, " workers: at most ", kWorkersMax, " on one machine");
  }
  BATON_CHECK(static_cast<int>(ports.size()) == ports_needed(c));
  const bool split = c.prefill > 0;
  size_t next = 1;
  std::vector<EnginePorts> prefill(static_cast<size_t>(c.prefill)), decode(static_cast<size_t>(c.decode));
  std::vector<std::string> peers;  // decode engines fetch, so they connect
  for (auto& p : prefill) {
    p.http = ports[next++], p.kv = ports[next++];
    peers.push_back(cat(c.host, ":", p.kv));
  }
  for (auto& p : decode) {
    p.http = ports[next++], p.kv = ports[next++];
    if (split) p.sidecar = ports[next++];
  }
  Builder builder(c, c.threads > 0 ? c.threads : std::max(1, cores / (c.prefill + c.decode)));
  const Role decoder = split ? Role::kDecode : Role::kBoth;
  for (size_t i = 0; i < prefill.size(); ++i) {
    builder.engine(Role::kPrefill, i, prefill[i], {});
    builder.endpoint(Role::kPrefill, i, prefill[i].http);
  }
  for (size_t i = 0; i < decode.size(); ++i) {
    builder.engine(decoder, i, decode[i], peers);
    builder.endpoint(decoder, i, split ? decode[i].sidecar : decode[i].http);
  }
  for (size_t i = 0; split && i < decode.size(); ++i) builder.sidecar(i, decode[i]);
  builder.router(ports[0], endpoints_file);
  return builder.take();
}

Result<std::vector<int>> free_ports(int n) {
  std::vector<int> fds, ports;
  for (int i = 0; i < n; ++i) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof at;
    if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&at), &len) != 0) {
      for (int open : fds) close(open);
      return fail(Code::kUnavailable, "no free port on the loopback address");
    }
    fds.push_back(fd);
    ports.push_back(ntohs(at.sin_port));
  }
  for (int fd : fds) close(fd);  // all held until now, so the ports differ
  return ports;
}

}  // namespace baton::stack
