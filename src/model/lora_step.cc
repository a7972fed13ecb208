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

}  // namespace

void LoraStep::add(size_t row, const LoraAdapter& adapter) {
  const auto r = static_cast<int64_t>(row);
  if (runs_.empty() || runs_.back().adapter != &adapter || runs_.back().first + runs_.back().rows != r)
    runs_.push_back({.first = r, .rows = 0, .adapter = &adapter});
  ++runs_.back().rows;
  forms_ |= adapter.input_forms();
  cols_ = std::max(cols_, padded_cols(adapter.rank()));
}

void LoraStep::begin(size_t rows, size_t slots) {
  if (!active()) return;
  rows = std::max(rows, slots);
  for (int i = 0; i < kGroup; ++i) {
    t_[i].resize(static_cast<int64_t>(rows), cols_);
    raw_[i].resize(rows * static_cast<size_t>(cols_));
  }
}

void LoraStep::end() {
  runs_.clear();
  slot_runs_.clear();
  forms_ = 0;
  cols_ = 0;
}

bool LoraStep::touches(int layer, LoraTarget first, int count) const {
  for (const Run& run : runs_)
    for (int i = 0; i < count; ++i)
      if (run.matrix(layer, next(first, i))) return true;
  return false;
}

const LoraMatrix* LoraStep::Run::matrix(int layer, LoraTarget target) const {
  if (expert >= 0) return adapter->expert(layer, expert, target);
  const LoraMatrix& m = adapter->at(layer, target);
  return m.b.rows > 0 ? &m : nullptr;
}

Activations LoraStep::t_of(const Run& run, LoraTarget target, int64_t rank) const {
  Activations all = t_[slot(target)].view(cols_);
  all = all.from(run.first);
  all.cols = padded_cols(rank);
  return all;
}

void LoraStep::shrink_rows(const Run& run, Share rows, int layer, LoraTarget target, const Activations& x) {
  const LoraMatrix* const of = run.matrix(layer, target);
  if (!of) return;
  const LoraMatrix& m = *of;
  const int64_t rank = m.a.rows;
  float* const raw = raw_[slot(target)].get() + rows.begin * cols_;
  ops_.gemm(m.a, 0, m.a.panels(), x.from(rows.begin), rows.end - rows.begin, raw, cols_, false);
  const Activations t = t_of(run, target, rank);
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    float* const values = raw + (r - rows.begin) * cols_;
    for (int64_t i = 0; i < rank; ++i) values[i] *= m.scale;
    ops_.prepare(values, 0, rank, tensor::form_for(m.b.kind), t, r - run.first);
  }
}

void LoraStep::shrink(tensor::ThreadPool::Member& hand, int layer, LoraTarget first, int count, const Input& x) {
  if (!touches(layer, first, count)) return;
  const int64_t end = runs_.back().first + runs_.back().rows;
  hand.split(end, [&](Share part) { shrink_part(runs_, part, layer, first, count, x()); });
}

void LoraStep::shrink_part(const std::vector<Run>& runs, Share part, int layer, LoraTarget first, int count,
                           const Activations& x) {
  for (const Run& run : runs) {
    const Share rows{std::max(part.begin, run.first), std::min(part.end, run.first + run.rows)};
    for (int i = 0; i < count && rows.begin < rows.end; ++i) shrink_rows(run, rows, layer, next(first, i), x);
  }
}

void LoraStep::expand_run(const Run& run, int layer, LoraTarget target, Share part, float* out, int64_t stride) const {
  const LoraMatrix* const m = run.matrix(layer, target);
  if (!m) return;
  ops_.gemm(m->b, part.begin, part.end, t_of(run, target, m->b.cols), run.rows, out + run.first * stride, stride, true);
}

void LoraStep::expand(int layer, LoraTarget target, Share part, float* out, int64_t stride) const {
  for (const Run& run : runs_) expand_run(run, layer, target, part, out, stride);
}

void LoraStep::add_slots(int32_t expert, int32_t first, std::span<const int32_t> rows) {
  auto run = runs_.begin();
  for (size_t i = 0; i < rows.size(); ++i) {
    while (run != runs_.end() && run->first + run->rows <= rows[i]) ++run;
    if (run == runs_.end()) return;
    if (run->first > rows[i]) continue;
    const int64_t slot = first + static_cast<int64_t>(i);
    Run* const last = slot_runs_.empty() ? nullptr : &slot_runs_.back();
    if (last && last->adapter == run->adapter && last->expert == expert && last->first + last->rows == slot)
      ++last->rows;
    else
      slot_runs_.push_back({.first = slot, .rows = 1, .adapter = run->adapter, .expert = expert});
  }
}

// Whether there is such a phase depends on what the slice knows, not on its slots: another member may be telling them already.
void LoraStep::shrink_slots(tensor::ThreadPool::Member& hand, int64_t slots_max, int layer, LoraTarget first, int count,
                            const Input& x) {
  if (std::ranges::none_of(runs_, [&](const Run& run) { return run.adapter->adapts_experts(layer); })) return;
  hand.split(slots_max, [&](Share part) { shrink_part(slot_runs_, part, layer, first, count, x()); });
}

void LoraStep::expand_slots(int layer, LoraTarget target, int64_t first_slot, int64_t slots, Share part, float* out,
                            int64_t stride) const {
  for (auto run = std::ranges::lower_bound(slot_runs_, first_slot, {}, &Run::first);
       run != slot_runs_.end() && run->first < first_slot + slots; ++run)
    expand_run(*run, layer, target, part, out, stride);
}

}  // namespace baton::model
