#include "cost/roofline.h"

#include <algorithm>

namespace baton::cost {

WorkerCost roofline(const ModelWork& model, const DeviceRate& device, int tensor_parallel) {
  const double g = std::max(1, tensor_parallel);
  const double flops_us = device.flops * kArithmeticPart * g * 1e-6;           // a microsecond
  const double bytes_us = device.bytes_per_s * kMemoryPart * 1e-6;             // a microsecond and device
  const double kv_shares = std::min<double>(g, std::max(1, model.kv_heads));   // more devices than KV heads hold copies
  const double attention = 4.0 * model.layers * model.attention_width * 1024;  // QK and PV of one token over 1,024 others
  WorkerCost out;
  out.kv_bytes_per_token = model.kv_bytes_per_token;
  out.prefill.per_token_us = 2 * model.layer_parameters / flops_us;
  out.prefill.per_ctx_us = attention / flops_us;
  out.decode.fixed_us = model.weight_bytes / g / bytes_us;
  out.decode.per_token_us = 2 * (model.layer_parameters + model.head_parameters) / flops_us;
  out.decode.per_ctx_us = static_cast<double>(model.kv_bytes_per_token) * 1024 / kv_shares / bytes_us;
  if (g > 1) {
    const double fixed = 2.0 * model.layers * kAllReduceUs;
    out.prefill.fixed_us += fixed;
    out.decode.fixed_us += fixed;
    // A ring moves 2 (g - 1) / g of the bf16 activations over each link.
    const double moved = 2.0 * model.layers * 2 * (g - 1) / g * 2 * model.hidden;
    if (device.link_bytes_per_s > 0) out.prefill.per_token_us += moved / (device.link_bytes_per_s * 1e-6);
  }
  return out;
}

}  // namespace baton::cost
