#pragma once
// gRPC health (grpc.health.v1): Check and List; Watch is UNIMPLEMENTED, as llm-d's picker has it. Without leader election the
// service's name is ignored. With it "", "readiness" and the ext_proc service want leadership, so that Service and proxy steer to
// the leader; "liveness" always serves. Thread: any; state is read through the functions given. Source: facts sheet "epp" 1.7.
#include <atomic>
#include <functional>
#include <memory>
#include <string_view>

#include "net/grpc.h"

namespace baton::epp {

inline constexpr std::string_view kProcessPath = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

enum class Serving : uint8_t { kUnknown, kServing, kNotServing, kServiceUnknown };

struct Health {
  std::function<bool()> ready;  // pool known, plan in force
  std::function<bool()> leads;  // empty: no leader election
  std::atomic<bool> draining{false};
  Serving of(std::string_view service) const;
};

// nullptr if the path is not a health method that exists.
std::unique_ptr<net::GrpcHandler> make_health(const Health& health, net::GrpcCall& call);

}  // namespace baton::epp
