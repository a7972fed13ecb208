#include "model/testing/tiny_stacks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <map>
#include <span>

namespace baton::model::testing {
namespace {

constexpr float kNumbers[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};  // of E2M1, by its lowest three bits

// A block of 32 under the scale 2^exponent that brings its largest value within 6: the nearest numbers, in `values` too.
std::vector<uint8_t> round_block(std::span<float> values, int& exponent) {
  float most = 0;
  for (const float v : values) most = std::max(most, std::abs(v));
  exponent = most > 0 ? static_cast<int>(std::ceil(std::log2(most / 6))) : -127;
  std::vector<uint8_t> out;
  for (float& v : values) {
    const float size = std::ldexp(std::abs(v), -exponent);
    const auto nearer = [&](float a, float b) { return std::abs(a - size) < std::abs(b - size); };
    const auto best = std::ranges::min_element(kNumbers, nearer) - kNumbers;
    out.push_back(static_cast<uint8_t>(best | (v < 0 ? 8 : 0)));
    v = best == 0 ? 0.f : std::copysign(std::ldexp(kNumbers[best], exponent), v);  // the format's -0 counts as 0
  }
  return out;
}

// The matrices of one stack, by expert and then by what alternates: [expert * alternating + k], each [rows][cols].
struct Stack {
  std::string name;  // "model.layers.0.mlp.experts.down_proj"
  int64_t experts, alternating, rows, cols;
  std::vector<StoredTensor> matrices, biases;
};

// Element i of a float tensor, as its bytes.
std::string_view element(const StoredTensor& t, int64_t i, size_t size) {
  return std::string_view(t.bytes).substr(static_cast<size_t>(i) * size, size);
}

StoredTensor plain(const Stack& s, size_t size) {
  StoredTensor out{s.name, s.matrices[0].dtype, {s.experts, s.cols, s.rows * s.alternating}, {}};
  for (int64_t x = 0; x < s.experts; x++)
    for (int64_t c = 0; c < s.cols; c++)
      for (int64_t r = 0; r < s.rows; r++)
        for (int64_t k = 0; k < s.alternating; k++)
          out.bytes += element(s.matrices[static_cast<size_t>(x * s.alternating + k)], r * s.cols + c, size);
  return out;
}

StoredTensor bias(const Stack& s, size_t size) {
  StoredTensor out{s.name + "_bias", s.biases[0].dtype, {s.experts, s.rows * s.alternating}, {}};
  for (int64_t x = 0; x < s.experts; x++)
    for (int64_t r = 0; r < s.rows; r++)
      for (int64_t k = 0; k < s.alternating; k++)
        out.bytes += element(s.biases[static_cast<size_t>(x * s.alternating + k)], r, size);
  return out;
}

// Rounds every matrix, whose bytes become those of the rounded values; gives the stack of blocks and that of scales.
std::vector<StoredTensor> mxfp4(Stack& s, Dtype dtype) {
  const int64_t groups = s.cols / 32, outputs = s.rows * s.alternating;
  std::vector<StoredTensor> out = {{s.name + "_blocks", "U8", {s.experts, outputs, groups, 16}, {}},
                                   {s.name + "_scales", "U8", {s.experts, outputs, groups}, {}}};
  std::vector<std::vector<float>> values;
  for (const StoredTensor& t : s.matrices)
    dequantize(dtype, std::as_bytes(std::span(t.bytes)), values.emplace_back(static_cast<size_t>(s.rows * s.cols)));
  for (int64_t x = 0; x < s.experts; x++)
    for (int64_t r = 0; r < s.rows; r++)
      for (int64_t k = 0; k < s.alternating; k++)
        for (int64_t g = 0; g < groups; g++) {
          auto& matrix = values[static_cast<size_t>(x * s.alternating + k)];
          int exponent;
          const auto numbers = round_block(std::span(matrix).subspan(static_cast<size_t>(r * s.cols + g * 32), 32), exponent);
          for (size_t i = 0; i < 32; i += 2) out[0].bytes += static_cast<char>(numbers[i] | numbers[i + 1] << 4);
          out[1].bytes += static_cast<char>(exponent + 127);
        }
  for (size_t i = 0; i < values.size(); i++) {
    std::string& bytes = s.matrices[i].bytes;
    bytes.clear();
    for (const float v : values[i]) {  // exact in BF16: two bits of fraction
      const auto bits = std::bit_cast<uint32_t>(v);
      for (int shift = dtype == Dtype::kF32 ? 0 : 16; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift);
    }
  }
  return out;
}

}  // namespace

std::vector<StoredTensor> stack_experts(const TinySpec& spec, std::vector<StoredTensor> tensors) {
  BATON_CHECK(spec.quant.empty() || spec.dtype == Dtype::kF32 || spec.dtype == Dtype::kBf16);
  constexpr std::string_view kExperts = ".mlp.experts.", kRouter = ".mlp.gate.";
  std::map<std::string, Stack> stacks;
  std::vector<StoredTensor> out;
  for (StoredTensor& t : tensors) {
    if (const size_t at = t.name.find(kRouter); at != t.name.npos) t.name.replace(at, kRouter.size(), ".mlp.router.");
    const size_t at = t.name.find(kExperts);
    if (at == t.name.npos) {
      out.push_back(std::move(t));
      continue;
    }
    const bool down = t.name.find(".down_proj.") != t.name.npos;
    const std::string name = cat(t.name.substr(0, at + kExperts.size()), down ? "down_proj" : "gate_up_proj");
    Stack& s = stacks[name];
    s = {.name = name,
         .experts = spec.experts,
         .alternating = down ? 1 : 2,
         .rows = down ? spec.hidden : spec.ffn,
         .cols = down ? spec.ffn : spec.hidden,
         .matrices = std::move(s.matrices),
         .biases = std::move(s.biases)};
    auto& list = t.name.ends_with(".bias") ? s.biases : s.matrices;
    list.resize(static_cast<size_t>(s.experts * s.alternating));
    const int expert = std::atoi(t.name.c_str() + at + kExperts.size());
    list[static_cast<size_t>(expert * s.alternating + (t.name.find(".up_proj.") != t.name.npos ? 1 : 0))] = std::move(t);
  }
  const size_t size = dtype_block_bytes(spec.dtype);
  for (auto& [name, s] : stacks) {
    out.push_back(bias(s, size));
    std::vector<StoredTensor> rounded;
    if (!spec.quant.empty()) rounded = mxfp4(s, spec.dtype);
    if (rounded.empty() || spec.expand) rounded = {plain(s, size)};
    for (StoredTensor& t : rounded) out.push_back(std::move(t));
  }
  return out;
}

}  // namespace baton::model::testing
