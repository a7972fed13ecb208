// config.json and generation_config.json (split at the first NUL): what is accepted satisfies check_config, whatever the file
// said. Each input is tried as the whole file and as more fields of a good one, which win over its own.
#include "model/weight_data.h"

namespace {

using namespace baton;

void check(std::string_view config, std::string_view generation) {
  const auto out = model::parse_hf_config(config, generation);
  if (!out) return;
  const auto& c = out->config;
  BATON_CHECK(model::check_config(c));
  BATON_CHECK(c.heads % c.kv_heads == 0 && c.head_dim % 2 == 0 && c.rope_factor > 0);
  for (const int32_t id : c.eos_ids) BATON_CHECK(id >= 0 && id < c.vocab);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  const std::string_view config = input.substr(0, split), generation = split == input.npos ? "" : input.substr(split + 1);
  check(config, generation);
  constexpr std::string_view kGood = R"("hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,)"
                                     R"("num_attention_heads":4,"num_key_value_heads":4,"vocab_size":300,)";
  for (const std::string_view type : {"qwen2", "gemma3_text", "phi3", "smollm3", "qwen3_moe", "gpt_oss"})
    check(cat(R"({"model_type":")", type, "\",", kGood, config, "}"), generation);
  return 0;
}
