#include "engine/transfer_config.h"

#include <algorithm>
#include <span>

#include "base/json.h"

namespace baton::engine {
namespace {

using Take = Result<> (*)(EngineConfig&, const Json&);

struct Row {
  std::string_view key;
  Take take;                 // null: nothing of ours to set
  std::string_view meaning;  // "": what it says is what happens
};

Result<std::string> word(const Json& v, std::string_view key, std::string_view allowed) {
  auto text = v.as_string();
  auto rest = allowed;
  while (text && !rest.empty()) {
    auto end = std::min(rest.find(' '), rest.size());
    if (rest.substr(0, end) == *text) return std::string(*text);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return fail(Code::kInvalidArgument, key, " wants one of: ", allowed);
}

Result<> take_role(EngineConfig&, const Json& v) {
  BATON_OK(word(v, "kv_role", "kv_producer kv_consumer kv_both"));
  return {};
}

Result<> take_policy(EngineConfig& c, const Json& v) {
  BATON_TRY(auto policy, word(v, "kv_load_failure_policy", "fail recompute"));
  if (c.kv_load_failure_policy.empty()) c.kv_load_failure_policy = policy;  // the flag wins
  return {};
}

Result<> take_device(EngineConfig&, const Json& v) {
  BATON_OK(word(v, "kv_buffer_device", "cuda cpu xpu hpu tpu"));
  return {};
}

Result<> take_engine_id(EngineConfig& c, const Json& v) {
  c.kv_engine_id = v.as_string().value_or("");
  return {};
}

Result<> take_lease(EngineConfig& c, const Json& v) {
  const auto seconds = v.as_int();
  if (!seconds || *seconds < 1 || *seconds > 86400)
    return fail(Code::kInvalidArgument, "kv_lease_duration wants seconds, 1 to 86400");
  c.kv_lease_s = static_cast<int>(*seconds);
  return {};
}

Result<> take_backends(EngineConfig& c, const Json& v) {
  if (!v.is_array()) return fail(Code::kInvalidArgument, "backends wants a list, as in [\"UCX\"]");
  bool ucx = false;
  for (const auto& b : v.items) ucx = ucx || b.as_string().value_or("") == "UCX";
  if (!ucx) c.kv_notes.push_back("kv_connector_extra_config.backends: only UCX is known here; shm and tcp serve without it");
  return {};
}

constexpr Row kRows[] = {
    {"kv_connector", nullptr, "any connector: engines of ours speak their own protocol, and kv_transfer_params is vLLM's"},
    {"kv_connector_module_path", nullptr, "no module is loaded: the connector is built in"},
    {"kv_role", take_role, "each request says which role it wants; both are served"},
    {"kv_buffer_device", take_device, "KV lies in host memory, so transfers start and end there"},
    {"kv_buffer_size", nullptr, "no buffer: blocks move from pool to pool"},
    {"kv_load_failure_policy", take_policy, ""},
    {"enable_permute_local_kv", nullptr, "unequal layouts are resharded wherever they meet"},
    {"engine_id", take_engine_id, ""},
    {"kv_ip", nullptr, "see --kv-transfer-host"},
    {"kv_port", nullptr, "see --kv-transfer-port"},
    {"kv_rank", nullptr, "peers find each other by address"},
    {"kv_parallel_size", nullptr, "peers find each other by address"},
    {"kv_connector_extra_config", nullptr, ""},
};

constexpr Row kExtraRows[] = {
    {"backends", take_backends, "shm on one host, UCX where a device moves memory, else tcp; --kv-transport forces one"},
    {"num_threads", nullptr, "one thread moves KV, and one more runs UCX where it is used"},
    {"kv_lease_duration", take_lease, ""},
    {"decoder_kv_blocks_ttl", nullptr, "blocks live as long as their lease is renewed: kv_lease_duration"},
    {"push_registration_timeout", nullptr, "a reservation lives as long as its lease is renewed: kv_lease_duration"},
    {"bidirectional_kv_xfer", nullptr, "prefill does not fetch from decode; its prefix cache serves later turns"},
    {"kv_recompute_threshold", nullptr, "whatever was granted is fetched"},
    {"engine_ttl", nullptr, "peers stay connected while they answer, and are tried again when they do not"},
    {"enforce_handshake_compat", nullptr,
     "always: a peer that does not fit is refused with the reason, and its requests fall back"},
    {"enable_cross_layers_blocks", nullptr, "always: one block holds all layers"},
};

Result<> take_all(EngineConfig& c, const Json& object, std::span<const Row> rows, std::string_view prefix) {
  for (size_t i = 0; i < object.keys.size(); ++i) {
    const auto& key = object.keys[i];
    const auto& value = object.items[i];
    auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.key == key; });
    if (row == rows.end()) {
      c.kv_notes.push_back(cat(prefix, key, ": not known, ignored"));
      continue;
    }
    if (row->take != nullptr) BATON_OK(row->take(c, value));
    if (!row->meaning.empty()) c.kv_notes.push_back(cat(prefix, key, ": ", row->meaning));
  }
  return {};
}

}  // namespace

Result<> read_transfer_config(EngineConfig& c) {
  auto json = parse_json(c.kv_transfer_config);
  if (!json || !json->is_object()) {
    return fail(Code::kInvalidArgument, "--kv-transfer-config wants a JSON object",
                json ? std::string() : cat(": ", json.error().message));
  }
  BATON_OK(take_all(c, *json, kRows, ""));
  if (const Json* extra = json->find("kv_connector_extra_config")) {
    if (!extra->is_object()) return fail(Code::kInvalidArgument, "kv_connector_extra_config wants a JSON object");
    BATON_OK(take_all(c, *extra, kExtraRows, "kv_connector_extra_config."));
  }
  c.kv_transfer = true;
  return {};
}

}  // namespace baton::engine
