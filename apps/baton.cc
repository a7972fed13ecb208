// baton: the person's tool. Each command is a library's function; this file only finds it.
#include "apps/main.h"
#include "loadgen/bench.h"
#include "stack/chat.h"
#include "stack/pull.h"
#include "stack/supervisor.h"
#include "stack/top.h"

namespace {

using namespace baton;

constexpr const char* kUsage =
    "baton: serve a language model with prefill and decode on different workers\n\n"
    "usage: baton COMMAND [flags]      (baton COMMAND --help)\n\n"
    "  up      start, watch and stop a whole stack on this machine\n"
    "  down    stop a stack left running by `baton up --detach`\n"
    "  chat    talk to it\n"
    "  top     watch its workers, queues and decisions\n"
    "  bench   load it and report TTFT, TPOT, ITL and throughput\n"
    "  pull    fetch a model\n\n"
    "Programs of their own: baton-engine (model server), baton-sidecar (beside a decode worker), baton-router (picker and "
    "gateway).\n";

template <class Config>
int command(Options (*table)(Config&), const std::vector<std::string>& args, Result<> (*go)(Config&, const ParsedArgs&)) {
  Config config;
  Options options = table(config);
  ParsedArgs parsed;
  int code = 0;
  if (!parse_or_exit(options, args, parsed, &code)) return code;
  auto done = go(config, parsed);
  return done ? 0 : report(options.program(), done.error());
}

Result<> run_pull(stack::PullConfig& c, const ParsedArgs& p) {
  BATON_TRY(std::string path,
            stack::pull(p.positional.empty() ? std::string(stack::known_models()[0].name) : p.positional[0], c));
  std::printf("%s\n", path.c_str());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> args(argv + 1, argv + argc);
  std::string name = args.empty() ? "--help" : args[0];
  if (!args.empty()) args.erase(args.begin());
  log_setup("baton", LogLevel::kWarn);
  signal(SIGPIPE, SIG_IGN);
  if (name == "up") return command<stack::StackConfig>(stack::up_options, args, [](auto& c, auto&) { return stack::up(c); });
  if (name == "down") return command<stack::DownConfig>(stack::down_options, args, [](auto& c, auto&) { return stack::down(c); });
  if (name == "chat") return command<stack::ChatConfig>(stack::chat_options, args, [](auto& c, auto&) { return stack::chat(c); });
  if (name == "top") return command<stack::TopConfig>(stack::top_options, args, [](auto& c, auto&) { return stack::top(c); });
  if (name == "pull") return command<stack::PullConfig>(stack::pull_options, args, run_pull);
  if (name == "bench")
    return command<loadgen::BenchConfig>(loadgen::bench_options, args, [](auto& c, auto&) { return loadgen::bench(c); });
  if (name == "--version") return std::printf("baton %s\n", BATON_VERSION), 0;
  bool help = name == "--help" || name == "-h" || name == "help";
  std::fputs(kUsage, help ? stdout : stderr);
  if (!help) std::fprintf(stderr, "\nbaton: no command '%s'\n", name.c_str());
  return help ? 0 : 2;
}
