#pragma once
// MappedFile: a regular file mapped read-only for as long as the object lives. Moving keeps the address.
// A file that shrinks while mapped raises SIGBUS on access: weight files are replaced by rename, never rewritten in place.
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "base/result.h"

namespace baton::model {

class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedFile();
  std::span<const std::byte> bytes() const { return bytes_; }
  // The whole pages of `part` leave this process's memory; reading them again brings them back from the file.
  void release(std::span<const std::byte> part) const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace baton::model
