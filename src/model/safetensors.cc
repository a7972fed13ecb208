#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "base/json.h"
#include "model/limits.h"

namespace baton::model {
namespace {

struct Element {
  std::string_view name;
  uint64_t bytes;
  std::optional<Dtype> dtype;
};
constexpr Element kElements[] = {
    {"F32", 4, Dtype::kF32},   {"F16", 2, Dtype::kF16},      {"BF16", 2, Dtype::kBf16},    {"F64", 8, std::nullopt},
    {"I64", 8, std::nullopt},  {"U64", 8, std::nullopt},     {"I32", 4, std::nullopt},     {"U32", 4, std::nullopt},
    {"I16", 2, std::nullopt},  {"U16", 2, std::nullopt},     {"I8", 1, std::nullopt},      {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt}, {"F8_E4M3", 1, std::nullopt}, {"F8_E5M2", 1, std::nullopt}, {"F8_E8M0", 1, std::nullopt}};

struct Entry {
  Safetensor tensor;
  uint64_t begin = 0, end = 0;
};

Result<uint64_t> byte_count(const Json* shape, uint64_t element_bytes, std::vector<int64_t>& out) {
  if (!shape || !shape->is_array() || shape->items.size() > 8) return fail(Code::kInvalidArgument, "has no proper \"shape\"");
  uint64_t elements = 1;
  for (const Json& item : shape->items) {
    const auto n = item.as_int();
    if (!n || *n < 0 || (*n > 0 && elements > static_cast<uint64_t>(kElementsMax / *n))) {
      return fail(Code::kInvalidArgument, "has a dimension that cannot be right");
    }
    elements *= static_cast<uint64_t>(*n);
    out.push_back(*n);
  }
  return elements * element_bytes;
}

Result<Entry> read_entry(const Json& json, uint64_t data_bytes) {
  Entry e;
  const Json* dtype = json.find("dtype");
  if (!dtype || !dtype->is_string()) return fail(Code::kInvalidArgument, "has no \"dtype\"");
  e.tensor.dtype_text = dtype->text;
  const auto* element = std::ranges::find(kElements, std::string_view(dtype->text), &Element::name);
  if (element == std::end(kElements)) return fail(Code::kUnimplemented, "has unknown dtype \"", dtype->text, "\"");
  e.tensor.dtype = element->dtype;
  BATON_TRY(const uint64_t bytes, byte_count(json.find("shape"), element->bytes, e.tensor.shape));
  const Json* offsets = json.find("data_offsets");
  if (!offsets || !offsets->is_array() || offsets->items.size() != 2) {
    return fail(Code::kInvalidArgument, "has no proper \"data_offsets\"");
  }
  const auto begin = offsets->items[0].as_uint(), end = offsets->items[1].as_uint();
  if (!begin || !end || *begin > *end) return fail(Code::kInvalidArgument, "has impossible \"data_offsets\"");
  if (*end > data_bytes) {
    return fail(Code::kDataLoss, "ends at byte ", *end, " of ", data_bytes,
                " bytes of data; the file is truncated or damaged: download it again");
  }
  if (*end - *begin != bytes) {
    return fail(Code::kInvalidArgument, "has ", *end - *begin, " bytes of data, its shape and dtype ask for ", bytes);
  }
  e.begin = *begin;
  e.end = *end;
  return e;
}

Result<> check_overlap(std::span<const Entry> entries) {
  std::vector<const Entry*> order;
  for (const auto& e : entries) {
    if (e.begin < e.end) order.push_back(&e);  // an empty tensor takes no room
  }
  std::ranges::sort(order, {}, [](const Entry* e) { return std::pair(e->begin, e->end); });
  for (size_t i = 1; i < order.size(); i++) {
    if (order[i - 1]->end > order[i]->begin) {
      return fail(Code::kInvalidArgument, "tensors ", order[i - 1]->tensor.name, " and ", order[i]->tensor.name, " overlap");
    }
  }
  return {};
}

}  // namespace

Result<std::vector<Safetensor>> parse_safetensors(std::span<const std::byte> file) {
  uint64_t header_bytes = 0;
  if (file.size() < sizeof header_bytes) return fail(Code::kDataLoss, "is too short for a safetensors file");
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  const auto rest = file.subspan(sizeof header_bytes);
  if (header_bytes > rest.size() || header_bytes > kSafetensorsHeaderMax) {
    return fail(Code::kDataLoss, "claims a header of ", header_bytes, " bytes in a file of ", file.size(),
                "; it is truncated or no safetensors file: download it again");
  }
  const std::string_view text(reinterpret_cast<const char*>(rest.data()), header_bytes);
  auto json = parse_json(text, JsonLimits{.bytes_max = kSafetensorsHeaderMax, .depth_max = 8});
  if (!json) return within("header", std::move(json).error());
  if (!json->is_object()) return fail(Code::kInvalidArgument, "header must be a JSON object");
  const auto data = rest.subspan(header_bytes);
  std::vector<Entry> entries;
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < json->items.size(); i++) {
    const std::string& name = json->keys[i];
    if (name == "__metadata__") continue;
    auto entry = read_entry(json->items[i], data.size());
    if (!entry) return within(cat("tensor ", name), std::move(entry).error());
    if (!seen.insert(name).second) return fail(Code::kInvalidArgument, "tensor ", name, " occurs twice");
    entry->tensor.name = name;
    entry->tensor.bytes = data.subspan(entry->begin, entry->end - entry->begin);
    entries.push_back(*std::move(entry));
  }
  BATON_OK(check_overlap(entries));
  std::vector<Safetensor> out;
  for (auto& e : entries) out.push_back(std::move(e.tensor));
  return out;
}

}  // namespace baton::model
