#pragma once
// baton-router's one table of flags, from the picker's and the gateway's, and what each tells the other.
#include "base/config.h"
#include "base/log.h"
#include "base/log_json.h"
#include "epp/config.h"
#include "gateway/config.h"

namespace baton {

struct RouterConfig {
  epp::RouterFlags flags;
  gateway::GatewayConfig http;
  RouterConfig() { http.http_port = epp::kPortUnset; }
  bool with_gateway() const { return http.http_port != epp::kPortUnset; }

  // After parsing: all that is wrong, together.
  Result<> finish() {
    if (auto r = flags.finish(with_gateway()); !r) return r;
    http.tracing = flags.tracing;
    if (!with_gateway()) return {};
    http.pool_name = flags.picker_options().pool_name;  // one pool, one name, in both doors' metrics
    http.config_file = flags.config_file, http.config_text = flags.config_text;
    http.endpoints_file = flags.endpoints_file;
    http.drain_timeout_ms = flags.drain_timeout_ms;
    http.metrics_port = 0;  // the picker's listener
    http.log_level = flags.log_level;
    if (auto r = http.check(); !r) return r;
    if (flags.config_file.empty() && flags.config_text.empty()) {
      BATON_TRY(flags.config_text, http.picker_config());
    }
    return {};
  }
};

inline void set_up_log(const epp::RouterFlags& flags) {
  LogLevel level = LogLevel::kInfo;
  log_level_from(flags.log_level, level);
  (flags.log_encoder == "json" ? log_setup_json : log_setup)("baton-router", level);
}

inline Options router_options(RouterConfig& config) {
  Options options("baton-router", "Endpoint picker for Envoy's external processing, and an HTTP gateway around the same picker",
                  "baton-router --pool-name POOL | --endpoints FILE [--http-port PORT] [--config-file FILE]");
  gateway::add_gateway_flags(options, config.http);
  epp::add_router_flags(options, config.flags);
  return options;
}

}  // namespace baton
