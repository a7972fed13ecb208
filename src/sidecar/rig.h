#pragma once
// Rig: a sidecar between a scripted prefiller and a scripted decode worker, for tests that a text case cannot say.
#include "sidecar/fake_worker.h"
#include "sidecar/sidecar.h"

namespace baton::sidecar {

struct Rig {
  explicit Rig(std::vector<std::string> args = {}, std::shared_ptr<net::TlsServer> workers_tls = nullptr)
      : prefill("prefill", workers_tls), decode("decode", workers_tls) {
    config.port = 0, config.host = "127.0.0.1", config.model_server_port = decode.port();
    config.secure_proxy = false;
    BATON_CHECK(sidecar_options(config).parse(args).has_value());
  }
  void start() {
    sidecar.emplace(config);
    BATON_CHECK(sidecar->start().has_value());
  }
  net::Call call(std::string_view body) const {
    net::Call c;
    c.host = "127.0.0.1", c.port = sidecar->port(), c.method = "POST", c.target = "/v1/completions", c.body = body;
    c.headers.set("x-prefiller-host-port", cat("127.0.0.1:", prefill_port ? prefill_port : prefill.port()));
    return c;
  }
  Result<net::Response> fetch(net::Call c) const {
    Result<net::Response> result = fail(Code::kUnknown, "not run");
    net::run_task([&]() -> net::Task<> {
      net::Client client;
      result = co_await client.fetch(c);
    });
    return result;
  }
  SidecarConfig config;
  FakeWorker prefill, decode;
  int prefill_port = 0;
  std::optional<Sidecar> sidecar;
};

}  // namespace baton::sidecar
