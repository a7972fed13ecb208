#include "model/testing/tiny_quantised.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/result.h"

namespace baton::model::testing {
namespace {

enum class Kind : uint8_t { kFp8, kInt8, kPacked, kGptq, kAwq, kStacks };
struct Scheme {
  std::string_view name;
  Kind kind;
  int bits;
  int64_t rows_per, cols_per;  // of a scale; 0: all
  bool asymmetric;
  std::string_view scale_dtype;
  std::string_view config;
};

constexpr std::string_view kPack =
    R"({"quant_method":"compressed-tensors","format":"pack-quantized","ignore":["lm_head"],"config_groups":{"group_0":{"targets":["Linear"],)"
    R"("weights":{"num_bits":4,"type":"int","strategy":"group","group_size":32}}}})";
constexpr std::string_view kPack8 =
    R"({"quant_method":"compressed-tensors","format":"pack-quantized","ignore":["lm_head"],"config_groups":{"group_0":{"targets":["Linear"],)"
    R"("weights":{"num_bits":8,"type":"int","strategy":"group","group_size":32}}}})";
constexpr Scheme kSchemes[] = {
    {"mxfp4", Kind::kStacks, 4, 1, 32, false, "U8", R"({"quant_method":"mxfp4","modules_to_not_convert":["model.layers.*.self_attn","lm_head"]})"},
    {"fp8-channel-kv", Kind::kFp8, 8, 1, 0, false, "BF16",
     R"({"quant_method":"compressed-tensors","format":"float-quantized","ignore":["lm_head"],"config_groups":{"group_0":{"targets":["Linear"],)"
     R"("weights":{"num_bits":8,"type":"float","strategy":"channel","symmetric":true,"dynamic":false}}},)"
     R"("kv_cache_scheme":{"num_bits":8,"type":"float","strategy":"tensor","symmetric":true,"dynamic":false}})"},
    {"fp8", Kind::kFp8, 8, 0, 0, false, "F32",
     R"({"quant_method":"fp8","activation_scheme":"static","ignored_layers":["lm_head"]})"},
    {"fp8-channel", Kind::kFp8, 8, 1, 0, false, "BF16",
     R"({"quant_method":"compressed-tensors","format":"float-quantized","ignore":["lm_head"],"config_groups":{"group_0":{"targets":["Linear"],)"
     R"("weights":{"num_bits":8,"type":"float","strategy":"channel","symmetric":true,"dynamic":false},)"
     R"("input_activations":{"num_bits":8,"type":"float","strategy":"token","dynamic":true}}},"kv_cache_scheme":null})"},
    {"fp8-block", Kind::kFp8, 8, 32, 32, false, "F32",
     R"({"quant_method":"fp8","activation_scheme":"dynamic","weight_block_size":[32,32]})"},
    {"int8", Kind::kInt8, 8, 1, 0, false, "BF16",
     R"({"quant_method":"compressed-tensors","format":"int-quantized","ignore":["lm_head"],"config_groups":{"group_0":{"targets":["Linear"],)"
     R"("weights":{"num_bits":8,"type":"int","strategy":"channel"},"input_activations":{"num_bits":8,"type":"int","strategy":"token"}}}})"},
    {"w4a16", Kind::kPacked, 4, 1, 32, false, "BF16", kPack},
    {"w4a16-asym", Kind::kPacked, 4, 1, 32, true, "F16", kPack},
    {"w8a16", Kind::kPacked, 8, 1, 32, false, "BF16", kPack8},
    {"gptq", Kind::kGptq, 4, 1, 32, false, "F16",
     R"({"quant_method":"gptq","bits":4,"group_size":32,"desc_act":false,"sym":true})"},
    {"gptq-asym", Kind::kGptq, 4, 1, 64, true, "F16",
     R"({"quant_method":"gptq","bits":4,"group_size":64,"desc_act":false,"sym":false})"},
    {"gptq8", Kind::kGptq, 8, 1, 32, true, "F16",
     R"({"quant_method":"gptq","bits":8,"group_size":32,"sym":false,"checkpoint_format":"gptq_v2"})"},
    {"gptq-actorder", Kind::kGptq, 4, 1, 32, false, "F16",
     R"({"quant_method":"gptq","bits":4,"group_size":32,"desc_act":true,"sym":true})"},
    {"awq", Kind::kAwq, 4, 1, 32, true, "F16",
     R"({"quant_method":"awq","bits":4,"group_size":32,"zero_point":true,"version":"gemm"})"},
};
const Scheme* find_scheme(const std::string& name) {
  const auto* s = std::ranges::find(kSchemes, name, &Scheme::name);
  return s == std::end(kSchemes) ? nullptr : s;
}

template <class T>
void append(std::string& out, T v) {
  char bytes[sizeof v];
  std::memcpy(bytes, &v, sizeof v);
  out.append(bytes, sizeof bytes);
}

// v as the scale's type holds it, appended to out.
float put_scale(std::string& out, std::string_view dtype, float v) {
  if (dtype == "F32") return append(out, v), v;
  if (dtype == "F16") {
    const auto half = static_cast<_Float16>(v);
    append(out, half);
    return static_cast<float>(half);
  }
  const uint32_t top = (std::bit_cast<uint32_t>(v) + 0x8000) >> 16;
  append(out, static_cast<uint16_t>(top));
  return std::bit_cast<float>(top << 16);
}

// The nearest E4M3 number: its byte, and its value in v.
uint8_t nearest_e4m3(float& v) {
  static const std::vector<float> kValues = [] {  // of bytes 0 to 0x7e, ascending
    std::vector<float> out;
    for (int b = 0; b < 0x7f; b++)
      out.push_back(b < 8 ? std::ldexp(static_cast<float>(b), -9) : std::ldexp(static_cast<float>(8 + b % 8), b / 8 - 10));
    return out;
  }();
  const float size = std::abs(v);
  auto best =
      std::min<size_t>(static_cast<size_t>(std::ranges::lower_bound(kValues, size) - kValues.begin()), kValues.size() - 1);
  if (best > 0 && size - kValues[best - 1] < kValues[best] - size) best--;
  const bool negative = v < 0;
  v = negative ? -kValues[best] : kValues[best];
  return static_cast<uint8_t>(best | (negative ? 0x80 : 0));
}

// The layer as unsigned numbers (or E4M3 bytes), and per scale its zero point.
struct Rounded {
  std::vector<uint8_t> q;  // [rows][cols]
  std::vector<int> zero;   // [row groups][column groups]
  std::string scales;      // likewise
  std::vector<float> scale, values;
  int64_t row_groups = 1, col_groups = 1;
};

void round_group(const Scheme& s, std::span<const float> from, int64_t cols, int64_t r0, int64_t r1, int64_t c0, int64_t c1,
                 Rounded& out) {
  float low = 0, high = 0;
  for (int64_t r = r0; r < r1; r++)
    for (int64_t c = c0; c < c1; c++) {
      low = std::min(low, from[static_cast<size_t>(r * cols + c)]);
      high = std::max(high, from[static_cast<size_t>(r * cols + c)]);
    }
  const int levels = 1 << s.bits, middle = levels / 2;
  const float most = std::max(-low, high);
  const float wanted = s.kind == Kind::kFp8 ? most / 448
                       : s.asymmetric       ? (high - low) / static_cast<float>(levels - 1)
                                            : most / static_cast<float>(middle - 1);
  const float d = put_scale(out.scales, s.scale_dtype, wanted);
  const int zero = s.asymmetric ? std::clamp(static_cast<int>(std::lround(-low / d)), 1, levels - 1) : middle;
  out.scale.push_back(d);
  out.zero.push_back(zero);
  for (int64_t r = r0; r < r1; r++)
    for (int64_t c = c0; c < c1; c++) {
      const auto at = static_cast<size_t>(r * cols + c);
      float value = from[at] / d;
      if (s.kind == Kind::kFp8) {
        out.q[at] = nearest_e4m3(value);
      } else {
        const int q = std::clamp(static_cast<int>(std::lround(value)) + zero, 0, levels - 1);
        out.q[at] = static_cast<uint8_t>(q);
        value = static_cast<float>(q - zero);
      }
      out.values[at] = d * value;
    }
}

Rounded round_all(const Scheme& s, std::span<const float> from, int64_t rows, int64_t cols) {
  const int64_t rows_per = s.rows_per ? s.rows_per : rows, cols_per = s.cols_per ? s.cols_per : cols;
  Rounded out;
  out.q.resize(from.size());
  out.values.resize(from.size());
  out.row_groups = rows / rows_per;
  out.col_groups = cols / cols_per;
  for (int64_t r = 0; r < rows; r += rows_per)
    for (int64_t c = 0; c < cols; c += cols_per) round_group(s, from, cols, r, r + rows_per, c, c + cols_per, out);
  return out;
}

// Activation order: input c belongs to group c % groups. Each group is rounded as if its inputs lay side by side.
Rounded round_in_order(const Scheme& s, std::span<const float> from, int64_t rows, int64_t cols) {
  const int64_t groups = cols / s.cols_per;
  const auto sorted = [&](int64_t r, int64_t c) { return static_cast<size_t>(r * cols + c % groups * s.cols_per + c / groups); };
  std::vector<float> values(from.size());
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) values[sorted(r, c)] = from[static_cast<size_t>(r * cols + c)];
  const Rounded in = round_all(s, values, rows, cols);
  Rounded out = in;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) {
      out.q[static_cast<size_t>(r * cols + c)] = in.q[sorted(r, c)];
      out.values[static_cast<size_t>(r * cols + c)] = in.values[sorted(r, c)];
    }
  return out;
}

