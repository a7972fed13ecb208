// baton-router: picks the workers of each request: for Envoy over ext_proc, and, with --http-port, as an HTTP gateway of its own.
#include <optional>

#include "apps/main.h"
#include "apps/router_options.h"
#include "epp/plan_source.h"
#include "epp/router.h"
#include "gateway/gateway.h"

namespace {

using namespace baton;

int show(const epp::Explained& text) {
  std::fputs(text.err.c_str(), stderr);
  std::fputs(text.out.c_str(), stdout);
  return text.code;
}

// Several pools: pickers of the gateway's own.
int serve_pools(const gateway::GatewayConfig& http) {
  gateway::Gateway gateway(http);
  if (auto r = gateway.start(); !r) return report("baton-router", r.error());
  wait_for_stop();
  gateway.stop();
  return 0;
}

int serve(const RouterConfig& config) {
  epp::Router router(config.flags);
  if (auto r = router.start(); !r) return report("baton-router", r.error());
  std::optional<gateway::Gateway> gateway;
  if (config.with_gateway()) gateway.emplace(config.http, router.picker(), router.metrics());
  if (gateway) gateway->guard_metrics(router.metrics_guard());
  if (auto r = gateway ? gateway->start() : Result<>(); !r) return report("baton-router", r.error());
  wait_for_stop();
  log_info("draining");
  router.begin_drain();
  if (gateway) gateway->stop();
  if (router.grpc_port() != 0) wait_for_stop([&] { return !router.drained(); });  // a second signal ends it at once
  router.stop();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  RouterConfig config;
  Options options = router_options(config);
  ParsedArgs parsed;
  int code = 0;
  if (!parse_or_exit(options, {argv + 1, argv + argc}, parsed, &code, true)) return code;
  if (auto r = config.finish(); !r) return report("baton-router", r.error());
  if (parsed.print_config) return show(epp::print_config(config.flags, options));
  if (config.flags.validate_config) return show(epp::validate_config(config.flags));
  set_up_log(config.flags);
  block_stop_signals();
  return config.http.pools_file.empty() ? serve(config) : serve_pools(config.http);
}
