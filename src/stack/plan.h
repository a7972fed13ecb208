#pragma once
// Plan: which processes make a stack, with which flags, on which ports. Pure but for free_ports(), so every combination is
// testable.
//
//   client -> router :port -> sidecar (one a decode engine) -> decode engine
//                                    \-> prefill engine ... KV ...^
// With prefill = 0 the engines are aggregated: no sidecar, the router talks to them directly.
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace baton::stack {

struct StackConfig {
  int prefill = 1;
  int decode = 1;
  std::string model;                 // GGUF file or directory; "" = the demo model, pulled if absent
  std::string model_dir = "models";  // where `baton pull` puts models
  std::string host = "127.0.0.1";
  int port = 8000;  // the router's; 0 = any free port
  bool detach = false;
  int threads = 0;  // per engine; 0 = cores shared evenly
  std::string kv_transport = "auto";
  std::string bin_dir;    // "" = where this program lies
  std::string state_dir;  // "" = $XDG_STATE_HOME/baton or ~/.local/state/baton
  std::string on_prefill_failure = "local";
  std::string kv_push = "auto";
  std::vector<std::string> engine_args;  // --engine-arg, passed through to every engine
  std::string log_level = "info";
};
Options up_options(StackConfig& config);

enum class Role { kPrefill, kDecode, kBoth, kSidecar, kRouter };
std::string_view role_name(Role role);

struct WorkerSpec {
  std::string name;  // "prefill-0"
  Role role = Role::kBoth;
  int port = 0;
  std::vector<std::string> argv;  // argv[0] is the program's path
};

struct StackPlan {
  std::vector<WorkerSpec> workers;  // in start order; stopped in reverse
  std::string endpoints;            // text of the router's endpoints file
  int router_port = 0;
};

// ports: one for each of ports_needed(config).
int ports_needed(const StackConfig& config);
Result<StackPlan> make_plan(const StackConfig& config, const std::vector<int>& ports, const std::string& endpoints_file,
                            int cores);
Result<std::vector<int>> free_ports(int n);  // loopback ports that were free a moment ago

}  // namespace baton::stack
