#pragma once
// Rotary position embedding, half-split order: dims i and i + d/2 turn by position * f_i, where d is the head or the part of
// it that turns. f_i = theta^(-2i/d), changed by linear, llama3, YaRN or LongRoPE scaling or by GGUF's divisors. Angles are
// rounded to f32 before sine and cosine, as Hugging Face does, because models were trained and are judged with that rounding.
// Source: facts/engine.md 4.5; YaRN: arXiv 2309.00071; LongRoPE: arXiv 2402.13753.
#include <cstdint>
#include <vector>

#include "model/config.h"

namespace baton::model {

struct Rope {
  std::vector<float> frequencies;  // [rotated dims / 2]
  int still = 0;                   // pairs behind them that do not turn: (head_dim - rotated dims) / 2
  float magnitude = 1;             // factor on cosine and sine (YaRN, LongRoPE)
};

// kind: of the layers that turn so. context: the longest sequence to be served, which chooses LongRoPE's divisors.
Rope make_rope(const ModelConfig& config, LayerRope kind, int32_t context);

// cosine, sine: [frequencies + still] = [head_dim / 2] each.
void rope_row(const Rope& rope, int32_t position, float* cosine, float* sine);

}  // namespace baton::model