// Words of `bits`-bit numbers: word i holds at(i, 0) in its lowest bits, then at(i, 1) ...
template <class At>
std::string words(int64_t n, int bits, At at) {
  std::string out;
  for (int64_t i = 0; i < n; i++) {
    uint32_t word = 0;
    for (int k = 0; k < 32 / bits; k++) word |= static_cast<uint32_t>(at(i, k)) << (k * bits);
    append(out, word);
  }
  return out;
}

std::vector<StoredTensor> store_packed(const Scheme& s, const std::string& module, int64_t rows, int64_t cols, const Rounded& w) {
  const int64_t per = 32 / s.bits, groups = w.col_groups;
  std::string shape;
  append(shape, rows);
  append(shape, cols);
  std::vector<StoredTensor> out = {
      {module + ".weight_packed",
       "I32",
       {rows, cols / per},
       words(rows * cols / per, s.bits, [&](int64_t i, int k) { return w.q[static_cast<size_t>(i * per + k)]; })},
      {module + ".weight_scale", std::string(s.scale_dtype), {rows, groups}, w.scales},
      {module + ".weight_shape", "I64", {2}, shape}};
  if (s.asymmetric)
    out.push_back(
        {module + ".weight_zero_point", "I32", {rows / per, groups}, words(rows / per * groups, s.bits, [&](int64_t i, int k) {
           return w.zero[static_cast<size_t>((i / groups * per + k) * groups + i % groups)];
         })});
  return out;
}

