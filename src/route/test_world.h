#pragma once
// A pool for tests, described as key=value words (tests/cases/route/decide/README). Tests only.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "route/decide.h"

namespace baton::route {

using Fields = std::map<std::string, std::string>;

inline std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> out;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, by);) out.push_back(part);
  return out;
}

inline Fields fields_of(std::stringstream& words) {
  Fields out;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    out[word.substr(0, equals)] = equals == std::string::npos ? "1" : word.substr(equals + 1);
  }
  return out;
}

struct World {
  std::string plugins, profiles;
  std::vector<Endpoint> endpoints;
  std::vector<Load> loads;
  std::vector<std::string> names;
  std::vector<std::vector<std::string>> adapters;  // what loads point to
  PrefixMatch match{};
  std::vector<uint32_t> cold = std::vector<uint32_t>(kEndpointsMax, 0);
  std::vector<int64_t> media = std::vector<int64_t>(kEndpointsMax, 0);
  std::vector<cost::WorkerCost> costs;
  int session = -1;

  World() { adapters.reserve(2 * kEndpointsMax); }
  std::string text() const {
    return "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n" + plugins +
           (profiles.empty() ? "" : "schedulingProfiles:\n" + profiles);
  }
  int index_of(const std::string& name) const {
    const auto it = std::ranges::find(names, name);
    return it == names.end() ? -1 : static_cast<int>(it - names.begin());
  }
  std::string name_of(const StageResult& stage) const { return stage.ranked.count == 0 ? "none" : names[stage.ranked.index[0]]; }
  Snapshot snapshot() const { return {endpoints, loads, costs}; }
};

inline double number(const Fields& f, const std::string& key, double fallback) {
  const auto it = f.find(key);
  return it == f.end() ? fallback : std::stod(it->second);
}
inline std::string word(const Fields& f, const std::string& key, std::string fallback = "") {
  const auto it = f.find(key);
  return it == f.end() ? fallback : it->second;
}

inline void add_endpoint(World& w, const std::string& name, const Fields& f) {
  const int n = static_cast<int>(w.endpoints.size());
  Endpoint e;
  e.host = word(f, "host", "10.0.0." + std::to_string(n + 1));
  e.port = static_cast<int>(number(f, "port", 8000));
  ASSERT_TRUE(role_from(word(f, "role", "both"), e.role)) << name;
  e.role_given = !f.contains("unlabelled");
  e.slot = kEndpointsMax - 1 - n;  // not the index: whoever confuses the two fails
  if (f.contains("models")) e.models = split(word(f, "models"), '+');
  e.address = host_port(e.host, e.port);
  for (const std::string& label : split(word(f, "labels"), '+'))
    e.labels.emplace_back(label.substr(0, label.find(':')), label.substr(label.find(':') + 1));
  std::ranges::sort(e.labels);
  Load l;
  l.healthy = !f.contains("down");
  l.age_ms = static_cast<int64_t>(number(f, "age", 10));
  l.waiting = static_cast<int>(number(f, "waiting", 0));
  l.running = static_cast<int>(number(f, "running", 0));
  l.kv_usage = static_cast<float>(number(f, "kv", 0));
  l.inflight_requests = static_cast<int>(number(f, "inflight", 0));
  l.inflight_tokens = static_cast<int64_t>(number(f, "inflight_tokens", 0));
  l.ttft_ms = static_cast<float>(number(f, "ttft", -1));
  l.tpot_ms = static_cast<float>(number(f, "tpot", -1));
  l.lora_max = static_cast<int>(number(f, "lora_max", 0));
  l.mean_context = static_cast<float>(number(f, "context", 0));
  w.adapters.push_back(split(word(f, "lora"), '+'));
  l.lora_running = w.adapters.back();
  w.adapters.push_back(split(word(f, "lora_waiting"), '+'));
  l.lora_waiting = w.adapters.back();
  w.match[static_cast<size_t>(e.slot)] = static_cast<uint16_t>(number(f, "matched", 0));
  w.cold[static_cast<size_t>(e.slot)] = static_cast<uint32_t>(number(f, "cold", 0));
  w.media[static_cast<size_t>(e.slot)] = static_cast<int64_t>(number(f, "media", 0));
  if (f.contains("session")) w.session = e.slot;
  w.endpoints.push_back(std::move(e));
  w.loads.push_back(l);
  w.names.push_back(name);
}

}  // namespace baton::route
