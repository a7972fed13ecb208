#pragma once
// Roofline: the coefficients of the one latency model for a model and a device that nobody has measured yet. Prefill is bound by
// arithmetic, decode by the bytes it reads; both are divided by the tensor-parallel devices, which pay for their all-reduces.
// The two efficiencies are those of one H100 with Llama-3.1-8B: 28.8 ms for a prompt of 1,000 tokens, 5.55 ms + 0.100 ms a stream
// for a decode step at a context of 1,500 (facts sheet "performance" 4.2); a row measured on your own devices is better. Pure.
#include "cost/cost.h"

namespace baton::cost {

struct DeviceRate {             // one device, as its data sheet has it
  double flops = 0;             // dense, bf16, a second
  double bytes_per_s = 0;       // of its memory
  double link_bytes_per_s = 0;  // to the other devices of its node, one direction
};

struct ModelWork {
  double layer_parameters = 0, head_parameters = 0;  // multiplied for one token; of a mixture of experts: those that take part
  double weight_bytes = 0;                           // all that a decode step reads
  int layers = 0, hidden = 0, attention_width = 0;   // width: heads * head_dim
  int kv_heads = 1;
  int64_t kv_bytes_per_token = 0;
};

inline constexpr double kArithmeticPart = 0.50;  // of the device's peak, in prefill and in the products of decode
inline constexpr double kMemoryPart = 0.81;      // of its bandwidth, launches and sampling included
inline constexpr double kAllReduceUs = 10;       // of a small all-reduce inside a node; two a layer

WorkerCost roofline(const ModelWork& model, const DeviceRate& device, int tensor_parallel);

}  // namespace baton::cost
