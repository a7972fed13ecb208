#pragma once
// Rotary position embedding, half-split order: dims i and i + head_dim/2 turn by position * f_i. f_i = theta^(-2i/head_dim),
// changed by linear, llama3 or YaRN scaling or by GGUF's divisors. Angles are rounded to f32 before sine and cosine, as Hugging
// Face does, because models were trained and are judged with that rounding. Source: facts/engine.md 4.5; YaRN: arXiv 2309.00071.
#include <cstdint>
#include <vector>

#include "model/config.h"

namespace baton::model {

struct Rope {
  std::vector<float> frequencies;  // [head_dim / 2]
  float magnitude = 1;             // factor on cosine and sine (YaRN)
};

Rope make_rope(const ModelConfig& config);

// cosine, sine: [head_dim / 2] each.
void rope_row(const Rope& rope, int32_t position, float* cosine, float* sine);

}  // namespace baton::model
