#include "sidecar/allow_list.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include "base/log.h"
#include "sidecar/config.h"

namespace baton::sidecar {
namespace {

using Address = std::array<unsigned char, 16>;

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return out;
}

// IPv4 in its IPv6 form, so that one comparison serves both.
std::optional<Address> parse_address(const std::string& text) {
  Address out{};
  if (inet_pton(AF_INET6, text.c_str(), out.data()) == 1) return out;
  out = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (inet_pton(AF_INET, text.c_str(), out.data() + 12) == 1) return out;
  return std::nullopt;
}

bool same_prefix(const Address& a, const Address& b, int bits) {
  int whole = bits / 8, rest = bits % 8;
  if (!std::equal(a.begin(), a.begin() + whole, b.begin())) return false;
  return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

std::optional<int> parse_number(std::string_view text, int max) {
  int n = -1;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (ec != std::errc() || end != text.data() + text.size() || n < 0 || n > max) return std::nullopt;
  return n;
}

}  // namespace

Result<Allowed> parse_allowed(std::string_view text) {
  Allowed out;
  auto wrong = [&] {
    return fail(Code::kInvalidArgument, "wants host, address or CIDR, with or without :port, not '", text, "'");
  };
  std::string_view host = trimmed(text), rest;
  if (host.starts_with('[')) {
    size_t close = host.find(']');
    if (close == std::string_view::npos) return wrong();
    rest = host.substr(close + 1);
    host = host.substr(1, close - 1);
  } else if (size_t end = host.find_first_of(host.find(':') == host.rfind(':') ? "/:" : "/"); end != std::string_view::npos) {
    rest = host.substr(end);  // more than one colon: an IPv6 address without brackets, which has no port
    host = host.substr(0, end);
  }
  std::optional<int> bits;
  if (rest.starts_with('/')) {
    size_t end = std::min(rest.find(':'), rest.size());
    bits = parse_number(rest.substr(1, end - 1), 128);
    if (!bits) return wrong();
    rest.remove_prefix(end);
  }
  if (!rest.empty()) {
    auto port = rest.starts_with(':') ? parse_number(rest.substr(1), 65535) : std::nullopt;
    if (!port || *port == 0) return wrong();
    out.port = *port;
  }
  if (auto address = parse_address(std::string(host))) {
    bool v4 = host.find(':') == std::string_view::npos;
    out.address = *address;
    if (bits && v4 && *bits > 32) return wrong();
    if (bits) out.prefix_bits = *bits + (v4 ? 96 : 0);
    return out;
  }
  out.name = lower(host);
  bool plain = !out.name.empty() && out.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-._") == std::string::npos;
  if (!plain || bits) return wrong();
  return out;
}

bool Allowed::has(const HostPort& worker) const {
  if (port != 0 && port != worker.port) return false;
  if (!name.empty()) return lower(worker.host) == name;
  auto theirs = parse_address(worker.host);
  return theirs && same_prefix(address, *theirs, prefix_bits);
}

AllowList::AllowList(const SidecarConfig& config, std::optional<discovery::KubeAccess> access) {
  for (const std::string& text : config.allowed_prefillers) {
    if (auto one = parse_allowed(text)) fixed_.push_back(*one);  // the rest was reported by check()
  }
  auto pool = config.pool();
  watches_pool_ = config.ssrf_protection && pool.has_value();
  on_ = config.ssrf_protection || !fixed_.empty();
  if (!watches_pool_) return;
  discovery::KubernetesOptions options;
  options.kubeconfig = config.kubeconfig;
  options.access = std::move(access);
  options.pool_namespace = pool->first, options.pool_name = pool->second;
  options.pool_group = config.pool_group;
  pool_ = std::make_unique<discovery::KubernetesDiscovery>(options);
}

AllowList::~AllowList() { stop(); }

Result<> AllowList::start(std::chrono::milliseconds wait) {
  if (!pool_) return {};
  BATON_OK(pool_->start([this](std::shared_ptr<const discovery::ClusterState> state) { take(*state); }));
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, wait, [this] { return synced_; })) {
    log_warn("the InferencePool could not be read yet; until then every prefill is done locally", "pool={} why={}", pool_->pool(),
             pool_->status().last_error);
  }
  return {};
}

void AllowList::stop() {
  if (pool_) pool_->stop();
}

void AllowList::take(const discovery::ClusterState& state) {
  std::set<std::pair<std::string, int>> members;
  for (const auto& member : state.members) {
    members.emplace(lower(member.host), member.port);
    for (const std::string& host : member.other_hosts) members.emplace(lower(host), member.port);
    if (!member.pod.empty()) members.emplace(lower(member.pod), member.port);
  }
  std::lock_guard lock(mutex_);
  synced_ = state.synced;
  members_ = std::move(members);
  changed_.notify_all();
}

AllowList::Answer AllowList::look_up(const HostPort& worker) const {
  if (!on_) return Answer::kYes;
  if (std::ranges::any_of(fixed_, [&](const Allowed& one) { return one.has(worker); })) return Answer::kYes;
  if (!watches_pool_) return Answer::kNo;
  std::lock_guard lock(mutex_);
  if (members_.contains({lower(worker.host), worker.port})) return Answer::kYes;
  return synced_ ? Answer::kNo : Answer::kNotKnownYet;
}

}  // namespace baton::sidecar
