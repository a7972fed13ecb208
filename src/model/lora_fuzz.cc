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
const testing::TinySpec kMixture{.layers = 1, .hidden = 32, .heads = 2, .kv_heads = 1, .ffn = 32, .vocab = 259, .family = "gpt-oss", .experts = 3};
constexpr int32_t kRankMax = 16;

ModelConfig config(const testing::TinySpec& spec) {
  ModelConfig c;
  c.family = spec.family;
  c.layers = spec.layers, c.hidden = spec.hidden, c.heads = spec.heads, c.kv_heads = spec.kv_heads;
  c.head_dim = spec.head_dim, c.ffn = spec.ffn, c.vocab = spec.vocab, c.context = spec.context;
  c.experts = &spec == &kMixture ? spec.experts : 0;
  return c;
}

void check_matrix(const LoraAdapter& a, const LoraMatrix& m) {
  BATON_CHECK((m.b.rows == 0) == (m.a.rows == 0));
  if (m.b.rows == 0) return;
  BATON_CHECK(m.a.rows == m.b.cols && m.a.data && m.b.data && m.a.bytes() + m.b.bytes() <= a.bytes());
  volatile std::byte last = m.b.data[m.b.bytes() - 1];
  (void)last;
}

void check(const ModelConfig& c, std::string_view json, std::string_view tensors) {
  const auto adapter = LoraAdapter::read(json, std::as_bytes(std::span(tensors)), c, kRankMax);
  if (!adapter) return;
  const LoraAdapter& a = **adapter;
  BATON_CHECK(a.rank() >= 1 && a.rank() <= kRankMax && a.input_forms() != 0 && a.digest().size() == 64);
  for (size_t t = 0; t < kLoraTargets; t++) check_matrix(a, a.at(0, static_cast<LoraTarget>(t)));
  for (int32_t x = 0; x < c.experts; x++) {
    for (const LoraTarget t : {LoraTarget::kGate, LoraTarget::kUp, LoraTarget::kDown})
      if (const LoraMatrix* m = a.expert(0, x, t)) check_matrix(a, *m);
  }
}

// A base, and a good adapter of it.
struct Good {
  ModelConfig base;
  std::string json, tensors;
  Good(const testing::TinySpec& spec, const testing::TinyLora& lora)
      : base(config(spec)), json(testing::tiny_lora_config(lora, spec)), tensors(testing::tiny_lora_tensors(lora, spec)) {}
};

void judge(const Good& good, const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  check(good.base, input, good.tensors);
  check(good.base, good.json, input);
  check(good.base, std::string(good.json).insert(good.json.size() - 1, cat(",", input)), good.tensors);  // a member more
  std::string edited = good.tensors;  // records of an offset in the header and a byte to put there
  for (size_t i = 0; i + 2 < size; i += 3) edited[8 + static_cast<size_t>(data[i] | data[i + 1] << 8) % (edited.size() - 8)] = input[i + 2];
  check(good.base, good.json, edited);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Good goods[] = {{kSpec, {.rank = 2}}, {kMixture, {.rank = 2, .experts = "each"}}, {kMixture, {.rank = 2, .experts = "stacked"}}};
  for (const Good& good : goods) judge(good, data, size);
  return 0;
}
