#include "epp/health.h"

#include <array>
#include <string>

#include "epp/proto_reader.h"

namespace baton::epp {
namespace {

constexpr std::string_view kService = "/grpc.health.v1.Health/";
constexpr std::string_view kExtProc = "envoy.service.ext_proc.v3.ExternalProcessor";
constexpr std::array<std::string_view, 4> kNames = {"", "liveness", "readiness", kExtProc};

// HealthCheckResponse: status = 1, a small enum.
std::string response(Serving status) { return {'\x08', static_cast<char>(status)}; }

// HealthListResponse: statuses = 1, a map. All lengths here are below 128.
std::string list(const Health& health) {
  std::string out;
  for (std::string_view name : kNames) {
    const std::string status = response(health.of(name));
    std::string entry = {'\x0a', static_cast<char>(name.size())};
    entry.append(name).append({'\x12', static_cast<char>(status.size())}).append(status);
    out.append({'\x0a', static_cast<char>(entry.size())}).append(entry);
  }
  return out;
}

class HealthCall final : public net::GrpcHandler {
 public:
  HealthCall(const Health& health, net::GrpcCall& call, bool lists) : health_(health), call_(call), lists_(lists) {}
  void on_message(std::string_view message) override {
    if (answered_) return;
    answered_ = true;
    std::string_view service;
    ProtoReader reader(message);
    while (reader.next()) {
      if (reader.is_bytes(1)) service = reader.bytes();
    }
    if (!reader.ok()) return call_.finish(Code::kInvalidArgument, "malformed HealthCheckRequest");
    call_.write(lists_ ? list(health_) : response(health_.of(service)));
    call_.finish(Code::kOk);
  }
  void on_half_close() override {
    if (!answered_) call_.finish(Code::kInvalidArgument, "no request");
    answered_ = true;
  }
  void on_closed() override {}

 private:
  const Health& health_;
  net::GrpcCall& call_;
  bool lists_, answered_ = false;
};

}  // namespace

Serving Health::of(std::string_view service) const {
  const bool serves = !draining && ready();
  if (!leads) return serves ? Serving::kServing : Serving::kNotServing;
  if (service == "liveness") return Serving::kServing;
  if (service != "" && service != "readiness" && service != kExtProc) return Serving::kServiceUnknown;
  return serves && leads() ? Serving::kServing : Serving::kNotServing;
}

std::unique_ptr<net::GrpcHandler> make_health(const Health& health, net::GrpcCall& call) {
  const std::string_view path = call.path();
  if (!path.starts_with(kService)) return nullptr;
  const std::string_view method = path.substr(kService.size());
  if (method != "Check" && method != "List") return nullptr;
  return std::make_unique<HealthCall>(health, call, method == "List");
}

}  // namespace baton::epp
