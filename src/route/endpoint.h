#pragma once
// What the picker knows about the pool: Endpoint changes with membership, Load with every scrape and request.
// Snapshot is a view: endpoints[i] and loads[i] belong together, at most kEndpointsMax of them; the caller owns the memory for
// the call. `slot` names an endpoint in the prefix indexes; the caller keeps it fixed while the endpoint lives, whatever its
// place in the list. Units: ages in ms, kv_usage 0..1, tokens as the picker estimates them.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cost/cost.h"
#include "route/limits.h"

namespace baton::route {

enum class Role : uint8_t { kPrefill, kDecode, kBoth, kEncode, kEncodePrefill, kEncodePrefillDecode };
bool prefills(Role role);
bool decodes(Role role);
bool encodes(Role role);

std::string_view role_name(Role role);
// llm-d's label values: prefill, decode, both, prefill-decode; encode-* count as what else they name. "" is both.
bool role_from(std::string_view name, Role& out);

struct Endpoint {
  std::string host{};  // IPv6 without brackets
  int port = 0;
  Role role = Role::kBoth;
  int slot = 0;
  std::vector<std::string> models{};  // served names; empty = not known yet, taken as any
  std::string address{};              // host_port(host, port), made once: it goes into headers and logs
  std::string name{};                 // "<namespace>/<pod>-rank-<i>", "" where nobody names it
  bool role_given = true;  // false: nobody said one (an unlabelled pod); such a worker is not asked to prefill for others
  int rank = 0;            // data-parallel rank: which of the pod's target ports
  std::vector<std::pair<std::string, std::string>> labels{};  // sorted by key
  std::string_view label(std::string_view key) const;         // "" if absent
  bool has_label(std::string_view key) const;
};

std::string host_port(std::string_view host, int port);  // "10.0.0.1:8000", "[::1]:8000"

struct Load {
  bool healthy = true;
  int64_t age_ms = -1;  // of the scraped numbers below; -1 = never scraped
  int32_t waiting = 0, running = 0;
  float kv_usage = 0;
  int32_t inflight_requests = 0;  // sent by this process and not finished
  int64_t inflight_tokens = 0;    // prompt tokens among them that still have to be computed
  int32_t block_tokens = 0;       // KV block size as the engine says; 0 = not known
  int64_t blocks_total = 0;       // KV blocks it has; 0 = not known
  int32_t lora_max = 0;
  std::span<const std::string> lora_running{}, lora_waiting{};  // adapters; the snapshot's owner keeps them
  float mean_context = 0;                                       // tokens, of the running streams; 0 = not known
  float ttft_ms = -1, tpot_ms = -1;                             // predictions for this request; -1 = none
};

// Requests that wait there as far as anyone can know: what the endpoint reported, and what we sent since and it cannot have
// counted.
int32_t effective_waiting(const Load& load);

struct Snapshot {
  std::span<const Endpoint> endpoints;
  std::span<const Load> loads;
  std::span<const cost::WorkerCost> costs{};  // by endpoint, refitted from what it did; empty = the plan's own figures
};

}  // namespace baton::route
