// config.json of any model: what is accepted has finite, positive sizes, and a plan can be made of it.
#include <cmath>

#include "deploy/plan.h"
#include "deploy/shape.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  constexpr std::string_view kGood = R"({"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":300,)";
  for (const std::string& text : {std::string(input), cat(kGood, input, "}")}) {
    const auto shape = deploy::parse_shape(text, "m");
    if (!shape) continue;
    BATON_CHECK(std::isfinite(shape->weight_bytes) && shape->weight_bytes > 0 && shape->kv_bytes_per_token > 0);
    deploy::PlanAsk ask;
    ask.environment = "default", ask.rate = 1;
    (void)deploy::make_plan(ask, *shape);
  }
  return 0;
}
