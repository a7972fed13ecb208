// Attention of a slice: one item of the plan (transformer_plan.cc), and how its spans are joined.
#include <algorithm>
#include <cmath>

#include "model/transformer.h"

namespace baton::model {
namespace {

// The softmax's denominator; a sink takes part in it with its score and adds no value.
float with_sink(const tensor::Partial& state, const std::vector<float>& sinks, int32_t head) {
  return sinks.empty() ? state.sum : state.sum + std::exp(sinks[static_cast<size_t>(head)] - state.max);
}

}  // namespace

// What the item's rows see of one kv head: as partial states, as attended_, or, where `forms` asks for any, in activations_.
void Transformer::attend_item(const Item& item, const LayerWeights& w, int layer, Member& mine, unsigned forms) {
  const ModelConfig& c = part_;
  const int32_t group = c.heads / c.kv_heads;
  Window& window = slice_.windows[layers_[static_cast<size_t>(layer)].window];
  tensor::AttendRows rows;
  rows.soft_cap = c.attention_soft_cap;
  rows.ahead = &mine.ahead;
  tensor::Partial states[tensor::kAttendRowsMax];
  const auto state_index = [&](int32_t r, int32_t head) {  // of the window's partials
    return (static_cast<size_t>(r) * c.heads + head) * slice_.spans_max + item.span_begin;
  };
  for (int32_t i = 0; i < item.rows; ++i) {
    const int32_t r = item.first_row + i, end = slice_.rows[static_cast<size_t>(r)].position + 1;
    for (int32_t g = 0; g < group; ++g) {
      const int32_t head = item.kv_head * group + g;
      rows.q[rows.rows] = q_.get() + (int64_t{r} * c.heads + head) * c.head_dim;
      rows.begin[rows.rows] = window.tokens > 0 ? std::max(0, end - window.tokens) : 0;
      rows.end[rows.rows] = end;
      states[rows.rows].o =
          slice_.split ? partial_o_.get() + state_index(r, head) * c.head_dim : mine.o.get() + rows.rows * c.head_dim;
      ++rows.rows;
    }
  }
  const tensor::KvView view = kv_view(slice_.rows[static_cast<size_t>(item.first_row)], layer, item.kv_head);
  cache_.attend(rows, view, attention_scale_ * w.k_scale, item.span_begin, item.span_end, states, mine.attend_scratch.get());
  for (int k = 0; k < rows.rows; ++k) {
    const int32_t r = item.first_row + k / group, head = item.kv_head * group + k % group;
    if (slice_.split) {
      window.partials.get()[state_index(r, head)] = states[k];
    } else {
      float* to = attended_.get() + (int64_t{r} * c.heads + head) * c.head_dim;
      const float share = w.v_scale / with_sink(states[k], w.sinks, head);
      for (int d = 0; d < c.head_dim; ++d) to[d] = states[k].o[d] * share;
      if (forms == 0 || (k + 1) % group != 0) continue;
      const int64_t size = int64_t{group} * c.head_dim;
      ops_.prepare(to + c.head_dim - size, item.kv_head * size, size, forms, activations_.view(int64_t{c.heads} * c.head_dim), r);
    }
  }
}

// Row r of the attention output; split spans are joined here, in order.
const float* Transformer::attended_row(int64_t r, const LayerWeights& w, int layer, Member& mine) {
  const ModelConfig& c = part_;
  if (!slice_.split) return attended_.get() + r * c.heads * c.head_dim;
  for (int32_t head = 0; head < c.heads; ++head) {
    const Window& window = slice_.windows[layers_[static_cast<size_t>(layer)].window];
    const tensor::Partial* spans = window.partials.get() + (r * c.heads + head) * slice_.spans_max;
    tensor::Partial all{.max = 0, .sum = 0, .o = mine.row.get() + head * c.head_dim};
    for (int64_t s = 0; s < slice_.spans_max; ++s) ops_.merge(all, spans[s], c.head_dim);
    const float share = w.v_scale / with_sink(all, w.sinks, head);
    for (int d = 0; d < c.head_dim; ++d) all.o[d] *= share;
  }
  return mine.row.get();
}

}  // namespace baton::model
