#pragma once
// WeightData: everything a WeightFile answers, read from bytes in memory, so that tests and fuzzers need no file. Tensors are
// views into those bytes. Both readers end in check_weights(): what they return describes a model the transformer can run as it
// is.
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/config.h"

namespace baton::model {

struct WeightData {
  ModelConfig config;
  std::map<std::string, TensorRef, std::less<>> tensors;  // neutral names
  bool rope_interleaved = false;
  std::string tokenizer_json, tokenizer_config_json, chat_template;
  std::optional<WeightFile::Vocab> vocab;
};

// Ranges and relations of the numbers alone.
Result<> check_config(const ModelConfig& config);

// check_config, and every tensor the family needs is there with the shape the config states, and there is none besides: a tensor
// we do not know would change the result, so ignoring it would be a wrong answer.
Result<> check_weights(const WeightData& data);

Result<WeightData> read_gguf(std::span<const std::byte> file);

}  // namespace baton::model
