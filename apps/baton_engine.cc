// baton-engine: the model server.  baton-engine serve MODEL [flags]
#include "apps/main.h"
#include "engine/engine.h"

int main(int argc, char** argv) {
  using namespace baton;
  if (argc > 1 && argv[1] == engine::kRankCommand) return engine::rank_main({argv + 2, argv + argc});
  engine::EngineConfig config;
  Options options = engine::engine_options(config);
  ParsedArgs parsed;
  int code = 0;
  if (!parse_or_exit(options, {argv + 1, argv + argc}, parsed, &code)) return code;
  if (auto r = engine::finish_config(config, parsed.positional); !r) return report("baton-engine", r.error()), 2;
  LogLevel level = LogLevel::kInfo;
  log_level_from(config.log_level, level);
  log_setup("baton-engine", level);
  block_stop_signals();
  int shown = -1;
  auto engine = engine::Engine::start(config, [&](double fraction) {
    int percent = static_cast<int>(fraction * 100);
    if (percent / 10 != shown) log_info("loading weights", "percent={}", percent);
    shown = percent / 10;
  });
  if (!engine) return report("baton-engine", engine.error());
  log_info("ready", "port={} {}", (*engine)->port(), (*engine)->summary());
  wait_for_stop();
  log_info("draining");
  (*engine)->stop();
  return (*engine)->alive() ? 0 : 1;
}
