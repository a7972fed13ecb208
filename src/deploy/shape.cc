#include "deploy/shape.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "deploy/limits.h"
#include "model/config.h"

namespace baton::deploy {
namespace {

constexpr double kKvBytes = 2;  // of one number

Shape shape_from(const ModelSizes& s, std::string name) {
  Shape out;
  out.name = std::move(name);
  out.layers = static_cast<int>(s.layers), out.hidden = static_cast<int>(s.hidden), out.heads = static_cast<int>(s.heads);
  out.kv_heads = static_cast<int>(s.kv_heads), out.head_dim = static_cast<int>(s.head_dim),
  out.context = static_cast<int>(s.context);
  const auto hidden = static_cast<double>(s.hidden), layers = static_cast<double>(s.layers);
  const auto width = static_cast<double>(s.heads * s.head_dim), kv_width = static_cast<double>(s.kv_heads * s.head_dim);
  const double attention = 2 * hidden * width + 2 * hidden * kv_width;  // Q and O, K and V
  const double dense = 3 * hidden * static_cast<double>(s.experts > 0 ? s.shared_ffn : s.ffn);
  const double expert = 3 * hidden * static_cast<double>(s.expert_ffn);
  out.parameters = layers * (attention + dense + expert * static_cast<double>(s.experts));
  out.active_parameters = layers * (attention + dense + expert * static_cast<double>(s.experts_used));
  out.head_parameters = hidden * static_cast<double>(s.vocab);
  out.embed_parameters = s.tied ? 0 : out.head_parameters;
  out.parameter_bytes = s.weight;
  // Quantised checkpoints leave embedding and head in 16 bits where a parameter is a whole byte (FP8, INT8).
  const double ends = s.weight < 1 ? s.weight : 2;
  out.weight_bytes = out.parameters * s.weight + (out.head_parameters + out.embed_parameters) * ends;
  out.kv_bytes_per_token = static_cast<int64_t>(2 * layers * kv_width * kKvBytes);
  return out;
}

// Bytes of a parameter as the checkpoint stores it.
Result<double> stored_bytes(const Json& config) {
  if (const Json* q = config.find("quantization_config"); q != nullptr && q->is_object()) {
    const Json* method = q->find("quant_method");
    const std::string name = method != nullptr ? method->text : "";
    if (const Json* bits = q->find("bits"); bits != nullptr && bits->as_int())
      return static_cast<double>(std::clamp<int64_t>(*bits->as_int(), 2, 16)) / 8;
    if (const Json* groups = q->find("config_groups"); groups != nullptr && !groups->items.empty()) {
      const Json* bits = groups->items[0].find_path({"weights", "num_bits"});
      if (bits != nullptr && bits->as_int()) return static_cast<double>(std::clamp<int64_t>(*bits->as_int(), 2, 16)) / 8;
    }
    for (const char* one : {"fp8", "fbgemm_fp8", "quark"}) {
      if (name == one) return 1.0;
    }
    if (name == "mxfp4") return 0.53;
    return fail(Code::kUnimplemented, "quant_method \"", name, "\" is not known: its bits a parameter are not said");
  }
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (const Json* type = config.find(key); type != nullptr && type->is_string()) return type->text == "float32" ? 4.0 : 2.0;
  }
  return 2.0;
}

class Reader {
 public:
  explicit Reader(const Json& json) : json_(json) {}
  // The first of these keys that is there; absent without a default: an error.
  int64_t size(std::initializer_list<const char*> keys, int64_t absent = 0) {
    for (const char* key : keys) {
      const Json* value = json_.find(key);
      if (value == nullptr || value->is_null()) continue;
      const auto n = value->as_int();
      if (n && *n > 0 && *n <= kNumberMax) return *n;
      complain(cat(key, " is no size"));
      return 1;
    }
    if (absent == 0) complain(cat("there is no ", *keys.begin()));
    return absent;
  }
  bool has(const char* key) const {
    const Json* value = json_.find(key);
    return value != nullptr && !value->is_null();
  }
  const std::string& wrong() const { return wrong_; }

 private:
  void complain(std::string text) {
    if (wrong_.empty()) wrong_ = std::move(text);
  }
  const Json& json_;
  std::string wrong_;
};

Result<Shape> from_gguf(const std::string& path) {
  BATON_TRY(const auto file, model::WeightFile::open(path));
  const model::ModelConfig& c = file->config();
  Shape out = shape_from({.layers = c.layers,
                          .hidden = c.hidden,
                          .heads = c.heads,
                          .kv_heads = c.kv_heads,
                          .head_dim = c.head_dim,
                          .ffn = c.ffn,
                          .vocab = c.vocab,
                          .context = c.context,
                          .tied = c.tied_embeddings},
                         std::filesystem::path(path).stem().string());
  out.weight_bytes = 0;  // as they lie in the file
  for (const std::string_view name : file->names()) out.weight_bytes += static_cast<double>(file->find(name)->bytes.size());
  out.parameter_bytes = out.weight_bytes / (out.parameters + out.head_parameters + out.embed_parameters);
  return out;
}

}  // namespace

