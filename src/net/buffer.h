#pragma once
// Buffer: bytes received and not yet parsed, contiguous. view() is valid until the next prepare(). Grows as asked; lend_to()
// gives the block away once it is empty, so that thousands of idle connections hold nothing.
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace baton::net {

class Buffer {
 public:
  std::string_view view() const { return {data_.get() + begin_, end_ - begin_}; }
  size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }

  // At least n writable bytes behind what is there.
  std::span<char> prepare(size_t n) {
    if (capacity_ - end_ < n) {
      size_t kept = size();
      size_t wanted = capacity_ < kept + n ? std::max(kept + n, 2 * kept) : capacity_;
      auto bigger = wanted == capacity_ ? nullptr : std::make_unique_for_overwrite<char[]>(wanted);
      if (kept > 0) std::memmove(bigger ? bigger.get() : data_.get(), data_.get() + begin_, kept);
      if (bigger) data_ = std::move(bigger), capacity_ = wanted;
      begin_ = 0;
      end_ = kept;
    }
    return {data_.get() + end_, capacity_ - end_};
  }
  void commit(size_t n) { end_ += n; }
  void consume(size_t n) {
    begin_ += n;
    if (begin_ == end_) begin_ = end_ = 0;
  }
  // An empty buffer's block goes to `spare`, from where the next reader of the same thread takes it: connections that wait hold
  // none, however many they are.
  void lend_to(Buffer& spare) {
    if (!empty() || capacity_ == 0) return;
    if (spare.capacity_ < capacity_) std::swap(*this, spare);
    data_.reset();
    capacity_ = begin_ = end_ = 0;
  }
  void borrow_from(Buffer& spare) {
    if (capacity_ == 0) std::swap(*this, spare);
  }

 private:
  std::unique_ptr<char[]> data_;
  size_t capacity_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace baton::net
