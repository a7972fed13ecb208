#include "sidecar/resolver.h"

#include <arpa/inet.h>

#include "base/log.h"
#include "net/resolve.h"

namespace baton::sidecar {
namespace {

bool is_address(const std::string& host) {
  unsigned char bytes[16];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 || inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

}  // namespace

Resolver::Resolver(const SidecarConfig& config, SidecarMetrics& metrics) : config_(config), metrics_(metrics) {
  if (!config.moriio.write_mode) return;
  auto add = [&](const std::string& host) {
    if (!host.empty() && !is_address(host) && std::ranges::find(names_, host) == names_.end()) names_.push_back(host);
  };
  add(config.pod_ip);
  for (const auto* hosts : {&config.moriio.remote_hosts, &config.moriio.decode_hosts}) std::ranges::for_each(*hosts, add);
}

net::Task<Result<>> Resolver::look_up_all() {
  for (const std::string& name : names_) {
    metrics_.moriio_dns("reresolve");
    auto found = co_await net::resolve(name);
    if (!found && found.error().code == Code::kCancelled) co_return std::unexpected(found.error());
    if (!found || found->empty()) {
      metrics_.moriio_dns("lookup_failures");
      log_warn("cannot resolve a name, its last address stays in force", "name={} why={}", name,
               found ? "no address" : found.error().message);
      continue;
    }
    std::string before;
    {
      std::lock_guard lock(mutex_);
      before = std::exchange(known_[name], found->front());
    }
    if (!before.empty() && before != found->front()) {
      metrics_.moriio_dns("ip_changed");
      log_info("a name has a new address", "name={} before={} now={}", name, before, found->front());
    }
  }
  co_return Result<>();
}

net::Task<> Resolver::run() {
  while (needed() && co_await look_up_all()) co_await net::sleep_for(std::chrono::seconds(config_.moriio.resolve_ttl_s));
}

std::string Resolver::address(const std::string& host) const {
  std::lock_guard lock(mutex_);
  auto at = known_.find(host);
  return at == known_.end() ? host : at->second;
}

std::vector<std::string> Resolver::addresses(const std::vector<std::string>& hosts) const {
  std::vector<std::string> out;
  for (const std::string& host : hosts) out.push_back(address(host));
  return out;
}

}  // namespace baton::sidecar
