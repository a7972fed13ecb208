#include "model/quantised.h"

#include <algorithm>
#include <cstring>

#include "model/limits.h"

namespace baton::model {
namespace {

using Method = Quantisation::Method;

constexpr std::string_view kSupported =
    "supported: fp8, fbgemm_fp8, quark (fp8_e4m3), compressed-tensors (float-, int- and pack-quantized), modelopt (FP8), gptq, awq, "
    "mxfp4";

std::string text_of(const Json& object, std::string_view key) {
  const Json* v = object.find(key);
  return v && v->is_string() ? v->text : std::string();
}
int64_t int_of(const Json& object, std::string_view key, int64_t absent) {
  const Json* v = object.find(key);
  return v ? v->as_int().value_or(absent) : absent;
}
bool given(const Json& object, std::string_view key) {
  const Json* v = object.find(key);
  return v && !v->is_null();
}

template <class... T>
std::unexpected<Error> refuse(T&&... what) {
  return fail(Code::kUnimplemented, "config.json: quantization_config: ", std::forward<T>(what)...);
}

// [rows, columns] of one scale.
Result<> read_block(const Json& block, Quantisation& q) {
  const bool two = block.is_array() && block.items.size() == 2;
  q.block_rows = two ? block.items[0].as_int().value_or(0) : 0;
  q.block_cols = two ? block.items[1].as_int().value_or(0) : 0;
  if (q.block_rows > 0 && q.block_cols > 0 && q.block_cols % tensor::kRecordInputs == 0) return {};
  return refuse("blocks of scales must be [rows, columns] with columns a multiple of ", tensor::kRecordInputs);
}

Result<> read_group(const Json& group, Quantisation& q) {
  const Json* weights = group.find("weights");
  if (!weights || weights->is_null()) return {};
  if (!weights->is_object()) return refuse("\"weights\" must be an object");
  const std::string type = text_of(*weights, "type");
  const int64_t bits = int_of(*weights, "num_bits", 8);
  if (!(type == "float" && bits == 8) && !(type == "int" && (bits == 4 || bits == 8)))
    return refuse("weights of ", bits, " bits, type \"", type, "\" are not supported; float 8, int 8 and int 4 are");
  if (given(*weights, "block_structure") && weights->find("block_structure")->is_array())
    return read_block(*weights->find("block_structure"), q);
  return {};
}

Result<> read_compressed(const Json& json, Quantisation& q) {
  constexpr std::string_view kFormats[] = {
      "", "dense", "naive-quantized", "float-quantized", "int-quantized", "pack-quantized", "mixed-precision"};
  const auto known = [&](const std::string& format) { return std::ranges::find(kFormats, format) != std::end(kFormats); };
  if (const std::string format = text_of(json, "format"); !known(format))
    return refuse("format \"", format, "\" is not supported");
  if (const Json* sparsity = json.find("sparsity_config"); sparsity && sparsity->is_object()) {
    if (const std::string format = text_of(*sparsity, "format"); !format.empty() && format != "dense")
      return refuse("sparsity format \"", format, "\" is not supported");
  }
  if (const Json* transform = json.find("transform_config"); transform && transform->is_object() && !transform->items.empty())
    return refuse("\"transform_config\" is not supported");
  const Json* groups = json.find("config_groups");
  if (!groups || !groups->is_object()) return refuse("\"config_groups\" is missing");
  for (const Json& group : groups->items) {
    if (const std::string format = text_of(group, "format"); !known(format))
      return refuse("format \"", format, "\" is not supported");
    BATON_OK(read_group(group, q));
  }
  return {};
}

Result<> read_grouped(const Json& json, Quantisation& q) {
  q.bits = int_of(json, "bits", int_of(json, "w_bit", 4));
  const int64_t group = int_of(json, "group_size", int_of(json, "q_group_size", 128));
  q.group = group == -1 ? 0 : group;
  if (q.bits != 4 && (q.bits != 8 || q.method == Method::kAwq)) return refuse(q.name, " with ", q.bits, " bits is not supported");
  if (group != -1 && (group <= 0 || group % tensor::kRecordInputs != 0))
    return refuse(q.name, " with groups of ", group, " is not supported: a multiple of ", tensor::kRecordInputs, " or -1 is");
  if (q.method == Method::kGptq) {
    const std::string format = text_of(json, "checkpoint_format");
    if (format != "" && format != "gptq" && format != "gptq_v2")
      return refuse("checkpoint_format \"", format, "\" is not supported");
    q.zero_less_one = format != "gptq_v2";
    return {};
  }
  std::string version = text_of(json, "version");
  std::ranges::transform(version, version.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (version != "" && version != "gemm") return refuse("awq version \"", version, "\" is not supported; gemm is");
  return {};
}

Result<> read_quark(const Json& json) {
  const Json* weight = json.find_path({"global_quant_config", "weight"});
  const std::string dtype = weight ? text_of(*weight, "dtype") : "";
  if (dtype != "fp8_e4m3") return refuse("quark weights of type \"", dtype, "\" are not supported; fp8_e4m3 is");
  if (const Json* layers = json.find("layer_quant_config"); layers && layers->is_object() && !layers->items.empty())
    return refuse("quark's \"layer_quant_config\" is not supported");
  return {};
}

// NVIDIA's ModelOpt, its fields flat or in an object of their own.
Result<> read_modelopt(const Json& json, Quantisation& q) {
  const Json* inner = json.find("quantization");
  const Json& fields = inner && inner->is_object() ? *inner : json;
  if (const std::string algorithm = text_of(fields, "quant_algo"); algorithm != "FP8")
    return refuse("modelopt's quant_algo \"", algorithm, "\" is not supported; FP8 is");
  q.fp8_cache = text_of(fields, "kv_cache_quant_algo") == "FP8";
  return {};
}

// compressed-tensors' words for the KV cache, ModelOpt's newer ones too. One number a layer is what we keep: of other schemes the
// cache stays BF16, which rounds less.
bool asks_for_fp8_cache(const Json& json) {
  const Json* scheme = json.find("kv_cache_scheme");
  if (!scheme || !scheme->is_object()) return false;
  const auto is = [&](std::string_view key, bool absent) {
    const Json* v = scheme->find(key);
    return v ? v->as_bool().value_or(absent) : absent;
  };
  const std::string strategy = text_of(*scheme, "strategy");
  return text_of(*scheme, "type") == "float" && int_of(*scheme, "num_bits", 8) == 8 && !is("dynamic", false) &&
         is("symmetric", true) && (strategy.empty() || strategy == "tensor");
}

// The last part of a tensor's name, and what comes before its dot.
std::pair<std::string_view, std::string_view> split_name(std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == name.npos ? std::pair(std::string_view(), name) : std::pair(name.substr(0, dot), name.substr(dot + 1));
}

bool one_of(std::string_view s, std::initializer_list<std::string_view> list) { return std::ranges::find(list, s) != list.end(); }

// Where a scale of a layer's FP8 KV cache may stand: beside the projections, in the attention's own module, or at a projection,
// there also as the scale of what it puts out.
std::string cache_scale_name(std::string_view layer, std::string_view part, const std::function<std::string(std::string_view)>& neutral) {
  if (part == "output_scale") part = layer.ends_with(".k_proj") ? "k_scale" : layer.ends_with(".v_proj") ? "v_scale" : part;
  if (!one_of(part, {"k_scale", "v_scale"})) return "";
  for (const std::string_view end : {".attn", ".k_proj", ".v_proj"})
    if (layer.ends_with(end)) layer.remove_suffix(end.size());
  constexpr std::string_view kBeside = "k_proj.weight";
  std::string name = neutral(cat(layer, ".", kBeside));
  if (name.empty()) return "";
  return name.replace(name.size() - kBeside.size(), kBeside.size(), part);
}

// Scales of activations, which are kept finer here, and what else a device computing in 8 bits would want to know of attention.
bool of_activations(std::string_view part) {
  return one_of(part, {"input_scale", "input_scale_ub", "input_zero_point", "output_scale", "k_scale", "v_scale", "q_scale",
                       "prob_scale", "prob_output_scale", "k_zero_point", "v_zero_point"});
}

bool is_float(const Safetensor& t) { return t.dtype.has_value(); }

std::string shape_text(const Safetensor& t) {
  std::string out = cat(t.dtype_text, " [");
  for (size_t i = 0; i < t.shape.size(); i++) out += cat(i ? ", " : "", t.shape[i]);
  return out + "]";
}

bool is_matrix(const Safetensor& t, std::string_view dtype, int64_t rows, int64_t cols) {
  return t.dtype_text == dtype && t.shape == std::vector{rows, cols};
}

Result<> check_columns(const std::string& name, int64_t cols) {
  if (cols > 0 && cols % tensor::kRecordInputs == 0) return {};
  return fail(Code::kUnimplemented, "tensor ", name, ": ", cols, " quantised inputs are no multiple of ", tensor::kRecordInputs);
}

tensor::Format scale_format(const Safetensor& t) {
  return *t.dtype == Dtype::kF16 ? tensor::Format::kF16 : *t.dtype == Dtype::kBf16 ? tensor::Format::kBf16 : tensor::Format::kF32;
}

// Scales stored [1], [rows], [rows, 1], [rows, groups] or [blocks of rows, blocks of columns].
Result<> set_scales(const Safetensor& t, const Quantisation& q, TensorRef& ref) {
  if (!is_float(t)) return fail(Code::kUnimplemented, "scales ", t.name, " of ", t.dtype_text, " are not supported");
  const int64_t rows = t.shape.empty() ? 1 : t.shape[0], cols = t.shape.size() < 2 ? 1 : t.shape[1];
  tensor::Scales& s = ref.scales;
  s = {.format = scale_format(t), .data = t.bytes.data(), .rows_per = ref.rows, .cols_per = ref.cols};
  const auto blocks = [](int64_t n, int64_t per) { return (n + per - 1) / per; };
  bool good = t.shape.size() <= 2 && rows > 0 && cols > 0;
  if (rows == 1 && cols == 1) {
  } else if (q.block_rows > 0 && good) {
    s.rows_per = q.block_rows;
    s.cols_per = q.block_cols;
    good = rows == blocks(ref.rows, s.rows_per) && cols == blocks(ref.cols, s.cols_per);
    s.row_step = cols;
    s.col_step = 1;
  } else if (good) {
    s.rows_per = 1;
    s.row_step = cols;
    good = rows == ref.rows && ref.cols % cols == 0;
    if (good && cols > 1) {
      s.cols_per = ref.cols / cols;
      s.col_step = 1;
    }
  }
  if (!good)
    return fail(Code::kInvalidArgument, "tensor ", t.name, " is ", shape_text(t), ", no scales of ", ref.rows, " x ", ref.cols);
  if (s.col_step == 1 && s.cols_per % tensor::kRecordInputs != 0)
    return fail(Code::kUnimplemented, "tensor ", t.name, ": groups of ", s.cols_per, " are not supported: a multiple of ",
                tensor::kRecordInputs, " is");
  return {};
}

bool all_words(std::span<const std::byte> bytes, uint32_t value) {
  for (size_t i = 0; i + 4 <= bytes.size(); i += 4) {
    uint32_t v;
    std::memcpy(&v, bytes.data() + i, 4);
    if (v != value) return false;
  }
  return true;
}

// Input c belongs to group c / per: the order that the kernels run.
bool in_order(const Safetensor& g_idx, int64_t cols, int64_t per) {
  for (int64_t c = 0; c < cols; c++) {
    int32_t group;
    std::memcpy(&group, g_idx.bytes.data() + c * 4, 4);
    if (group != c / per) return false;
  }
  return true;
}

// Takes the groups of inputs from g_idx, if they are not those in order.
Result<> set_order(const Safetensor& g_idx, int64_t cols, int64_t groups, tensor::Scales& scales) {
  if (g_idx.dtype_text != "I32" || g_idx.shape != std::vector{cols})
    return fail(Code::kInvalidArgument, "tensor ", g_idx.name, " is ", shape_text(g_idx), ", not I32 [", cols, "]");
  if (in_order(g_idx, cols, scales.cols_per)) return {};
  for (int64_t c = 0; c < cols; c++) {
    int32_t group;
    std::memcpy(&group, g_idx.bytes.data() + c * 4, 4);
    if (group < 0 || group >= groups)
      return fail(Code::kInvalidArgument, "tensor ", g_idx.name, " names group ", group, " of ", groups);
  }
  scales.order = g_idx.bytes.data();
  return {};
}

}  // namespace

Result<Quantisation> parse_quantisation(const Json& config) {
  Quantisation q;
  const Json* json = config.find("quantization_config");
  if (!json || json->is_null()) json = config.find("compression_config");  // compressed-tensors' first name for it
  if (!json || json->is_null()) return q;
  q.name = text_of(*json, "quant_method");
  if (one_of(q.name, {"fp8", "fbgemm_fp8"})) {
    q.method = Method::kScaled;
    if (given(*json, "weight_block_size")) BATON_OK(read_block(*json->find("weight_block_size"), q));
  } else if (q.name == "compressed-tensors") {
    q.method = Method::kScaled;
    BATON_OK(read_compressed(*json, q));
    q.fp8_cache = asks_for_fp8_cache(*json);
  } else if (q.name == "modelopt") {
    q.method = Method::kScaled;
    BATON_OK(read_modelopt(*json, q));
    q.fp8_cache = q.fp8_cache || asks_for_fp8_cache(*json);
  } else if (q.name == "mxfp4") {  // the experts alone, whose tensors say so
  } else if (q.name == "quark") {
    q.method = Method::kScaled;
    BATON_OK(read_quark(*json));
  } else if (q.name == "gptq" || q.name == "awq") {
    q.method = q.name == "gptq" ? Method::kGptq : Method::kAwq;
    BATON_OK(read_grouped(*json, q));
  } else {
    return refuse("quant_method \"", q.name, "\" is not supported; ", kSupported);
  }
  return q;
}

Result<bool> QuantisedTensors::take(const Safetensor& t, const std::function<std::string(std::string_view)>& neutral) {
  if (q_.method == Method::kNone) return false;
  const auto [layer, part] = split_name(t.name);
  if (const std::string name = cache_scale_name(layer, part, neutral); !name.empty() && is_float(t) && t.bytes.size() == (t.dtype == Dtype::kF32 ? 4 : 2))
    return cache_scales_.emplace(name, TensorRef{.name = name, .dtype = *t.dtype, .cols = 1, .bytes = t.bytes}).second
               ? Result<bool>(true)
               : fail(Code::kInvalidArgument, "tensor ", t.name, " occurs twice");
  if (of_activations(part)) return true;
  const bool grouped = q_.method != Method::kScaled;
  if (grouped && part == "bias" && neutral(t.name).empty())  // some packers write a bias of zeros everywhere
    return std::ranges::all_of(t.bytes, [](std::byte b) { return b == std::byte{0}; });
  const bool ours = grouped ? one_of(part, {"qweight", "qzeros", "scales", "g_idx"})
                            : one_of(part, {"weight_scale", "weight_scale_inv", "weight_packed", "weight_shape",
                                            "weight_zero_point", "weight_g_idx"}) ||
                                  (part == "weight" && !is_float(t));
  if (!ours) return false;
  const std::string name = neutral(cat(layer, ".weight"));
  if (name.empty()) return false;
  if (!layers_[name].emplace(part, t).second) return fail(Code::kInvalidArgument, "tensor ", t.name, " occurs twice");
  return true;
}

Result<> QuantisedTensors::finish(std::map<std::string, TensorRef, std::less<>>& tensors) const {
  tensors.insert(cache_scales_.begin(), cache_scales_.end());
  for (const auto& [name, parts] : layers_) {
    BATON_TRY(TensorRef ref, assemble(name, parts));
    if (ref.rows < 1) return fail(Code::kInvalidArgument, "tensor ", name, " has no rows");
    if (!tensors.emplace(name, std::move(ref)).second)
      return fail(Code::kInvalidArgument, "tensor ", parts.begin()->second.name, ": its layer has plain weights too");
  }
  return {};
}

Result<TensorRef> QuantisedTensors::assemble(const std::string& name, const Parts& parts) const {
  if (q_.method != Method::kScaled) return grouped(name, parts);
  if (parts.contains("weight_packed")) return packed(name, parts);
  return scaled(name, parts);
}

// FP8 or INT8 values and their scales.
Result<TensorRef> QuantisedTensors::scaled(const std::string& name, const Parts& parts) const {
  const auto weight = parts.find("weight");
  if (weight == parts.end())
    return fail(Code::kInvalidArgument, "tensor ", parts.begin()->second.name, " has no weight beside it");
  const Safetensor& w = weight->second;
  auto scale = parts.find("weight_scale");
  if (scale == parts.end()) scale = parts.find("weight_scale_inv");  // the same thing, whatever its name says
  if (scale == parts.end()) return fail(Code::kInvalidArgument, "tensor ", w.name, " of ", w.dtype_text, " has no weight_scale");
  if (parts.contains("weight_zero_point"))
    return fail(Code::kUnimplemented, "tensor ", w.name, ": zero points of 8-bit weights are not supported");
  if ((w.dtype_text != "F8_E4M3" && w.dtype_text != "I8") || w.shape.size() != 2)
    return fail(Code::kUnimplemented, "tensor ", w.name, " is ", shape_text(w), "; matrices of F8_E4M3 and I8 are supported");
  TensorRef ref{.name = name,
                .dtype = w.dtype_text == "I8" ? Dtype::kI8 : Dtype::kE4m3,
                .rows = w.shape[0],
                .cols = w.shape[1],
                .bytes = w.bytes,
                .scales = {}};
  BATON_OK(check_columns(w.name, ref.cols));
  BATON_OK(set_scales(scale->second, q_, ref));
  return ref;
}

// compressed-tensors' pack-quantized: [R, C / values a word], zero points packed along the rows.
Result<TensorRef> QuantisedTensors::packed(const std::string& name, const Parts& parts) const {
  const Safetensor& w = parts.find("weight_packed")->second;
  const auto shape = parts.find("weight_shape"), scale = parts.find("weight_scale"), g_idx = parts.find("weight_g_idx"),
             zero = parts.find("weight_zero_point");
  if (shape == parts.end() || scale == parts.end())
    return fail(Code::kInvalidArgument, "tensor ", w.name, " lacks weight_shape or weight_scale");
  const Safetensor& s = shape->second;
  if ((s.dtype_text != "I64" && s.dtype_text != "I32") || s.shape != std::vector<int64_t>{2})
    return fail(Code::kInvalidArgument, "tensor ", s.name, " is ", shape_text(s), ", not two integers");
  int64_t rows, cols;
  if (s.dtype_text == "I64") {
    std::memcpy(&rows, s.bytes.data(), 8);
    std::memcpy(&cols, s.bytes.data() + 8, 8);
  } else {
    int32_t two[2];
    std::memcpy(two, s.bytes.data(), 8);
    rows = two[0];
    cols = two[1];
  }
  if (cols <= 0 || cols > kElementsMax || rows <= 0 ||
      !(is_matrix(w, "I32", rows, cols / 8) || is_matrix(w, "I32", rows, cols / 4)))
    return fail(Code::kUnimplemented, "tensor ", w.name, " is ", shape_text(w), "; ", rows, " x ", cols,
                " values of 4 or 8 bits are supported");
  BATON_OK(check_columns(w.name, cols));
  const bool four = w.shape[1] == cols / 8;
  TensorRef ref{
      .name = name, .dtype = four ? Dtype::kInt4 : Dtype::kInt8, .rows = rows, .cols = cols, .bytes = w.bytes, .scales = {}};
  BATON_OK(set_scales(scale->second, q_, ref));
  const int64_t per_word = four ? 8 : 4, groups = cols / ref.scales.cols_per;
  if (g_idx != parts.end()) BATON_OK(set_order(g_idx->second, cols, groups, ref.scales));
  if (zero == parts.end()) return ref;
  const Safetensor& z = zero->second;
  if (ref.scales.rows_per != 1 || !is_matrix(z, "I32", (rows + per_word - 1) / per_word, groups))
    return fail(Code::kUnimplemented, "tensor ", z.name, " is ", shape_text(z), ", no zero points packed by rows for ", rows,
                " x ", groups, " scales");
  ref.scales.zeros = z.bytes.data();
  ref.scales.zero_row_step = groups;
  ref.scales.zero_col_step = 1;
  return ref;
}

// GPTQ and AWQ: scales [groups, R], zero points [groups, R / values a word].
Result<TensorRef> QuantisedTensors::grouped(const std::string& name, const Parts& parts) const {
  const auto weight = parts.find("qweight"), scale = parts.find("scales"), zero = parts.find("qzeros"),
             g_idx = parts.find("g_idx");
  const std::string& first = parts.begin()->second.name;
  if (weight == parts.end() || scale == parts.end() || zero == parts.end())
    return fail(Code::kInvalidArgument, "tensor ", first, ": its layer lacks qweight, scales or qzeros");
  const Safetensor &w = weight->second, &s = scale->second, &z = zero->second;
  const int64_t per_word = 32 / q_.bits;
  if (w.dtype_text != "I32" || w.shape.size() != 2 || w.shape[0] <= 0 || w.shape[1] <= 0)
    return fail(Code::kInvalidArgument, "tensor ", w.name, " is ", shape_text(w), ", no matrix of I32");
  const bool awq = q_.method == Method::kAwq;
  const int64_t rows = awq ? w.shape[1] * per_word : w.shape[1], cols = awq ? w.shape[0] : w.shape[0] * per_word;
  BATON_OK(check_columns(w.name, cols));
  const int64_t group = q_.group == 0 ? cols : q_.group, groups = (cols + group - 1) / group;
  if (rows % per_word != 0 || !is_float(s) || s.shape != std::vector{groups, rows} ||
      !is_matrix(z, "I32", groups, rows / per_word))
    return fail(Code::kInvalidArgument, "tensors ", s.name, " ", shape_text(s), " and ", z.name, " ", shape_text(z),
                " do not fit ", rows, " x ", cols, " weights in groups of ", group);
  TensorRef ref{
      .name = name,
      .dtype = awq            ? Dtype::kAwq4
               : q_.bits == 4 ? Dtype::kGptq4
                              : Dtype::kGptq8,
      .rows = rows,
      .cols = cols,
      .bytes = w.bytes,
      .scales = {.format = scale_format(s), .data = s.bytes.data(), .cols_per = group, .row_step = 1, .col_step = rows}};
  if (g_idx != parts.end()) BATON_OK(set_order(g_idx->second, cols, groups, ref.scales));
  const int add = !awq && q_.zero_less_one ? 1 : 0;
  const uint32_t middle =
      q_.bits == 4 ? (8u - static_cast<uint32_t>(add)) * 0x11111111u : (128u - static_cast<uint32_t>(add)) * 0x01010101u;
  if (all_words(z.bytes, middle)) return ref;  // symmetric: the kernels' own bias
  ref.scales.zeros = z.bytes.data();
  ref.scales.zero_row_step = 1;
  ref.scales.zero_col_step = rows / per_word;
  ref.scales.zero_add = add;
  return ref;
}

}  // namespace baton::model
