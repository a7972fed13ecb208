#pragma once
// Family: one row a model family: how its files spell things, and what its layers compute beyond Llama's, written as values of
// ModelConfig. The transformer asks for those values alone, so a new family is a file here and a line in table.cc. Rows are
// constants; any thread may read them.
#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"
#include "model/gguf_keys.h"
#include "model/hf_fields.h"
#include "model/limits.h"
#include "model/weight_data.h"

namespace baton::model {

// A model_type of config.json, with what transformers takes for keys that the file leaves out.
struct HfType {
  std::string_view model_type;
  int32_t context = 2048;  // max_position_embeddings
  int32_t kv_heads = 0;    // 0: as many as heads
  int32_t head_dim = 0;    // 0: hidden size / heads
  double theta = 10000, eps = 1e-6;
  int32_t heads = 0, vocab = 0;  // 0: must be stated
  bool nested = false;           // a model of pictures and text: the text model's keys are in text_config
};

struct Family {
  std::string_view name;            // ModelConfig::family; GGUF's general.architecture
  std::span<const HfType> hf = {};  // empty: GGUF files only
  bool gguf_interleaved = false;    // see WeightFile::rope_interleaved()
  bool partial_rotary = false;      // may turn a part of each head
  bool experts = false;             // feed-forward layers are mixtures
  // Tensor names that differ from the common ones (config_hf.cc, gguf_weights.cc); looked up first.
  std::span<const Rename> hf_layer = {}, gguf_layer = {};
  // Of a nested type: how its tensors' names begin in place of the usual, and how those begin that text has no use for.
  std::span<const Rename> hf_prefixes = {};
  std::span<const std::string_view> hf_ignored = {};
  std::span<const std::string_view> gguf_ends = {};  // control tokens that end a turn, besides those all families share
  // After the common fields are read: the family's own, and its constants.
  void (*from_hf)(HfFields&, ModelConfig&) = nullptr;
  void (*from_gguf)(GgufKeys&, ModelConfig&) = nullptr;
};

std::span<const Family* const> families();
const Family* find_family(std::string_view name);  // nullptr: unknown
struct HfFamily {
  const Family* family = nullptr;  // nullptr: unknown
  const HfType* type = nullptr;
};
HfFamily find_hf_family(std::string_view model_type);
std::string known_gguf_families();  // "gemma2, gemma3, ..."
std::string known_hf_types();
// The name that a tensor of the text model has when it is alone: see hf_prefixes.
std::string text_name(std::string_view name, const Family& family);

// layer_kinds from a function of the layer's number; layers that are all {window, kGlobal} become sliding_window alone.
template <class F>
void set_layers(ModelConfig& c, F kind_of) {
  c.layer_kinds.clear();
  if (c.layers < 1 || c.layers > kLayersMax) return;  // check_config() says so
  for (int i = 0; i < c.layers; i++) c.layer_kinds.push_back(kind_of(i));
  const LayerKind first = c.layer_kinds[0];
  const bool alike = std::ranges::all_of(c.layer_kinds, [&](const LayerKind& k) { return k == first; });
  const bool one = alike && first.rope == LayerRope::kGlobal;
  c.sliding_window = one ? first.window : 0;
  if (one) c.layer_kinds.clear();
}

// Sliding layers by config.json's layer_types, or, where it says nothing, by `slides`(layer); their window is sliding_window, or
// what the configuration holds already.
// Sliding layers turn with `rope`.
void hf_layers(HfFields& top, ModelConfig& c, const std::function<bool(int layer)>& slides, LayerRope rope = LayerRope::kGlobal);
// The same by GGUF's attention.sliding_window and attention.sliding_window_pattern (a number N: every Nth layer sees all; or one
// flag a layer); absent: every `pattern`th sees all, 0: all slide.
void gguf_layers(GgufKeys& keys, ModelConfig& c, int32_t pattern, LayerRope rope = LayerRope::kGlobal);

}  // namespace baton::model
