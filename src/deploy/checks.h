#pragma once
// The checks of `baton deploy verify` that need no request: functions of what was read. Pure. A check is a row in one of two
// tables: before the request (is everything there?) and after it (did KV move, and how?).
#include <optional>
#include <vector>

#include "base/checks.h"
#include "deploy/cluster.h"

namespace baton::deploy {

struct Outcome {
  CheckResult::Verdict verdict = CheckResult::Verdict::kOk;
  std::string detail = {}, advice = {};
};
Outcome failed(std::string detail, std::string advice);
Outcome note(std::string detail, std::string advice);

std::vector<CheckResult> check_objects(const Cluster& cluster);
std::vector<CheckResult> check_traffic(const Cluster& cluster);

// The rows, each in the file that is named.
Outcome api_server(const Cluster&);  // checks.cc
Outcome kinds_served(const Cluster&);
Outcome gateway(const Cluster&);
Outcome route(const Cluster&);
Outcome pool(const Cluster&);
Outcome roles(const Cluster&);  // checks_pods.cc
Outcome pods_ready(const Cluster&);
Outcome names_fit(const Cluster&);
Outcome secrets(const Cluster&);
Outcome kv_path(const Cluster&);  // checks_kv.cc
Outcome kv_failures(const Cluster&);
Outcome scraped(const Cluster&);

bool among(const std::vector<std::string>& names, std::string_view name);
bool builtin_gateway(const Cluster& cluster);  // no Gateway API: a Service leads to the router's own door
// The Service before the stack: name and port; "" = none found.
struct Door {
  std::string service;
  int port = 80;
};
Door door_of(const Cluster& cluster);
// The sum over all label sets of the samples of a metric, as far as `with` stands in their labels; nothing: there is none.
std::optional<double> sample_sum(std::string_view metrics, std::string_view name, std::string_view with = "");

}  // namespace baton::deploy
