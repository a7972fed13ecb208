#pragma once
// Staging: buffers that UCX receives into, before a checksum says that a chunk may enter the pool. So no fabric ever writes KV
// blocks: a fetch can end at once, whatever is still under way. Recycled, because touching and registering fresh memory costs
// more than the copy. Threads: any. A buffer may outlive the Staging.
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace baton::transfer::ucx {

class Staging : public std::enable_shared_from_this<Staging> {
 public:
  struct Buffer {
    std::unique_ptr<std::byte[]> data;
    size_t capacity = 0, size = 0;
    std::span<const std::byte> bytes() const { return {data.get(), size}; }
  };
  using Ref = std::shared_ptr<const Buffer>;

  Staging(size_t bytes_max, std::function<void()> freed) : bytes_max_(bytes_max), freed_(std::move(freed)) {}
  std::shared_ptr<Buffer> take(size_t size);        // null: bytes_max is in use; `freed` is called when that changes
  std::shared_ptr<Buffer> take_extra(size_t size);  // above the bound, not recycled: for what came already
  void close();                                     // `freed` is not called any more

 private:
  void give_back(Buffer buffer);
  const size_t bytes_max_;
  std::mutex mutex_;
  std::function<void()> freed_;  // guarded by mutex_, as is all below
  std::vector<Buffer> idle_;
  size_t used_ = 0, idle_bytes_ = 0;
  bool wanted_ = false;
};

}  // namespace baton::transfer::ucx
