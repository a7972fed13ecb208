#pragma once
// What tests of kernels share: every backend that this machine runs, and memory as aligned as kernels want it.
#include <cstring>
#include <new>
#include <vector>

#include "tensor/ops.h"

namespace baton::tensor::testing {

inline std::vector<const Ops*> backends() {
  std::vector<const Ops*> out;
  for (const char* isa : {"plain", "avx2", "avx512"})
    if (auto ops = find_ops(isa)) out.push_back(*ops);
  return out;
}

template <class T>
struct Aligned {  // 64-byte aligned values
  explicit Aligned(size_t n) : values(static_cast<T*>(::operator new(n * sizeof(T) + 64, std::align_val_t{64}))), size(n) {
    std::memset(static_cast<void*>(values), 0, n * sizeof(T));
  }
  Aligned(const Aligned&) = delete;
  ~Aligned() { ::operator delete(values, std::align_val_t{64}); }
  T* values;
  size_t size;
};

}  // namespace baton::tensor::testing
