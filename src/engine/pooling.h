#pragma once
// What an embedding is made of, by the flags (--runner, --convert, --task, --pooler-config, --hf-overrides) and by the files of a
// sentence-transformers directory. Source: vLLM's config/pooler.py and transformers_utils/config.py.
#include <vector>

#include "base/result.h"
#include "engine/config.h"
#include "engine/request.h"

namespace baton::engine {

struct PoolingConfig {
  bool on = false;  // the server answers embeddings, and generates nothing
  Pooling pooling = Pooling::kLast;
  bool normalize = true;
  int32_t dimensions = 0;                      // 0 = all
  bool matryoshka = false;                     // requests may ask for fewer dimensions,
  std::vector<int32_t> matryoshka_dimensions;  // of these, if not empty
};

Result<PoolingConfig> pooling_config(const EngineConfig& config);

}  // namespace baton::engine
