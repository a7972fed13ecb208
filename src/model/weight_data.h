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
#include "model/quantised.h"

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

// A format's tensor names: top whole; a layer's with its number between prefix and the rest ("blk.7." + "attn_q.weight"), looked
// up in family_layer first; an expert's with a second number ("model.layers.7.mlp.experts.3." + "up_proj.weight").
struct Rename {
  std::string_view from, to;
};
struct Names {
  std::span<const Rename> top;
  std::string_view prefix;
  std::span<const Rename> layer, family_layer = {};
  std::string_view expert_prefix = {};
  std::span<const Rename> expert = {};
};
std::string neutral_name(std::string_view name, const Names& names);  // "" for a name in no table

// Replaces tensors that files hold fused by views of their parts: qkv_proj, gate_up_proj, and the stacks
// experts.{gate,up,down}_proj.
Result<> split_fused(WeightData& data);

Result<WeightData> read_gguf(std::span<const std::byte> file);
Result<TokenizerFiles> read_gguf_tokenizer(std::span<const std::byte> file);
// tokenizer_config.json's chat_template: a string, or a list of {name, template} of which "default" or else the first counts.
Result<std::string> chat_template_of(std::string_view tokenizer_config);

// The files of a Hugging Face directory; texts are "" where the file is absent.
struct HfFiles {
  struct Shard {
    std::string name;  // "model-00001-of-00002.safetensors"
    std::span<const std::byte> bytes;
  };
  std::string name;  // of the model, for display
  std::string config, generation_config, index, tokenizer, tokenizer_config, chat_template;
  std::vector<Shard> shards;
};
Result<WeightData> read_hf(HfFiles files);

// The shard names of model.safetensors.index.json: plain file names, unique, at most kShardsMax.
Result<std::vector<std::string>> shard_names(std::string_view index_json);

// config.json and generation_config.json ("" if absent). What the tensors decide (qkv_bias, tied_embeddings) is left open.
struct HfConfig {
  ModelConfig config;
  Quantisation quantisation;
  std::optional<bool> tied;  // tie_word_embeddings, if it is stated
};
Result<HfConfig> parse_hf_config(std::string_view config_json, std::string_view generation_config_json);

}  // namespace baton::model
