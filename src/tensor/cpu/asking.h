#pragma once
// Asking memory for what a thread reads later (activations.h: Ahead), from inside a kernel. Included only by the .cc files of
// this folder.
#include "tensor/activations.h"

namespace baton::tensor {
namespace {

// The cursor of an Ahead, in registers while a tile is computed.
class Asking {
 public:
  explicit Asking(Ahead* ahead) : ahead_(ahead), line_(ahead && ahead->at < ahead->n ? place() : nullptr) {}
  void operator()(int lines) {
    if (!line_) return;
    for (int i = 0; i < lines; ++i) __builtin_prefetch(line_ + i * 64, 0, 2);
    const auto size = static_cast<size_t>(lines) * 64;
    line_ += size;
    ahead_->within += size;
    if (ahead_->within < ahead_->bytes) return;
    ahead_->within = 0;
    line_ = ++ahead_->at < ahead_->n ? place() : nullptr;
  }

 private:
  const std::byte* place() const { return ahead_->chunks[ahead_->at] + ahead_->offset + ahead_->within; }
  Ahead* ahead_;
  const std::byte* line_;
};

}  // namespace
}  // namespace baton::tensor
