// baton-sidecar: stands before a decode engine; prefill first, then decode with the KV's address.
#include "apps/main.h"
#include "base/log_json.h"
#include "sidecar/configuration.h"
#include "sidecar/sidecar.h"

int main(int argc, char** argv) {
  using namespace baton;
  sidecar::SidecarConfig config;
  Options options = sidecar::sidecar_options(config);
  auto parsed = sidecar::parse_command_line({argv + 1, argv + argc}, options, config);
  int code = 0;
  if (!show_or_run(options, parsed, &code)) return code;
  LogLevel level = LogLevel::kInfo;
  log_level_from(config.log_level, level);
  (config.log_encoder == "json" ? log_setup_json : log_setup)("baton-sidecar", level);
  block_stop_signals();
  sidecar::Sidecar sidecar(config);
  if (auto r = sidecar.start(); !r) return report("baton-sidecar", r.error());
  wait_for_stop();
  log_info("draining");
  sidecar.stop();
  return 0;
}