// GPTQ and AWQ store everything with the inputs outside: scales [groups][rows].
std::vector<StoredTensor> store_grouped(const Scheme& s, const std::string& module, int64_t rows, int64_t cols,
                                        const Rounded& w) {
  const int64_t per = 32 / s.bits, groups = w.col_groups;
  constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  const bool awq = s.kind == Kind::kAwq;
  const int less = awq || s.name == "gptq8" ? 0 : 1;  // gptq8 is of the second format
  const auto row = [&](int64_t word, int k) { return word * per + (awq ? kAwqOrder[k] : k); };
  std::string scales;
  for (int64_t g = 0; g < groups; g++)
    for (int64_t r = 0; r < rows; r++) scales += w.scales.substr(static_cast<size_t>(r * groups + g) * 2, 2);
  const auto zeros = words(groups * rows / per, s.bits, [&](int64_t i, int k) {
    return w.zero[static_cast<size_t>(row(i % (rows / per), k) * groups + i / (rows / per))] - less;
  });
  const std::string q =
      awq ? words(cols * rows / per, s.bits,
                  [&](int64_t i, int k) { return w.q[static_cast<size_t>(row(i % (rows / per), k) * cols + i / (rows / per))]; })
          : words(cols / per * rows, s.bits,
                  [&](int64_t i, int k) { return w.q[static_cast<size_t>(i % rows * cols + i / rows * per + k)]; });
  std::vector<StoredTensor> out = {
      {module + ".qweight", "I32", awq ? std::vector{cols, rows / per} : std::vector{cols / per, rows}, q},
      {module + ".qzeros", "I32", {groups, rows / per}, zeros},
      {module + ".scales", "F16", {groups, rows}, scales}};
  if (awq) return out;
  std::string order;
  for (int64_t c = 0; c < cols; c++)
    append(order, static_cast<int32_t>(s.name == "gptq-actorder" ? c % groups : c / (cols / groups)));
  out.push_back({module + ".g_idx", "I32", {cols}, order});
  out.push_back({module + ".bias", "F16", {rows}, std::string(static_cast<size_t>(rows) * 2, '\0')});
  return out;
}

std::vector<StoredTensor> store_bytes(const Scheme& s, const std::string& module, int64_t rows, int64_t cols, const Rounded& w) {
  std::string bytes(w.q.begin(), w.q.end());
  if (s.kind == Kind::kInt8)
    for (char& b : bytes) b = static_cast<char>(b ^ 0x80);
  const bool block = s.name == "fp8-block", whole = w.row_groups * w.col_groups == 1;
  std::vector<StoredTensor> out = {{module + ".weight", s.kind == Kind::kFp8 ? "F8_E4M3" : "I8", {rows, cols}, bytes},
                                   {module + (block ? ".weight_scale_inv" : ".weight_scale"), std::string(s.scale_dtype),
                                    whole ? std::vector<int64_t>{} : std::vector{w.row_groups, w.col_groups}, w.scales}};
  if (!whole) return out;
  std::string scale;
  append(scale, 0.02f);
  out.push_back({module + ".input_scale", "F32", {}, scale});  // static activations
  return out;
}

}  // namespace

bool known_scheme(const std::string& scheme) { return find_scheme(scheme) != nullptr; }

QuantisedLinear quantise_linear(const std::string& scheme, const std::string& module, int64_t rows, int64_t cols,
                                std::span<const float> values) {
  const Scheme& s = *find_scheme(scheme);
  Rounded w = s.name == "gptq-actorder" ? round_in_order(s, values, rows, cols) : round_all(s, values, rows, cols);
  std::vector<StoredTensor> tensors = s.kind == Kind::kPacked                         ? store_packed(s, module, rows, cols, w)
                                      : s.kind == Kind::kGptq || s.kind == Kind::kAwq ? store_grouped(s, module, rows, cols, w)
                                                                                      : store_bytes(s, module, rows, cols, w);
  return {std::move(tensors), std::move(w.values)};
}

std::string quantisation_config(const std::string& scheme) { return std::string(find_scheme(scheme)->config); }

}  // namespace baton::model::testing
