// LoRA adapters: arbitrary adapter_config.json and tensors give an error or an adapter whose every matrix lies in its arena and fits
// the model. Each input is a configuration beside good tensors, tensors beside a good configuration, and edits to both.
#include "base/json.h"
#include "model/lora.h"
#include "model/lora_config.h"
#include "model/testing/tiny_lora.h"

namespace {

using namespace baton;
using namespace baton::model;

const testing::TinySpec kSpec{.layers = 1, .hidden = 32, .heads = 2, .kv_heads = 1, .ffn = 32, .vocab = 259};
constexpr int32_t kRankMax = 16;

ModelConfig config() {
  ModelConfig c;
  c.family = kSpec.family;
  c.layers = kSpec.layers, c.hidden = kSpec.hidden, c.heads = kSpec.heads, c.kv_heads = kSpec.kv_heads;
  c.head_dim = kSpec.head_dim, c.ffn = kSpec.ffn, c.vocab = kSpec.vocab, c.context = kSpec.context;
  return c;
}

void check(std::string_view json, std::string_view tensors) {
  static const ModelConfig c = config();
  const auto adapter = LoraAdapter::read(json, std::as_bytes(std::span(tensors)), c, kRankMax);
  if (!adapter) return;
  const LoraAdapter& a = **adapter;
  BATON_CHECK(a.rank() >= 1 && a.rank() <= kRankMax && a.input_forms() != 0 && a.digest().size() == 64);
  for (size_t t = 0; t < kLoraTargets; t++) {
    const LoraMatrix& m = a.at(0, static_cast<LoraTarget>(t));
    BATON_CHECK((m.b.rows == 0) == (m.a.rows == 0));
    if (m.b.rows == 0) continue;
    BATON_CHECK(m.a.rows == m.b.cols && m.a.data && m.b.data && m.a.bytes() + m.b.bytes() <= a.bytes());
    volatile std::byte last = m.b.data[m.b.bytes() - 1];
    (void)last;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string json = testing::tiny_lora_config({.rank = 2}, kSpec), tensors = testing::tiny_lora_tensors({.rank = 2}, kSpec);
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  check(input, tensors);
  check(json, input);
  check(std::string(json).insert(json.size() - 1, cat(",", input)), tensors);  // a member more
  std::string edited = tensors;  // records of an offset in the header and a byte to put there
  for (size_t i = 0; i + 2 < size; i += 3) edited[8 + static_cast<size_t>(data[i] | data[i + 1] << 8) % (edited.size() - 8)] = input[i + 2];
  check(json, edited);
  return 0;
}
