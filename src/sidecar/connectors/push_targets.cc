#include "sidecar/connectors/push_targets.h"

#include "sidecar/limits.h"
#include "wire/kv_params.h"

namespace baton::sidecar {

void PushTargets::learn(const std::string& prefiller, std::string_view kv_params) {
  forget(prefiller);
  if (kv_params.find("\"can_push\"") == std::string_view::npos) return;  // vLLM's: not worth reading
  auto json = parse_json(kv_params);
  if (!json) return;
  auto params = wire::parse_kv_params(*json);
  if (!params || !params->x_kv || !params->x_kv->can_push || params->remote_host.empty() || params->remote_port == 0) return;
  if (known_.size() >= kPushTargetsMax) known_.clear();
  known_[prefiller] = {params->remote_engine_id, params->remote_host, params->remote_port};
}

std::optional<PushTargets::Target> PushTargets::find(const std::string& prefiller) const {
  auto at = known_.find(prefiller);
  return at == known_.end() ? std::nullopt : std::optional(at->second);
}

}  // namespace baton::sidecar
