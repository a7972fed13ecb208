#pragma once
// Shape: what a model costs: parameters, bytes of weights and of KV. From a row of the table, from config.json (any architecture
// with grouped attention, mixtures of experts too), or from a GGUF file's own metadata. Guarantees: every size is positive and at
// most kNumberMax, so that products stay finite. Source: facts sheet "performance" 3.2; transformers' configuration classes.
#include <string>
#include <string_view>

#include "base/result.h"
#include "cost/roofline.h"
#include "deploy/tables.h"
#include "kv/layout.h"

namespace baton::deploy {

struct Shape {
  std::string name, uri;  // uri: for modelArtifacts.uri; "" = of a path that pods do not see
  int layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int context = 0;
  double parameters = 0, active_parameters = 0;  // of all layers, one token's part of them
  double head_parameters = 0, embed_parameters = 0;
  double weight_bytes = 0;     // all that is held in memory
  double parameter_bytes = 2;  // one of them
  int64_t kv_bytes_per_token = 0;

  cost::ModelWork work() const;
  int64_t kv_bytes_with(kv::KvDtype dtype) const;  // a token in a cache of that; kv_bytes_per_token is of bf16
};

Shape shape_of(const KnownModel& row);
Result<Shape> parse_shape(std::string_view config_json, std::string name);
// A name of the table, a folder with config.json, a config.json, or a GGUF file. Errors name the file, or the known names.
Result<Shape> find_shape(const std::string& what);

}  // namespace baton::deploy
