#pragma once
// safetensors files, parsed in place over a span: tensor bytes are views into the file's.
// Guarantees: the header is inside the file and is strict JSON; every tensor's bytes lie inside the data, their length is shape
// times element size, and no two overlap. Data may be unaligned: read it with memcpy. Layout: u64 N | N bytes JSON {name: {dtype,
// shape, data_offsets: [begin, end)}, "__metadata__": {...}} | data. Source: the safetensors format description; facts sheet
// engine.md 4.1.
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/config.h"

namespace baton::model {

struct Safetensor {
  std::string name;
  std::string dtype_text;      // "BF16", also those without a Dtype: "I64"
  std::optional<Dtype> dtype;  // F32, F16, BF16
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

Result<std::vector<Safetensor>> parse_safetensors(std::span<const std::byte> file);

}  // namespace baton::model
