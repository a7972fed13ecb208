#pragma once
// GGUF versions 2 and 3 (little endian), parsed in place over a span: values and tensors are views into the file's bytes.
// Guarantees: every length, count, offset and shape is checked before use, so a truncated or lying file is an error naming the
// key or tensor; keys and tensor names are unique; tensor data lies inside the file, aligned as the file says, and does not
// overlap. Layout: "GGUF" | u32 version | u64 tensors | u64 keys | keys: string name, u32 type, value | tensors: string name, u32
// dimensions,
//         u64 each (row length first), u32 type, u64 offset | padding to general.alignment | data.  string = u64 length, bytes.
// Source: the GGUF specification in ggml's docs.
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "model/config.h"

namespace baton::model {

enum class GgufType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

struct GgufValue {
  GgufType type = GgufType::kU8;  // of the value, or of the elements if is_array
  bool is_array = false;
  uint64_t count = 1;
  std::span<const std::byte> bytes = {};  // the elements as stored; strings without the length prefix unless is_array

  std::optional<int64_t> as_int() const;    // any integer type that fits
  std::optional<double> as_double() const;  // floats and integers
  std::optional<bool> as_bool() const;
  std::optional<std::string_view> as_string() const;
  std::optional<std::vector<int64_t>> as_ints() const;  // of integers or booleans
  std::optional<std::vector<float>> as_floats() const;  // of F32 elements
  std::optional<std::vector<std::string_view>> as_strings() const;
};

struct Gguf {
  uint32_t version = 0;
  std::unordered_map<std::string_view, GgufValue> values = {};
  std::vector<TensorRef> tensors = {};  // GGUF names; rows = product of all dimensions but the first

  const GgufValue* find(std::string_view key) const;
};

Result<Gguf> parse_gguf(std::span<const std::byte> file);

}  // namespace baton::model
