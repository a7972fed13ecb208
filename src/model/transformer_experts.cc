// Mixtures of experts: a router scores the experts for each token, the best experts_used run on it, and their outputs are summed
// by the softmax of their scores. Tokens are brought together by expert, so that its weights are read once a slice; a row's
// values stay its own (tensor/ops.h), so a token's result does not depend on its company. Phases: norm | router | choose | group
// | [quantise] gate, up, activation | [quantise] down | sum, += x; where an adapter has matrices of experts, a phase more for
// each input (lora_step.h). A rank of several has the router and its columns of every expert (rank_shard.h): all choose alike,
// and what each has summed is added up over the ranks as what down gives is in other layers.
#include <algorithm>
#include <cmath>
#include <span>

#include "model/transformer.h"

namespace baton::model {

using tensor::Activations;
using tensor::Share;

namespace {

void add_bias(float* row, const std::vector<float>& bias, int64_t from, int64_t to) {
  if (bias.empty()) return;
  for (int64_t i = from; i < to; ++i) row[i] += bias[static_cast<size_t>(i)];
}

}  // namespace

// Phases may count only what is known before the slice runs: a member that comes late reads the counts of phases long done, while
// others write the next layer's groups (tensor/threads.h).
void Transformer::resize_mixture(int64_t rows) {
  const ModelConfig& c = part_;
  const int64_t choices = rows * c.experts_used;
  mixture_.groups_max = std::min<int64_t>(c.experts, choices);
  mixture_.slots_max = (choices + mixture_.groups_max * (tensor::kGroupOfRows - 1) + tensor::kGroupOfRows - 1) /
                       tensor::kGroupOfRows * tensor::kGroupOfRows;
  const auto slots = static_cast<size_t>(mixture_.slots_max);
  mixture_.normed.resize(static_cast<size_t>(rows * c.hidden));
  mixture_.scores.resize(static_cast<size_t>(rows * c.experts));
  mixture_.expert.resize(static_cast<size_t>(choices));
  mixture_.slot.resize(static_cast<size_t>(choices));
  mixture_.weight.resize(static_cast<size_t>(choices));
  mixture_.activations.resize(mixture_.slots_max, std::max(c.hidden, c.ffn));
  mixture_.gate.resize(slots * static_cast<size_t>(c.ffn));
  mixture_.up.resize(slots * static_cast<size_t>(c.ffn));
  mixture_.out.resize(slots * static_cast<size_t>(c.hidden));
}

// The best experts of each row, best first, the first of equals, and their weights.
void Transformer::choose_experts(const LayerWeights& w, Share rows) {
  const ModelConfig& c = config();
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    float* const scores = mixture_.scores.get() + r * c.experts;
    add_bias(scores, w.router_bias, 0, c.experts);
    int32_t* const chosen = mixture_.expert.get() + r * c.experts_used;
    float* const weight = mixture_.weight.get() + r * c.experts_used;
    const float top = *std::max_element(scores, scores + c.experts);
    float total = 0, used = 0;
    for (int32_t x = 0; x < c.experts; ++x) total += std::exp(scores[x] - top);
    for (int32_t k = 0; k < c.experts_used; ++k) {
      int32_t best = -1;
      for (int32_t x = 0; x < c.experts; ++x)
        if (std::find(chosen, chosen + k, x) == chosen + k && (best < 0 || scores[x] > scores[best])) best = x;
      chosen[k] = best;
      weight[k] = std::exp(scores[best] - top);
      used += weight[k];
    }
    for (int32_t k = 0; k < c.experts_used; ++k) weight[k] /= c.expert_norm ? used : total;
  }
}

