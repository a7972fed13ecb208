#include "transfer/ucx/staging.h"

#include <algorithm>
#include <bit>

namespace baton::transfer::ucx {

constexpr size_t kBufferBytesMin = 64u << 10;

std::shared_ptr<Staging::Buffer> Staging::take(size_t size) {
  auto capacity = std::bit_ceil(std::max(size, kBufferBytesMin));
  Buffer buffer;
  {
    std::scoped_lock lock(mutex_);
    if (used_ > 0 && used_ + capacity > bytes_max_) {  // one that is larger than all of it may come alone
      wanted_ = true;
      return nullptr;
    }
    used_ += capacity;
    auto it = std::find_if(idle_.begin(), idle_.end(), [&](const auto& b) { return b.capacity == capacity; });
    if (it != idle_.end()) {
      buffer = std::move(*it);
      idle_bytes_ -= capacity;
      idle_.erase(it);
    }
  }
  if (!buffer.data) buffer = {std::make_unique_for_overwrite<std::byte[]>(capacity), capacity, 0};
  buffer.size = size;
  auto self = shared_from_this();
  return {new Buffer(std::move(buffer)), [self](Buffer* b) {
            self->give_back(std::move(*b));
            delete b;
          }};
}

std::shared_ptr<Staging::Buffer> Staging::take_extra(size_t size) {
  return std::make_shared<Buffer>(Buffer{std::make_unique_for_overwrite<std::byte[]>(size), size, size});
}

void Staging::give_back(Buffer buffer) {
  std::function<void()> freed;
  {
    std::scoped_lock lock(mutex_);
    used_ -= buffer.capacity;
    if (idle_bytes_ + buffer.capacity <= bytes_max_) {
      idle_bytes_ += buffer.capacity;
      idle_.push_back(std::move(buffer));
    }
    if (wanted_) freed = freed_;
    wanted_ = false;
  }
  if (freed) freed();
}

void Staging::close() {
  std::scoped_lock lock(mutex_);
  freed_ = nullptr;
  idle_.clear();
}

}  // namespace baton::transfer::ucx
