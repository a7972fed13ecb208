// Writes or checks docs/config.md:  config_docs --write FILE | --check FILE
#include <fstream>
#include <iterator>

#include "apps/main.h"
#include "apps/router_options.h"
#include "deploy/plan_command.h"
#include "deploy/ratio.h"
#include "deploy/render.h"
#include "deploy/verify.h"
#include "engine/config.h"
#include "loadgen/bench.h"
#include "sidecar/config.h"
#include "sim/command.h"
#include "stack/chat.h"
#include "stack/pull.h"
#include "stack/supervisor.h"
#include "stack/top.h"
#include "stack/verify.h"

namespace {

using namespace baton;

template <class Config>
std::string section(Options (*table)(Config&)) {
  Config config;
  return table(config).markdown() + "\n";
}

std::string page() {
  return "# Configuration\n\nGenerated from the programs' option tables (`apps/config_docs.cc`); do not edit. Every program also "
         "takes `--help`,\n"
         "`--version` and `--print-config`. Spelling is free: `--name value`, `--name=value`, `-name=value`, `_` for `-`, and "
         "`--no-name` for a bool.\n"
         "Flag beats environment beats default.\n\n" +
         section<engine::EngineConfig>(engine::engine_options) + section<sidecar::SidecarConfig>(sidecar::sidecar_options) +
         section<RouterConfig>(router_options) + section<stack::StackConfig>(stack::up_options) +
         section<stack::DownConfig>(stack::down_options) + section<stack::ChatConfig>(stack::chat_options) +
         section<stack::VerifyConfig>(stack::verify_options) + section<stack::TopConfig>(stack::top_options) +
         section<loadgen::BenchConfig>(loadgen::bench_options) + section<sim::SimCommand>(sim::sim_options) +
         section<stack::PullConfig>(stack::pull_options) + section<deploy::PlanCommand>(deploy::plan_options) +
         section<deploy::RenderCommand>(deploy::render_options) + section<deploy::VerifyCommand>(deploy::verify_options) +
         section<deploy::RatioCommand>(deploy::ratio_options);
}

}  // namespace

int main(int argc, char** argv) {
  std::string verb = argc == 3 ? argv[1] : "";
  if (verb == "--write") return (std::ofstream(argv[2]) << page()) ? 0 : 1;
  if (verb != "--check") return std::fprintf(stderr, "usage: config_docs --write FILE | --check FILE\n"), 2;
  std::ifstream in(argv[2]);
  if (std::string(std::istreambuf_iterator<char>(in), {}) == page()) return std::puts("docs/config.md is what the tables say"), 0;
  return std::fprintf(stderr, "docs/config.md is not what the tables say: run config_docs --write docs/config.md\n"), 1;
}
