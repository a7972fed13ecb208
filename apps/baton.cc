// baton: the person's tool. Each command is a library's function; this file only names them.
#include "apps/commands.h"
#include "apps/deploy_command.h"
#include "loadgen/bench.h"
#include "sim/command.h"
#include "stack/chat.h"
#include "stack/pull.h"
#include "stack/supervisor.h"
#include "stack/top.h"
#include "stack/verify.h"

namespace {

using namespace baton;

Result<> run_pull(stack::PullConfig& c, const ParsedArgs& p) {
  BATON_TRY(std::string path,
            stack::pull(p.positional.empty() ? std::string(stack::known_models()[0].name) : p.positional[0], c));
  std::printf("%s\n", path.c_str());
  return {};
}

Result<> run_verify(stack::VerifyConfig& c, const ParsedArgs& p) {
  if (!p.positional.empty()) c.url = p.positional[0];
  return stack::verify(c);
}

constexpr Command kCommands[] = {
    {"up", "start, watch and stop a whole stack on this machine",
     command<stack::StackConfig, stack::up_options, [](auto& c, auto&) { return stack::up(c); }>},
    {"down", "stop a stack left running by `baton up --detach`",
     command<stack::DownConfig, stack::down_options, [](auto& c, auto&) { return stack::down(c); }>},
    {"chat", "talk to it", command<stack::ChatConfig, stack::chat_options, [](auto& c, auto&) { return stack::chat(c); }>},
    {"top", "watch its workers, queues and decisions",
     command<stack::TopConfig, stack::top_options, [](auto& c, auto&) { return stack::top(c); }>},
    {"verify", "ask it a few questions and say whether it is right",
     command<stack::VerifyConfig, stack::verify_options, run_verify>},
    {"bench", "load it and report TTFT, TPOT, ITL and throughput",
     command<loadgen::BenchConfig, loadgen::bench_options, [](auto& c, auto&) { return loadgen::bench(c); }>},
    {"sim", "compare picking policies on a pool that does not exist",
     command<sim::SimCommand, sim::sim_options, [](auto& c, auto&) { return sim::sim(c); }>},
    {"pull", "fetch a model", command<stack::PullConfig, stack::pull_options, run_pull>},
    {"deploy", "plan, render and check a stack on Kubernetes", deploy_command},
};

}  // namespace

int main(int argc, char** argv) {
  log_setup("baton", LogLevel::kWarn);
  signal(SIGPIPE, SIG_IGN);
  return run_command(kCommands, {argv + 1, argv + argc}, "baton", "baton: serve a language model with prefill and decode on different workers",
                     "Programs of their own: baton-engine (model server), baton-sidecar (beside a decode worker), baton-router "
                     "(picker and gateway).");
}
