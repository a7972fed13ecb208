#pragma once
// LoraStep: the LoRA part of a slice's forward pass. Rows name their adapters with add(); where any does, each group of matrices that
// read one input gets a phase more, shrink() (t = scale * A x, and t as B wants it), and whoever has computed panels of W x adds
// B t to them with expand(). Of a mixture the rows are slots, an expert's together (transformer_experts.cc): they are told anew in
// each layer, group by group, by one member inside a phase. Rows without an adapter are left alone, and a slice without any does nothing of this. A row's result
// depends on that row and its adapter alone (tensor/ops.h), so it is the same in any company. Owner: one Transformer; add(), begin()
// and end() between its phases, the rest inside them.
#include <functional>
#include <span>
#include <vector>

#include "model/activation_buffer.h"
#include "model/lora.h"
#include "tensor/ops.h"
#include "tensor/threads.h"

namespace baton::model {

class LoraStep {
 public:
  explicit LoraStep(const tensor::Ops& ops) : ops_(ops) {}

  void add(size_t row, const LoraAdapter& adapter);  // rows in rising order
  void begin(size_t rows, size_t slots = 0);         // the slice has so many: no row is added from here
  void end();                                        // of the slice
  bool active() const { return !runs_.empty(); }
  unsigned forms() const { return forms_; }  // the ActForms that inputs of adapted matrices must have, besides the base's

  // x: the prepared input, as the calling member sees it; called inside parts of the phase.
  using Input = std::function<tensor::Activations()>;
  void shrink(tensor::ThreadPool::Member& hand, int layer, LoraTarget first, int count, const Input& x);
  // out[r * stride + n] += B t for rows r that are adapted and n of panels `part`; of a target of the last shrink().
  void expand(int layer, LoraTarget target, tensor::Share part, float* out, int64_t stride) const;

  // A mixture. By one member, inside a phase: no slots yet; those from `first` on are an expert's, for these rows of the slice, which rise.
  void begin_slots() { slot_runs_.clear(); }
  void add_slots(int32_t expert, int32_t first, std::span<const int32_t> rows);
  // As shrink() and expand(), of slots below slots_max; out + slot * stride, of slots [first_slot, first_slot + slots).
  void shrink_slots(tensor::ThreadPool::Member& hand, int64_t slots_max, int layer, LoraTarget first, int count, const Input& x);
  void expand_slots(int layer, LoraTarget target, int64_t first_slot, int64_t slots, tensor::Share part, float* out, int64_t stride) const;

 private:
  struct Run {  // rows, or slots, one after the other with one adapter
    int64_t first, rows;
    const LoraAdapter* adapter;
    int32_t expert = -1;  // of slots
    const LoraMatrix* matrix(int layer, LoraTarget target) const;  // nullptr: it is not adapted
  };
  bool touches(int layer, LoraTarget first, int count) const;
  void shrink_part(const std::vector<Run>& runs, tensor::Share part, int layer, LoraTarget first, int count, const tensor::Activations& x);
  void expand_run(const Run& run, int layer, LoraTarget target, tensor::Share part, float* out, int64_t stride) const;
  void shrink_rows(const Run& run, tensor::Share rows, int layer, LoraTarget target, const tensor::Activations& x);
  tensor::Activations t_of(const Run& run, LoraTarget target, int64_t rank) const;

  static constexpr int kGroup = 3;  // most matrices that read one input: Q, K, V
  const tensor::Ops& ops_;
  std::vector<Run> runs_, slot_runs_;
  unsigned forms_ = 0;
  int64_t cols_ = 0;           // of t: the largest rank, padded
  ActivationBuffer t_[kGroup];  // [row][cols_]; a run's rows lie as its own rank wants them
  Buffer<float> raw_[kGroup];   // the same before it is prepared
};

}  // namespace baton::model
