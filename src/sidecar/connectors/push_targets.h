#pragma once
// PushTargets: which prefillers are Baton engines that can push, and where their KV ports are. Learnt from their own answers to
// serial requests, forgotten when a push to them failed, so that a prefiller that was restarted somewhere else costs one serial
// request. One I/O thread's.
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace baton::sidecar {

class PushTargets {
 public:
  struct Target {
    std::string engine_id, host;
    int port = 0;
  };
  // kv_params: the object of a prefiller's answer. One that names no pushing engine makes it unknown.
  void learn(const std::string& prefiller, std::string_view kv_params);
  void forget(const std::string& prefiller) { known_.erase(prefiller); }
  std::optional<Target> find(const std::string& prefiller) const;

 private:
  std::unordered_map<std::string, Target> known_;
};

}  // namespace baton::sidecar
