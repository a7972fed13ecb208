// Quantised checkpoints: quantization_config and a safetensors header (split at the first NUL) over data of a fixed size. What is
// accepted can be read to its last element, by the reference and by the packer. Likewise stacks of experts, whose names in the
// header are "gate_up_proj.blocks" and the like.
#include <algorithm>

#include "model/expert_stacks.h"
#include "model/quantised.h"

namespace {

using namespace baton;
using namespace baton::model;

constexpr size_t kDataBytes = 4096;
constexpr int64_t kElementsRead = 1 << 16;

std::string file_of(std::string_view header) {
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; i++) out[i] = static_cast<char>(header.size() >> (8 * i));
  return cat(out, header, std::string(kDataBytes, '\x01'));
}

void read_all(const TensorRef& t) {
  const tensor::Matrix m = t.matrix();
  BATON_CHECK(t.rows > 0 && t.cols > 0 && t.cols % tensor::format_block(m.format) == 0);
  BATON_CHECK(t.bytes.size() >= m.file_bytes());
  if (t.rows * t.cols > kElementsRead) return;
  std::vector<float> values(static_cast<size_t>(t.rows * t.cols));
  dequantize(t, values);
  const tensor::Panels shape = tensor::panels_for(m);
  std::vector<std::byte> packed(shape.bytes());
  tensor::pack_panels(m, {}, shape, 0, shape.panels(), packed.data());
}

void check_stacks(std::string_view header) {
  const std::string file = file_of(header);
  const auto tensors = parse_safetensors(std::as_bytes(std::span(file)));
  if (!tensors) return;
  ModelConfig c;
  c.experts = 2, c.hidden = 32, c.ffn = 32;
  ExpertStacks stacks;
  for (const Safetensor& t : *tensors)
    if (!stacks.take(t, cat("layers.0.experts.", t.name))) return;
  std::map<std::string, TensorRef, std::less<>> out;
  if (!stacks.finish(c, out)) return;
  for (const auto& [name, t] : out) read_all(t);
}

void check(std::string_view config, std::string_view header) {
  const auto json = parse_json(config);
  if (!json) return;
  const auto q = parse_quantisation(*json);
  if (!q) return;
  const std::string file = file_of(header);
  const auto tensors = parse_safetensors(std::as_bytes(std::span(file)));
  if (!tensors) return;
  QuantisedTensors quantised(*q);
  for (const Safetensor& t : *tensors)
    if (!quantised.take(t, [](std::string_view name) { return std::string(name); })) return;
  std::map<std::string, TensorRef, std::less<>> out;
  if (!quantised.finish(out)) return;
  for (const auto& [name, t] : out) read_all(t);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  const std::string_view config = input.substr(0, split), header = split == input.npos ? "" : input.substr(split + 1);
  check(config, header);
  check_stacks(header);
  check_stacks(input);
  for (const std::string_view method : {"fp8", "gptq", "awq"}) {  // the input as the header alone
    check(cat(R"({"quantization_config":{"quant_method":")", method, R"(","bits":4,"group_size":32}})"), input);
  }
  return 0;
}