// Slots of all choices, an expert's together. By one member: it is a few microseconds' work.
void Transformer::group_by_expert() {
  const ModelConfig& c = config();
  const auto choices = static_cast<int64_t>(slice_.rows.size()) * c.experts_used;
  std::vector<int32_t> count(static_cast<size_t>(c.experts)), next(count.size());
  for (int64_t i = 0; i < choices; ++i) ++count[static_cast<size_t>(mixture_.expert.get()[i])];
  mixture_.groups.clear();
  int32_t slots = 0;
  for (int32_t x = 0; x < c.experts; ++x) {
    const int32_t rows = count[static_cast<size_t>(x)];
    if (rows == 0) continue;
    mixture_.groups.push_back({x, slots, rows});
    next[static_cast<size_t>(x)] = slots;
    slots += (rows + tensor::kGroupOfRows - 1) / tensor::kGroupOfRows * tensor::kGroupOfRows;
  }
  mixture_.row_of.assign(static_cast<size_t>(mixture_.slots_max), -1);
  for (int64_t i = 0; i < choices; ++i) {
    const int32_t slot = next[static_cast<size_t>(mixture_.expert.get()[i])]++;
    mixture_.slot.get()[i] = slot;
    mixture_.row_of[static_cast<size_t>(slot)] = static_cast<int32_t>(i / c.experts_used);
  }
  if (!lora_.active()) return;
  lora_.begin_slots();
  for (const Group& g : mixture_.groups)
    lora_.add_slots(g.expert, g.first_slot,
                    std::span(mixture_.row_of).subspan(static_cast<size_t>(g.first_slot), static_cast<size_t>(g.rows)));
}

// f(group, its panels) for items [begin, end) of all groups' panels, group by group.
template <class F>
void Transformer::for_groups(Share items, int64_t panels, F f) {
  for (int64_t at = items.begin; at < items.end;) {
    const int64_t group = at / panels, end = std::min(items.end, (group + 1) * panels);
    if (group >= static_cast<int64_t>(mixture_.groups.size())) return;
    f(mixture_.groups[static_cast<size_t>(group)], Share{at - group * panels, end - group * panels});
    at = end;
  }
}

// What each row's experts gave, best first, added to its row of `to`.
void Transformer::add_experts(Share rows, float* to) {
  const int64_t hidden = config().hidden, used = config().experts_used;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    float* const x = to + r * hidden;
    for (int64_t k = r * used; k < (r + 1) * used; ++k) {
      const float* const out = mixture_.out.get() + mixture_.slot.get()[k] * hidden;
      const float weight = mixture_.weight.get()[k];
      for (int64_t i = 0; i < hidden; ++i) x[i] += weight * out[i];
    }
  }
}

// The same into x, of all ranks.
void Transformer::join_experts(Hand& hand, int turn) {
  const auto n = static_cast<int64_t>(slice_.rows.size()), hidden = int64_t{part_.hidden};
  if (!ranks_) return hand.split(n, [&](Share rows) { add_experts(rows, x_.get()); });
  float* const part = ranks_->part(turn, shard_.rank);
  hand.split(n, [&](Share rows) {
    std::fill(part + rows.begin * hidden, part + rows.end * hidden, 0.f);
    add_experts(rows, part);
  });
  join_branch(hand, turn, {}, {});
}

// Which experts see which rows: mixture_'s slots and groups.
void Transformer::route(Hand& hand, const LayerWeights& w) {
  const ModelConfig& c = part_;
  const auto n = static_cast<int64_t>(slice_.rows.size()), hidden = int64_t{c.hidden};
  const Activations routed = activations_.view(hidden);
  hand.split(
      n,
      [&](Share rows) {
        for (int64_t r = rows.begin; r < rows.end; ++r) {
          float* const y = mixture_.normed.get() + r * hidden;
          ops_.rms_norm(x_.get() + r * hidden, w.ffn_norm.data(), hidden, c.rms_eps, y);
          ops_.prepare(y, 0, hidden, form_for(w.router.kind), routed, r);
        }
      },
      tensor::kGroupOfRows);
  hand.split(w.router.panels(),
             [&](Share part) { ops_.gemm(w.router, part.begin, part.end, routed, n, mixture_.scores.get(), c.experts, false); });
  hand.split(n, [&](Share rows) { choose_experts(w, rows); });
  hand.split(1, [&](Share) { group_by_expert(); });
}

