#pragma once
// Serving: what every request handler reads. Made once by Engine, const and shared by all I/O threads; outlives the server.
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/trace.h"
#include "engine/config.h"
#include "engine/constrain.h"
#include "engine/metrics.h"
#include "engine/pooling.h"
#include "engine/step_loop.h"
#include "engine/thinking_budget.h"
#include "model/config.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "transfer/transfer.h"

namespace baton::engine {

class ResponseStore;

struct Serving {
  const EngineConfig* config = nullptr;
  const model::ModelConfig* model = nullptr;
  const text::Tokenizer* tokenizer = nullptr;
  const text::ChatTemplate* chat_template = nullptr;  // nullptr: the model has none
  Constraints* constraints = nullptr;  // any thread
  Adapters* adapters = nullptr;        // nullptr: LoRA is off. Any thread
  StepLoop* loop = nullptr;
  EngineMetrics* metrics = nullptr;
  const Clock* clock = nullptr;
  Tracer* tracer = nullptr;  // nullptr: no spans
  ResponseStore* responses = nullptr;  // nullptr: /v1/responses keeps nothing
  std::string layout_id;
  int32_t max_model_len = 0;
  PoolingConfig pooling;
  std::shared_ptr<const ThinkingMarks> thinking;  // nullptr: no budget can be kept
  bool kv_transfer = false;
  transfer::TransferNode* node = nullptr;  // nullptr: P/D is off. From I/O threads only what its header allows to any thread
  int64_t started_ms = 0;
  mutable std::atomic<bool> peers_settled{false};
  mutable std::atomic<int> in_flight{0};
  // What /sleep has given back: written on the step thread.
  struct Asleep {
    std::atomic<bool> kv{false}, weights{false};
    bool any() const { return kv || weights; }
    // Why the weights could not be loaded again; empty: nothing of that kind. Any thread.
    std::string lost() const {
      const std::lock_guard lock(mutex_);
      return lost_;
    }
    void set_lost(std::string why) {
      const std::lock_guard lock(mutex_);
      lost_ = std::move(why);
    }

   private:
    mutable std::mutex mutex_;
    std::string lost_;
  };
  mutable Asleep asleep;
  // Step thread, no request running: gives the memory of the pool, of the weights, back, or takes it again.
  std::function<Result<>(bool keep)> keep_kv_memory, keep_weights;
  std::string tokenizer_config_json;
  std::string fingerprint;  // system_fingerprint of every answer; "" = null

  const std::string& name() const { return config->served_model_names.front(); }
};

}  // namespace baton::engine