cost::ModelWork Shape::work() const {
  return {.layer_parameters = active_parameters,
          .head_parameters = head_parameters,
          .weight_bytes = weight_bytes - embed_parameters * (parameter_bytes < 1 ? parameter_bytes : 2),  // a row of it is read
          .layers = layers,
          .hidden = hidden,
          .attention_width = heads * head_dim,
          .kv_heads = kv_heads,
          .kv_bytes_per_token = kv_bytes_per_token};
}

int64_t Shape::kv_bytes_with(kv::KvDtype dtype) const {
  const auto scales = static_cast<double>(kv::scale_bytes(dtype)) / std::max(1, head_dim);  // of one number
  return static_cast<int64_t>(static_cast<double>(kv_bytes_per_token) * (static_cast<double>(kv::dtype_bytes(dtype)) + scales) / kKvBytes);
}

Shape shape_of(const KnownModel& m) {
  Shape out = shape_from(m.sizes, std::string(m.name));
  out.uri = m.name.find('/') != m.name.npos ? cat("hf://", m.name) : "file:///models/SmolLM2-135M-Instruct.Q4_1.gguf";
  return out;
}

Result<Shape> parse_shape(std::string_view text, std::string name) {
  BATON_TRY(const Json whole, parse_json(text, {.bytes_max = kModelConfigBytesMax, .nodes_max = 200'000}));
  const Json* inner = whole.find("text_config");  // of models that see or hear, too
  const Json& config = inner != nullptr && inner->is_object() ? *inner : whole;
  Reader r(config);
  if (r.has("kv_lora_rank")) return fail(Code::kUnimplemented, "latent attention (kv_lora_rank) is not modelled");
  ModelSizes s;
  s.layers = r.size({"num_hidden_layers", "n_layer"});
  s.hidden = r.size({"hidden_size", "n_embd"});
  s.heads = r.size({"num_attention_heads", "n_head"});
  s.kv_heads = r.size({"num_key_value_heads"}, s.heads);
  s.head_dim = r.size({"head_dim"}, std::max<int64_t>(1, s.hidden / std::max<int64_t>(1, s.heads)));
  s.ffn = r.size({"intermediate_size", "n_inner"}, 4 * s.hidden);
  s.vocab = r.size({"vocab_size"});
  s.context = r.size({"max_position_embeddings", "n_positions"}, 4096);
  if (r.has("num_experts") || r.has("num_local_experts") || r.has("n_routed_experts")) {
    s.experts = r.size({"num_experts", "num_local_experts", "n_routed_experts"});
    s.experts_used = r.size({"num_experts_per_tok", "experts_per_token"});
    s.expert_ffn = r.size({"moe_intermediate_size", "intermediate_size"});
    if (r.has("shared_expert_intermediate_size")) s.shared_ffn = r.size({"shared_expert_intermediate_size"});
  }
  if (const Json* tied = config.find("tie_word_embeddings")) s.tied = tied->as_bool().value_or(false);
  if (!r.wrong().empty()) return fail(Code::kInvalidArgument, "config.json: ", r.wrong());
  if (s.heads * s.head_dim > kNumberMax || s.kv_heads > s.heads)
    return fail(Code::kInvalidArgument, "config.json: no sizes of heads");
  const Json* asked = config.find("quantization_config") != nullptr || inner == nullptr ? &config : &whole;
  BATON_TRY(s.weight, stored_bytes(*asked));
  Shape out = shape_from(s, std::move(name));
  if (out.kv_bytes_per_token <= 0 || out.weight_bytes > 1e15)
    return fail(Code::kInvalidArgument, "config.json: no sizes of a model");
  return out;
}

Result<Shape> find_shape(const std::string& what) {
  if (const KnownModel* row = find_model(what)) return shape_of(*row);
  namespace fs = std::filesystem;
  std::error_code none;
  std::string file = what;
  if (fs::is_directory(what, none) && fs::exists(what + "/config.json", none)) file = what + "/config.json";
  if (file.ends_with(".json")) {
    BATON_TRY(const std::string text, read_file(file, kModelConfigBytesMax));
    std::string name = fs::path(file).parent_path().filename().string();
    auto shape = parse_shape(text, name.empty() ? "model" : name);
    if (!shape) return within(file, std::move(shape).error());
    return shape;
  }
  if (fs::exists(what, none)) return from_gguf(what);
  std::string names;
  for (const KnownModel& row : known_models()) names += cat("\n  ", row.name);
  return fail(Code::kNotFound, "no model \"", what, "\": a config.json, a folder with one, a .gguf file, or one of", names);
}

}  // namespace baton::deploy
