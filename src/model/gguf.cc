#include "model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "model/limits.h"

namespace baton::model {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"

// Bytes of one element; 0 for strings and arrays, which vary.
size_t type_bytes(GgufType t) {
  switch (t) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

std::optional<int64_t> int_at(GgufType type, const std::byte* p) {
  switch (type) {
    case GgufType::kU8:
      return load<uint8_t>(p);
    case GgufType::kI8:
      return load<int8_t>(p);
    case GgufType::kU16:
      return load<uint16_t>(p);
    case GgufType::kI16:
      return load<int16_t>(p);
    case GgufType::kU32:
      return load<uint32_t>(p);
    case GgufType::kI32:
      return load<int32_t>(p);
    case GgufType::kI64:
      return load<int64_t>(p);
    case GgufType::kU64: {
      const uint64_t v = load<uint64_t>(p);
      if (v > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(v);
    }
    default:
      return std::nullopt;
  }
}

std::string_view text(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> file) : file_(file) {}
  size_t position() const { return position_; }

  Result<std::span<const std::byte>> take(uint64_t n) {
    if (n > file_.size() - position_) {
      return fail(Code::kDataLoss, "needs ", n, " bytes at offset ", position_, " but the file ends at ", file_.size(),
                  "; it is truncated or damaged: download it again");
    }
    auto out = file_.subspan(position_, n);
    position_ += n;
    return out;
  }
  template <class T>
  Result<T> read() {
    BATON_TRY(auto bytes, take(sizeof(T)));
    return load<T>(bytes.data());
  }
  Result<std::string_view> string(uint64_t bytes_max) {
    BATON_TRY(const uint64_t n, read<uint64_t>());
    if (n > bytes_max) return fail(Code::kResourceExhausted, "has a string of ", n, " bytes, the limit is ", bytes_max);
    BATON_TRY(auto bytes, take(n));
    return text(bytes);
  }

 private:
  std::span<const std::byte> file_;
  size_t position_ = 0;
};

Result<GgufType> read_type(Cursor& in) {
  BATON_TRY(const uint32_t type, in.read<uint32_t>());
  if (type > static_cast<uint32_t>(GgufType::kF64)) return fail(Code::kInvalidArgument, "has unknown value type ", type);
  return static_cast<GgufType>(type);
}

Result<GgufValue> read_array(Cursor& in) {
  GgufValue value{.is_array = true};
  BATON_TRY(value.type, read_type(in));
  BATON_TRY(value.count, in.read<uint64_t>());
  if (value.count > kGgufArrayMax) {
    return fail(Code::kResourceExhausted, "is an array of ", value.count, " elements, the limit is ", kGgufArrayMax);
  }
  if (value.type == GgufType::kArray) return fail(Code::kUnimplemented, "is an array of arrays, which no supported model uses");
  if (value.type != GgufType::kString) {
    BATON_TRY(value.bytes, in.take(value.count * type_bytes(value.type)));
    return value;
  }
  Cursor start = in;
  for (uint64_t i = 0; i < value.count; i++) BATON_OK(in.string(kGgufStringBytesMax));
  BATON_TRY(value.bytes, start.take(in.position() - start.position()));
  return value;
}

Result<GgufValue> read_value(Cursor& in) {
  BATON_TRY(const GgufType type, read_type(in));
  if (type == GgufType::kArray) return read_array(in);
  GgufValue value{.type = type};
  if (type == GgufType::kString) {
    BATON_TRY(const std::string_view s, in.string(kGgufStringBytesMax));
    value.bytes = {reinterpret_cast<const std::byte*>(s.data()), s.size()};
  } else {
    BATON_TRY(value.bytes, in.take(type_bytes(type)));
  }
  return value;
}

// ggml's type numbers. Those without a Dtype are named so that the error can say what the file holds.
struct GgmlType {
  uint32_t id;
  std::string_view name;
  std::optional<Dtype> dtype;
};
constexpr GgmlType kGgmlTypes[] = {
    {0, "F32", Dtype::kF32},       {1, "F16", Dtype::kF16},      {2, "Q4_0", Dtype::kQ4_0},     {3, "Q4_1", Dtype::kQ4_1},
    {6, "Q5_0", Dtype::kQ5_0},     {7, "Q5_1", Dtype::kQ5_1},    {8, "Q8_0", Dtype::kQ8_0},     {9, "Q8_1", std::nullopt},
    {10, "Q2_K", std::nullopt},    {11, "Q3_K", std::nullopt},   {12, "Q4_K", Dtype::kQ4_K},    {13, "Q5_K", Dtype::kQ5_K},
    {14, "Q6_K", Dtype::kQ6_K},    {15, "Q8_K", std::nullopt},   {16, "IQ2_XXS", std::nullopt}, {17, "IQ2_XS", std::nullopt},
    {18, "IQ3_XXS", std::nullopt}, {19, "IQ1_S", std::nullopt},  {20, "IQ4_NL", std::nullopt},  {21, "IQ3_S", std::nullopt},
    {22, "IQ2_S", std::nullopt},   {23, "IQ4_XS", std::nullopt}, {24, "I8", std::nullopt},      {25, "I16", std::nullopt},
    {26, "I32", std::nullopt},     {27, "I64", std::nullopt},    {28, "F64", std::nullopt},     {29, "IQ1_M", std::nullopt},
    {30, "BF16", Dtype::kBf16},    {34, "TQ1_0", std::nullopt},  {35, "TQ2_0", std::nullopt},   {39, "MXFP4", Dtype::kMxfp4}};

Result<Dtype> dtype_of(uint32_t id) {
  const auto* it = std::ranges::find(kGgmlTypes, id, &GgmlType::id);
  if (it != std::end(kGgmlTypes) && it->dtype) return *it->dtype;
  const std::string name = it != std::end(kGgmlTypes) ? std::string(it->name) : cat("type ", id);
  std::string known;
  for (const auto& t : kGgmlTypes) {
    if (t.dtype) known += cat(known.empty() ? "" : ", ", t.name);
  }
  return fail(Code::kUnimplemented, "is quantised as ", name, ", which is not supported; take a file that uses only ", known,
              " (for example a Q4_1, Q8_0 or Q4_K_M file of the same model)");
}

struct TensorEntry {
  TensorRef tensor;
  uint64_t offset = 0, size = 0;
};

Result<TensorEntry> read_tensor_fields(Cursor& in) {
  TensorEntry entry;
  BATON_TRY(const uint32_t dimensions, in.read<uint32_t>());
  if (dimensions < 1 || dimensions > 4)
    return fail(Code::kInvalidArgument, "has ", dimensions, " dimensions; 1 to 4 are possible");
  uint64_t elements = 1;
  for (uint32_t d = 0; d < dimensions; d++) {
    BATON_TRY(const uint64_t n, in.read<uint64_t>());
    if (n == 0 || n > static_cast<uint64_t>(kElementsMax) / elements) {
      return fail(Code::kInvalidArgument, "has a dimension of ", n, ", which cannot be right");
    }
    elements *= n;
    if (d == 0) entry.tensor.cols = static_cast<int64_t>(n);
  }
  entry.tensor.rows = static_cast<int64_t>(elements) / entry.tensor.cols;
  BATON_TRY(const uint32_t type, in.read<uint32_t>());
  BATON_TRY(entry.offset, in.read<uint64_t>());
  BATON_TRY(entry.tensor.dtype, dtype_of(type));
  const int block = dtype_block(entry.tensor.dtype);
  if (entry.tensor.cols % block != 0) {
    return fail(Code::kInvalidArgument, "has rows of ", entry.tensor.cols, " elements, not a multiple of the ", block, " of a ",
                dtype_name(entry.tensor.dtype), " block");
  }
  entry.size = elements / static_cast<uint64_t>(block) * dtype_block_bytes(entry.tensor.dtype);
  return entry;
}

Result<uint64_t> alignment_of(const Gguf& gguf) {
  const GgufValue* value = gguf.find("general.alignment");
  if (!value) return 32;
  const auto n = value->as_int();
  if (!n || *n < 1 || !std::has_single_bit(static_cast<uint64_t>(*n)) || static_cast<uint64_t>(*n) > kGgufAlignmentMax) {
    return fail(Code::kInvalidArgument, "key general.alignment must be a power of two up to ", kGgufAlignmentMax);
  }
  return static_cast<uint64_t>(*n);
}

Result<> place_tensors(std::vector<TensorEntry>& entries, std::span<const std::byte> file, uint64_t header_end,
                       uint64_t alignment) {
  const uint64_t data = (header_end + alignment - 1) / alignment * alignment;
  const uint64_t available = data < file.size() ? file.size() - data : 0;
  for (auto& e : entries) {
    if (e.offset % alignment != 0) {
      return fail(Code::kInvalidArgument, "tensor ", e.tensor.name, " at offset ", e.offset, " is not aligned to ", alignment);
    }
    if (e.offset > available || e.size > available - e.offset) {
      return fail(Code::kDataLoss, "tensor ", e.tensor.name, " needs bytes ", e.offset, " to ", e.offset, " + ", e.size, " of ",
                  available, " bytes of data; the file is truncated or damaged: download it again");
    }
    e.tensor.bytes = file.subspan(data + e.offset, e.size);
  }
  std::vector<const TensorEntry*> order;
  for (const auto& e : entries) order.push_back(&e);
  std::ranges::sort(order, {}, &TensorEntry::offset);
  for (size_t i = 1; i < order.size(); i++) {
    if (order[i - 1]->offset + order[i - 1]->size > order[i]->offset) {
      return fail(Code::kInvalidArgument, "tensors ", order[i - 1]->tensor.name, " and ", order[i]->tensor.name, " overlap");
    }
  }
  return {};
}

struct Header {
  uint32_t version = 0;
  uint64_t tensors = 0, keys = 0;
};

Result<Header> read_header(Cursor& in) {
  Header h;
  BATON_TRY(const uint32_t magic, in.read<uint32_t>());
  if (magic != kMagic) return fail(Code::kInvalidArgument, "not a GGUF file: it does not begin with \"GGUF\"");
  BATON_TRY(h.version, in.read<uint32_t>());
  if (h.version == 0x02000000u || h.version == 0x03000000u) {
    return fail(Code::kUnimplemented, "a big-endian GGUF file; take the little-endian one");
  }
  if (h.version != 2 && h.version != 3) {
    return fail(Code::kUnimplemented, "GGUF version ", h.version, "; versions 2 and 3 are supported: convert the model again");
  }
  BATON_TRY(h.tensors, in.read<uint64_t>());
  BATON_TRY(h.keys, in.read<uint64_t>());
  if (h.tensors > kGgufTensorsMax || h.keys > kGgufKeysMax) {
    return fail(Code::kResourceExhausted, "claims ", h.tensors, " tensors and ", h.keys, " keys; the limits are ",
                kGgufTensorsMax, " and ", kGgufKeysMax);
  }
  return h;
}

}  // namespace

std::optional<int64_t> GgufValue::as_int() const {
  if (is_array) return std::nullopt;
  return int_at(type, bytes.data());
}

std::optional<double> GgufValue::as_double() const {
  if (is_array) return std::nullopt;
  if (type == GgufType::kF32) return load<float>(bytes.data());
  if (type == GgufType::kF64) return load<double>(bytes.data());
  if (const auto n = as_int()) return static_cast<double>(*n);
  return std::nullopt;
}

std::optional<bool> GgufValue::as_bool() const {
  if (is_array || type != GgufType::kBool) return std::nullopt;
  return bytes[0] != std::byte{0};
}

std::optional<std::string_view> GgufValue::as_string() const {
  if (is_array || type != GgufType::kString) return std::nullopt;
  return text(bytes);
}

std::optional<std::vector<int64_t>> GgufValue::as_ints() const {
  if (!is_array) return std::nullopt;
  std::vector<int64_t> out;
  out.reserve(count);
  for (uint64_t i = 0; i < count; i++) {
    const auto n = int_at(type == GgufType::kBool ? GgufType::kU8 : type, bytes.data() + i * type_bytes(type));
    if (!n) return std::nullopt;
    out.push_back(*n);
  }
  return out;
}

std::optional<std::vector<float>> GgufValue::as_floats() const {
  if (!is_array || type != GgufType::kF32) return std::nullopt;
  std::vector<float> out;
  out.reserve(count);
  for (uint64_t i = 0; i < count; i++) out.push_back(load<float>(bytes.data() + i * sizeof(float)));
  return out;
}

std::optional<std::vector<std::string_view>> GgufValue::as_strings() const {
  if (!is_array || type != GgufType::kString) return std::nullopt;
  std::vector<std::string_view> out;
  out.reserve(count);
  Cursor in(bytes);  // the parser walked these very bytes: every read succeeds
  for (uint64_t i = 0; i < count; i++) out.push_back(in.string(kGgufStringBytesMax).value_or(std::string_view()));
  return out;
}

const GgufValue* Gguf::find(std::string_view key) const {
  const auto it = values.find(key);
  return it == values.end() ? nullptr : &it->second;
}

Result<Gguf> parse_gguf(std::span<const std::byte> file) {
  Cursor in(file);
  auto header = read_header(in);
  if (!header) return within("header", std::move(header).error());
  Gguf gguf{.version = header->version};
  for (uint64_t i = 0; i < header->keys; i++) {
    auto name = in.string(kGgufNameBytesMax);
    if (!name) return within(cat("name of key ", i), std::move(name).error());
    auto value = read_value(in);
    if (!value) return within(cat("key ", *name), std::move(value).error());
    if (!gguf.values.emplace(*name, *value).second) return fail(Code::kInvalidArgument, "key ", *name, " occurs twice");
  }
  BATON_TRY(const uint64_t alignment, alignment_of(gguf));
  std::vector<TensorEntry> entries;
  std::unordered_map<std::string_view, size_t> seen;
  for (uint64_t i = 0; i < header->tensors; i++) {
    auto name = in.string(kGgufNameBytesMax);
    if (!name) return within(cat("name of tensor ", i), std::move(name).error());
    auto entry = read_tensor_fields(in);
    if (!entry) return within(cat("tensor ", *name), std::move(entry).error());
    if (!seen.emplace(*name, i).second) return fail(Code::kInvalidArgument, "tensor ", *name, " occurs twice");
    entry->tensor.name = *name;
    entries.push_back(*std::move(entry));
  }
  BATON_OK(place_tensors(entries, file, in.position(), alignment));
  for (auto& e : entries) gguf.tensors.push_back(std::move(e.tensor));
  return gguf;
}

}  // namespace baton::model
