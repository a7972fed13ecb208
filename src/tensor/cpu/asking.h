#pragma once
// Asking memory for what a thread reads later (activations.h: Ahead), from inside a kernel. Lines go to the core's second cache:
// the first one's few outstanding misses would bound the rate. Included only by the .cc files of this folder.
#include "tensor/activations.h"

namespace baton::tensor {
namespace {

// The cursor of an Ahead, in registers while a tile is computed.
class Asking {
 public:
  explicit Asking(Ahead* ahead) : ahead_(ahead) {
    if (ahead_) place();
  }
  ~Asking() {
    if (line_) pass();
  }
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;

  void operator()(int lines) {
    if (!line_) return;
    for (int i = 0; i < lines; ++i) __builtin_prefetch(line_ + asked_ + i * 64, 0, 2);
    asked_ += static_cast<size_t>(lines) * 64;
    if (asked_ < left_) return;
    pass();
    place();
  }

 private:
  // What was asked for is behind the cursor; more than a chunk's rest is not counted.
  void pass() {
    const Passage& p = ahead_->passages[ahead_->passage];
    const Stretch& s = p.stretches[ahead_->stretch];
    const size_t rest = s.bytes - ahead_->within;
    ahead_->asked += asked_ < rest ? asked_ : rest;
    ahead_->within += asked_;
    if (asked_ < rest) return;
    ahead_->within = 0;
    if (++ahead_->chunk < s.n) return;
    ahead_->chunk = 0;
    if (++ahead_->stretch < p.n) return;
    ahead_->stretch = 0;
    ++ahead_->passage;
  }
  void place() {
    asked_ = 0;
    line_ = nullptr;
    while (ahead_->passage < ahead_->n && ahead_->passages[ahead_->passage].n == 0) ++ahead_->passage;
    if (ahead_->passage == ahead_->n || ahead_->asked >= ahead_->limit) return;
    const Passage& p = ahead_->passages[ahead_->passage];
    const Stretch& s = p.stretches[ahead_->stretch];
    line_ = s.chunks[ahead_->chunk] + s.offset + p.offset + ahead_->within;
    left_ = s.bytes - ahead_->within;
    if (left_ > ahead_->limit - ahead_->asked) left_ = ahead_->limit - ahead_->asked;
  }

  Ahead* ahead_;
  const std::byte* line_ = nullptr;  // nullptr: nothing is to be asked for now
  size_t asked_ = 0, left_ = 0;      // bytes from line_ on
};

}  // namespace
}  // namespace baton::tensor
