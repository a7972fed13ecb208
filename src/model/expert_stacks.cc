#include "model/expert_stacks.h"

#include <algorithm>

namespace baton::model {
namespace {

using Tensors = std::map<std::string, TensorRef, std::less<>>;
using Shape = std::vector<int64_t>;

// One stack's dimensions, and the matrices whose outputs alternate in it.
struct Stack {
  std::string prefix;  // "layers.3.experts."
  int64_t experts, rows, cols;
  std::vector<std::string_view> matrices;  // "gate_proj", "up_proj"
  int64_t alternating() const { return std::ssize(matrices); }
};

Result<> check_shape(const Safetensor& t, const Shape& shape) {
  if (t.shape == shape) return {};
  std::string is, wanted;
  for (const int64_t n : t.shape) is += cat(is.empty() ? "" : " x ", n);
  for (const int64_t n : shape) wanted += cat(wanted.empty() ? "" : " x ", n);
  return fail(Code::kInvalidArgument, "tensor ", t.name, " is ", is, " but the model's configuration asks for ", wanted);
}
Result<> check_floats(const Safetensor& t, const Shape& shape) {
  if (!t.dtype) return fail(Code::kUnimplemented, "tensor ", t.name, " is ", t.dtype_text, "; F32, F16 and BF16 are supported");
  return check_shape(t, shape);
}
Result<> check_bytes(const Safetensor& t, const Shape& shape) {
  if (t.dtype_text != "U8") return fail(Code::kUnimplemented, "tensor ", t.name, " is ", t.dtype_text, "; U8 is supported");
  return check_shape(t, shape);
}

// Views of every expert's part: each is `like`, from where begin(view, expert, which of the alternating) lets its bytes begin.
template <class Begin>
Result<> add(Tensors& tensors, const Stack& s, std::string_view kind, TensorRef like, std::span<const std::byte> bytes,
             Begin begin) {
  for (int64_t x = 0; x < s.experts; x++) {
    for (int64_t k = 0; k < s.alternating(); k++) {
      TensorRef one = like;
      one.name = cat(s.prefix, x, ".", s.matrices[static_cast<size_t>(k)], kind);
      begin(one, x, k);
      one.bytes = bytes.subspan(static_cast<size_t>(one.bytes.data() - bytes.data()), one.matrix().file_bytes());
      if (!tensors.emplace(one.name, one).second)
        return fail(Code::kInvalidArgument, "tensor ", one.name, " occurs twice: alone and as a part of a stack");
    }
  }
  return {};
}

// [E][C][R].
Result<> add_floats(Tensors& tensors, const Stack& s, const Safetensor& t) {
  BATON_OK(check_floats(t, {s.experts, s.cols, s.rows}));
  const size_t size = dtype_block_bytes(*t.dtype);
  const TensorRef like{.name = {},
                       .dtype = *t.dtype,
                       .rows = s.rows / s.alternating(),
                       .cols = s.cols,
                       .bytes = {},
                       .row_step = s.alternating(),
                       .col_step = s.rows};
  return add(tensors, s, ".weight", like, t.bytes, [&](TensorRef& one, int64_t x, int64_t k) {
    one.bytes = t.bytes.subspan(static_cast<size_t>(x * s.cols * s.rows + k) * size);
  });
}

Result<> add_mxfp4(Tensors& tensors, const Stack& s, const Safetensor& blocks, const Safetensor& scales) {
  constexpr int64_t kBlock = 32;
  if (s.cols % kBlock != 0)
    return fail(Code::kUnimplemented, "tensor ", blocks.name, ": ", s.cols, " quantised inputs are no multiple of ", kBlock);
  const int64_t groups = s.cols / kBlock;
  BATON_OK(check_bytes(blocks, {s.experts, s.rows, groups, kBlock / 2}));
  BATON_OK(check_bytes(scales, {s.experts, s.rows, groups}));
  const TensorRef like{
      .name = {},
      .dtype = Dtype::kMxfp4Pairs,
      .rows = s.rows / s.alternating(),
      .cols = s.cols,
      .bytes = {},
      .scales = {.format = tensor::Format::kMxfp4, .cols_per = kBlock, .row_step = s.alternating() * groups, .col_step = 1},
      .row_step = s.alternating() * s.cols};
  return add(tensors, s, ".weight", like, blocks.bytes, [&](TensorRef& one, int64_t x, int64_t k) {
    const int64_t row = x * s.rows + k;
    one.bytes = blocks.bytes.subspan(static_cast<size_t>(row * s.cols / 2));
    one.scales.data = scales.bytes.data() + row * groups;
  });
}

// [E][R]
Result<> add_biases(Tensors& tensors, const Stack& s, const Safetensor& t) {
  BATON_OK(check_floats(t, {s.experts, s.rows}));
  const size_t size = dtype_block_bytes(*t.dtype);
  const TensorRef like{.name = {}, .dtype = *t.dtype, .cols = s.rows / s.alternating(), .bytes = {}, .col_step = s.alternating()};
  return add(tensors, s, ".bias", like, t.bytes, [&](TensorRef& one, int64_t x, int64_t k) {
    one.bytes = t.bytes.subspan(static_cast<size_t>(x * s.rows + k) * size);
  });
}

}  // namespace

Result<bool> ExpertStacks::take(const Safetensor& t, std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == name.npos) return false;
  const std::string_view stack = name.substr(0, dot);
  if (!stack.ends_with(".experts.gate_up_proj") && !stack.ends_with(".experts.down_proj")) return false;
  if (!stacks_[std::string(stack)].emplace(name.substr(dot + 1), t).second)
    return fail(Code::kInvalidArgument, "tensor ", t.name, " occurs twice");
  return true;
}

Result<> ExpertStacks::finish(const ModelConfig& c, Tensors& tensors) const {
  for (const auto& [name, parts] : stacks_) {
    const size_t dot = name.rfind('.');
    const bool down = name.substr(dot + 1) == "down_proj";
    const Stack s = down ? Stack{name.substr(0, dot + 1), c.experts, c.hidden, c.ffn, {"down_proj"}}
                         : Stack{name.substr(0, dot + 1), c.experts, int64_t{2} * c.ffn, c.hidden, {"gate_proj", "up_proj"}};
    const auto floats = parts.find("weight"), bias = parts.find("bias"), blocks = parts.find("blocks"),
               scales = parts.find("scales");
    if ((blocks == parts.end()) != (scales == parts.end()))
      return fail(Code::kInvalidArgument, "tensor ", parts.begin()->second.name, ": blocks and scales of ", name,
                  " are not both there");
    if (blocks != parts.end()) BATON_OK(add_mxfp4(tensors, s, blocks->second, scales->second));
    if (floats != parts.end()) BATON_OK(add_floats(tensors, s, floats->second));
    if (bias != parts.end()) BATON_OK(add_biases(tensors, s, bias->second));
  }
  return {};
}

}  // namespace baton::model
