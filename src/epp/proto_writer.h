#pragma once
// ProtoWriter: one protobuf message, written from its last byte to its first: when the head of a nested message is written, its
// length is known, so nothing is measured beforehand and nothing is built aside and copied. Fields come out in the reverse order
// of the calls:
//   const size_t inside = w.mark();  w.bytes(3, value);  w.bytes(1, name);  w.close(1, inside);     // 1 {1: name, 3: value}
// Requires: field numbers below 16. Guarantees: canonical form. Keeps its memory over clear(). Source: the protobuf encoding.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

namespace baton::epp {

// A field's tag and, behind it, its number or its length.
inline constexpr size_t kHeadBytesMax = 11;
constexpr size_t head_size(uint64_t number) { return 2 + static_cast<size_t>(63 - std::countl_zero(number | 1)) / 7; }
inline void write_head(char* at, uint32_t field, uint32_t type, uint64_t number) {
  *at++ = static_cast<char>(field << 3 | type);
  for (; number >= 0x80; number >>= 7) *at++ = static_cast<char>(number | 0x80);
  *at = static_cast<char>(number);
}

class ProtoWriter {
 public:
  void clear() { at_ = room_; }
  std::string_view view() const { return {memory_.get() + at_, room_ - at_}; }

  void bytes(uint32_t field, std::string_view value) {
    std::memcpy(before(value.size()), value.data(), value.size());
    head(field, 2, value.size());
  }
  void number(uint32_t field, uint64_t value) { head(field, 0, value); }
  void fixed64(uint32_t field, uint64_t bits) {
    std::memcpy(before(sizeof bits), &bits, sizeof bits);
    *before(1) = static_cast<char>(field << 3 | 1);
  }
  // What was written since mark() becomes a message, or bytes, in `field`.
  size_t mark() const { return room_ - at_; }
  void close(uint32_t field, size_t mark) { head(field, 2, room_ - at_ - mark); }

 private:
  void head(uint32_t field, uint32_t type, uint64_t number) { write_head(before(head_size(number)), field, type, number); }
  char* before(size_t n) {
    if (at_ < n) grow(n);
    return memory_.get() + (at_ -= n);
  }
  void grow(size_t n) {
    const size_t used = room_ - at_, room = std::max<size_t>(2 * room_, 512) + n;
    auto bigger = std::make_unique_for_overwrite<char[]>(room);
    if (used > 0) std::memcpy(bigger.get() + room - used, memory_.get() + at_, used);
    memory_ = std::move(bigger);
    room_ = room, at_ = room - used;
  }

  std::unique_ptr<char[]> memory_;
  size_t room_ = 0, at_ = 0;  // the message lies in [at_, room_)
};

}  // namespace baton::epp
