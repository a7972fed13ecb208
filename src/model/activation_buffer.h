#pragma once
// Buffer and ActivationBuffer: storage that a step's phases reuse. Owner: whoever computes steps; one thread resizes, between
// phases.
#include <cstdint>
#include <memory>
#include <new>

#include "tensor/activations.h"

namespace baton::model {

// Storage for one phase's values; grows, never shrinks, contents are not kept. 64-byte aligned.
template <class T>
class Buffer {
 public:
  T* resize(size_t n) {
    if (n > size_) {
      data_.reset(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})));
      size_ = n;
    }
    return data_.get();
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
  size_t size_ = 0;
};

// Columns of activations: whole records of panels.
inline int64_t padded_cols(int64_t cols) { return (cols + 31) / 32 * 32; }

struct ActivationBuffer {
  Buffer<tensor::Quantised> q8;
  Buffer<uint16_t> bf16;
  Buffer<float> rounded, f32;
  void resize(int64_t rows, int64_t cols) {
    const auto n = static_cast<size_t>(rows * tensor::row_stride(padded_cols(cols)));
    q8.resize(static_cast<size_t>((rows + tensor::kGroupOfRows - 1) / tensor::kGroupOfRows * padded_cols(cols) / 32));
    bf16.resize(n);
    rounded.resize(n);
    f32.resize(n);
  }
  tensor::Activations view(int64_t cols) const {  // rows of `cols` values, at most what resize() was told
    return {.cols = padded_cols(cols), .q8 = q8.get(), .bf16 = bf16.get(), .rounded = rounded.get(), .f32 = f32.get()};
  }
};

}  // namespace baton::model
