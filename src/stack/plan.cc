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
  o.add("kv-transport", &c.kv_transport, "how KV moves", {"auto", "shm", "tcp"});
  o.add("on-prefill-failure", &c.on_prefill_failure, "what a sidecar does when prefill fails", {"local", "next", "error"});
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

namespace {
struct EnginePorts {
  int http = 0, kv = 0, sidecar = 0;
};
}  // namespace

// Every engine has an HTTP and a KV port, a decode engine one for its sidecar too; the router's comes first.
int ports_needed(const StackConfig& c) { return 1 + 2 * (c.prefill + c.decode) + (c.prefill > 0 ? c.decode : 0); }

Result<StackPlan> make_plan(const StackConfig& c, const std::vector<int>& ports, const std::string& endpoints_file, int cores) {
  if (c.prefill + c.decode > kWorkersMax) {
    return fail(Code::kInvalidArgument, c.prefill, " + ", c.decode, " workers: at most ", kWorkersMax, " on one machine");
  }
  BATON_CHECK(static_cast<int>(ports.size()) == ports_needed(c));
  size_t next = 0;
  StackPlan plan;
  plan.router_port = ports[next++];
  bool split = c.prefill > 0;
  std::vector<EnginePorts> prefill(static_cast<size_t>(c.prefill)), decode(static_cast<size_t>(c.decode));
  for (auto& p : prefill) p.http = ports[next++], p.kv = ports[next++];
  for (auto& p : decode) {
    p.http = ports[next++], p.kv = ports[next++];
    if (split) p.sidecar = ports[next++];
  }
  int threads = c.threads > 0 ? c.threads : std::max(1, cores / (c.prefill + c.decode));
  // What clients call the model: its file's name; the path works too, as it does with vLLM.
  std::string served = c.model.substr(c.model.rfind('/') + 1);
  if (served.ends_with(".gguf")) served.resize(served.size() - 5);
  auto engine = [&](Role role, size_t i, const EnginePorts& at) {
    WorkerSpec w{.name = cat(role_name(role), "-", i), .role = role, .port = at.http, .argv = {}};
    w.argv = {c.bin_dir + "/baton-engine",
              "serve",
              c.model,
              "--served-model-name",
              served,
              c.model,
              "--host",
              c.host,
              "--port",
              std::to_string(at.http),
              "--threads",
              std::to_string(threads),
              "--log-level",
              c.log_level};
    if (split) {
      w.argv.insert(w.argv.end(), {"--kv-transfer-host", c.host, "--kv-transfer-port", std::to_string(at.kv), "--kv-transport",
                                   c.kv_transport});
    }
    if (role == Role::kDecode) {
      w.argv.push_back("--kv-peers");
      for (const auto& p : prefill) w.argv.push_back(cat(c.host, ":", p.kv));
    }
    w.argv.insert(w.argv.end(), c.engine_args.begin(), c.engine_args.end());
    plan.workers.push_back(std::move(w));
  };
  for (size_t i = 0; i < prefill.size(); ++i) engine(Role::kPrefill, i, prefill[i]);
  for (size_t i = 0; i < decode.size(); ++i) engine(split ? Role::kDecode : Role::kBoth, i, decode[i]);
  JsonWriter endpoints;
  endpoints.object().key("endpoints").array();
  auto endpoint = [&](std::string_view name, int port, std::string_view role) {
    endpoints.object().field("name", name).field("address", c.host).field("port", port).field("role", role).end();
  };
  for (size_t i = 0; i < prefill.size(); ++i) endpoint(cat("prefill-", i), prefill[i].http, "prefill");
  for (size_t i = 0; i < decode.size(); ++i) {
    endpoint(cat(role_name(split ? Role::kDecode : Role::kBoth), "-", i), split ? decode[i].sidecar : decode[i].http,
             split ? "decode" : "both");
    if (!split) continue;
    plan.workers.push_back({.name = cat("sidecar-", i),
                            .role = Role::kSidecar,
                            .port = decode[i].sidecar,
                            .argv = {c.bin_dir + "/baton-sidecar", "--host", c.host, "--port", std::to_string(decode[i].sidecar),
                                     "--model-server-port", std::to_string(decode[i].http), "--on-prefill-failure",
                                     c.on_prefill_failure, "--secure-proxy=false", "--log-level", c.log_level}});
  }
  plan.endpoints = endpoints.end().end().take() + "\n";
  plan.workers.push_back({.name = "router",
                          .role = Role::kRouter,
                          .port = plan.router_port,
                          .argv = {c.bin_dir + "/baton-router", "--host", c.host, "--http-port", std::to_string(plan.router_port),
                                   "--endpoints", endpoints_file, "--log-level", c.log_level}});
  return plan;
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
