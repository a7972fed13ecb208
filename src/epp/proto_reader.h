#pragma once
// ProtoReader: walks the fields of one protobuf message in place: no copy, no allocation, views into the bytes given.
//   for (ProtoReader r(bytes); r.next();) if (r.is_bytes(2)) use(r.bytes());
// Guarantees: never reads past the end; a malformed message ends the walk with ok() == false. A field of another wire type than
// was asked for is an unknown field, as it is to protobuf's own readers.
// Source: the protobuf encoding as documented (varint, i64, len, i32; groups are refused).
#include <cstdint>
#include <cstring>
#include <string_view>

namespace baton::epp {

class ProtoReader {
 public:
  explicit ProtoReader(std::string_view bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  bool next() {
    if (at_ == end_ || !ok_) return false;
    uint64_t tag = 0;
    number_ = 0, bytes_ = {};
    if (!varint(tag) || (tag >> 3) == 0 || (tag >> 3) > kFieldMax) return ok_ = false;
    field_ = static_cast<uint32_t>(tag >> 3);
    type_ = static_cast<uint8_t>(tag & 7);
    switch (type_) {
      case 0:
        return varint(number_) || (ok_ = false);
      case 1:
        return fixed(8);
      case 2: {
        uint64_t size = 0;
        if (!varint(size) || size > static_cast<uint64_t>(end_ - at_)) return ok_ = false;
        bytes_ = {at_, static_cast<size_t>(size)};
        at_ += size;
        return true;
      }
      case 5:
        return fixed(4);
      default:
        return ok_ = false;
    }
  }
  bool ok() const { return ok_; }
  uint32_t field() const { return field_; }
  bool is_bytes(uint32_t field) const { return field_ == field && type_ == 2; }
  bool is_number(uint32_t field) const { return field_ == field && type_ == 0; }
  std::string_view bytes() const { return bytes_; }  // string, bytes, message
  uint64_t number() const { return number_; }        // integers, bool, enum; the bits of a double
  bool boolean() const { return number_ != 0; }

 private:
  static constexpr uint64_t kFieldMax = (1u << 29) - 1;

  bool varint(uint64_t& out) {
    if (at_ != end_ && static_cast<uint8_t>(*at_) < 0x80) {  // tags, and most lengths
      out = static_cast<uint8_t>(*at_++);
      return true;
    }
    return long_varint(out);
  }
  bool long_varint(uint64_t& out) {
    out = 0;
    for (int shift = 0; shift < 64 && at_ != end_; shift += 7) {
      const auto byte = static_cast<uint8_t>(*at_++);
      out |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool fixed(size_t size) {
    if (static_cast<size_t>(end_ - at_) < size) return ok_ = false;
    std::memcpy(&number_, at_, size);
    at_ += size;
    return true;
  }

  const char *at_, *end_;
  uint32_t field_ = 0;
  uint8_t type_ = 0;
  uint64_t number_ = 0;
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace baton::epp
