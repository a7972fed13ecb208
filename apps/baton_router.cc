// baton-router: picks the workers of each request and forwards it (the embedded gateway; Envoy's ext_proc comes with `epp`).
#include "apps/main.h"
#include "gateway/gateway.h"

int main(int argc, char** argv) {
  using namespace baton;
  gateway::GatewayConfig config;
  Options options = gateway::gateway_options(config);
  ParsedArgs parsed;
  int code = 0;
  if (!parse_or_exit(options, {argv + 1, argv + argc}, parsed, &code)) return code;
  LogLevel level = LogLevel::kInfo;
  log_level_from(config.log_level, level);
  log_setup("baton-router", level);
  block_stop_signals();
  gateway::Gateway gateway(config);
  if (auto r = gateway.start(); !r) return report("baton-router", r.error());
  wait_for_stop();
  log_info("draining");
  gateway.stop();
  return 0;
}