// turn: of what ranks join.
void Transformer::mixture(Hand& hand, int turn, const LayerWeights& w, int layer) {
  const ModelConfig& c = part_;
  const int64_t hidden = c.hidden, ffn = c.ffn;
  Mixture& mix = mixture_;
  const auto prepare_slots = [&](int64_t cols, unsigned forms, auto values) {
    const Activations to = mix.activations.view(cols);
    hand.split(
        mix.slots_max,
        [&](Share slots) {
          for (int64_t s = slots.begin; s < slots.end; ++s)
            if (mix.row_of[static_cast<size_t>(s)] >= 0) ops_.prepare(values(s), 0, cols, forms, to, s);
        },
        tensor::kGroupOfRows);
    return to;
  };
  route(hand, w);
  const ExpertWeights& one = w.experts[0];  // an expert's matrices may differ in kind from each other, not from other experts'
  const Activations in = prepare_slots(hidden, form_for(one.gate.kind) | form_for(one.up.kind) | lora_.forms(),
                                       [&](int64_t s) { return mix.normed.get() + mix.row_of[static_cast<size_t>(s)] * hidden; });
  if (lora_.active()) lora_.shrink_slots(hand, mix.slots_max, layer, LoraTarget::kGate, 2, [&] { return in; });
  const auto activate = ops_.gate_mul[static_cast<size_t>(c.activation)];
  hand.split(mix.groups_max * one.gate.panels(), [&](Share items) {
    for_groups(items, one.gate.panels(), [&](const Group& g, Share p) {
      const ExpertWeights& e = w.experts[static_cast<size_t>(g.expert)];
      float* const gate = mix.gate.get() + g.first_slot * ffn;
      float* const up = mix.up.get() + g.first_slot * ffn;
      ops_.gemm(e.gate, p.begin, p.end, in.from(g.first_slot), g.rows, gate, ffn, false);
      lora_.expand_slots(layer, LoraTarget::kGate, g.first_slot, g.rows, p, mix.gate.get(), ffn);
      ops_.gemm(e.up, p.begin, p.end, in.from(g.first_slot), g.rows, up, ffn, false);
      lora_.expand_slots(layer, LoraTarget::kUp, g.first_slot, g.rows, p, mix.up.get(), ffn);
      const int64_t from = p.begin * tensor::kPanelRows, to = std::min(ffn, p.end * tensor::kPanelRows);
      for (int64_t r = 0; r < g.rows; ++r) {
        add_bias(gate + r * ffn, e.gate_bias, from, to);
        add_bias(up + r * ffn, e.up_bias, from, to);
        activate(gate + r * ffn + from, up + r * ffn + from, to - from);
      }
    });
  });
  const Activations mid =
      prepare_slots(ffn, form_for(one.down.kind) | lora_.forms(), [&](int64_t s) { return mix.gate.get() + s * ffn; });
  if (lora_.active()) lora_.shrink_slots(hand, mix.slots_max, layer, LoraTarget::kDown, 1, [&] { return mid; });
  hand.split(mix.groups_max * one.down.panels(), [&](Share items) {
    for_groups(items, one.down.panels(), [&](const Group& g, Share p) {
      const ExpertWeights& e = w.experts[static_cast<size_t>(g.expert)];
      float* const out = mix.out.get() + g.first_slot * hidden;
      ops_.gemm(e.down, p.begin, p.end, mid.from(g.first_slot), g.rows, out, hidden, false);
      lora_.expand_slots(layer, LoraTarget::kDown, g.first_slot, g.rows, p, mix.out.get(), hidden);
      const int64_t from = p.begin * tensor::kPanelRows, to = std::min(hidden, p.end * tensor::kPanelRows);
      for (int64_t r = 0; r < g.rows; ++r) add_bias(out + r * hidden, e.down_bias, from, to);
    });
  });
  join_experts(hand, turn);
}

}  // namespace baton::model
