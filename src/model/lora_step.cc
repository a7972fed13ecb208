#include "model/lora_step.h"

#include <algorithm>

namespace baton::model {

using tensor::Activations;
using tensor::Share;

namespace {

// Place among the matrices that read one input: Q K V, O, gate up, down.
constexpr size_t slot(LoraTarget t) {
  constexpr size_t kSlots[kLoraTargets] = {0, 1, 2, 0, 0, 1, 0};
  return kSlots[static_cast<size_t>(t)];
}

LoraTarget next(LoraTarget t, int n) { return static_cast<LoraTarget>(static_cast<int>(t) + n); }

// Rows from `row` on. Adapters' matrices are of floats: the 8-bit form, whose rows lie in groups, is not theirs.
Activations rows_from(const Activations& x, int64_t row) {
  return {.cols = x.cols, .bf16 = x.bf16 + row * x.cols, .f32 = x.f32 + row * x.cols};
}

}  // namespace

void LoraStep::add(size_t row, const LoraAdapter& adapter) {
  const auto r = static_cast<int64_t>(row);
  if (runs_.empty() || runs_.back().adapter != &adapter || runs_.back().first + runs_.back().rows != r)
    runs_.push_back({.first = r, .rows = 0, .adapter = &adapter});
  ++runs_.back().rows;
  forms_ |= adapter.input_forms();
  cols_ = std::max(cols_, padded_cols(adapter.rank()));
}

void LoraStep::begin(size_t rows) {
  if (!active()) return;
  for (int i = 0; i < kGroup; ++i) {
    t_[i].resize(static_cast<int64_t>(rows), cols_);
    raw_[i].resize(rows * static_cast<size_t>(cols_));
  }
}

void LoraStep::end() {
  runs_.clear();
  forms_ = 0;
  cols_ = 0;
}

bool LoraStep::touches(int layer, LoraTarget first, int count) const {
  for (const Run& run : runs_)
    for (int i = 0; i < count; ++i)
      if (run.adapter->at(layer, next(first, i)).b.rows > 0) return true;
  return false;
}

Activations LoraStep::t_of(const Run& run, LoraTarget target, int64_t rank) const {
  Activations all = t_[slot(target)].view(cols_);
  all = rows_from(all, run.first);
  all.cols = padded_cols(rank);
  return all;
}

void LoraStep::shrink_rows(const Run& run, Share rows, int layer, LoraTarget target, const Activations& x) {
  const LoraMatrix& m = run.adapter->at(layer, target);
  if (m.b.rows == 0) return;
  const int64_t rank = m.a.rows;
  float* const raw = raw_[slot(target)].get() + rows.begin * cols_;
  ops_.gemm(m.a, 0, m.a.panels(), rows_from(x, rows.begin), rows.end - rows.begin, raw, cols_, false);
  const Activations t = t_of(run, target, rank);
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    float* const values = raw + (r - rows.begin) * cols_;
    for (int64_t i = 0; i < rank; ++i) values[i] *= m.scale;
    ops_.prepare(values, rank, tensor::form_for(m.b.kind), t, r - run.first);
  }
}

void LoraStep::shrink(tensor::ThreadPool::Member& hand, int layer, LoraTarget first, int count, const Input& x) {
  if (!touches(layer, first, count)) return;
  const int64_t end = runs_.back().first + runs_.back().rows;
  hand.split(end, [&](Share part) {
    const Activations in = x();
    for (const Run& run : runs_) {
      const Share rows{std::max(part.begin, run.first), std::min(part.end, run.first + run.rows)};
      for (int i = 0; i < count && rows.begin < rows.end; ++i) shrink_rows(run, rows, layer, next(first, i), in);
    }
  });
}

void LoraStep::expand(int layer, LoraTarget target, Share part, float* out, int64_t stride) const {
  for (const Run& run : runs_) {
    const LoraMatrix& m = run.adapter->at(layer, target);
    if (m.b.rows == 0) continue;
    ops_.gemm(m.b, part.begin, part.end, t_of(run, target, m.b.cols), run.rows, out + run.first * stride, stride, true);
  }
}

}  // namespace baton::model
