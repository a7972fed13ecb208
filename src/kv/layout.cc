#include "kv/layout.h"

#include "base/result.h"

namespace baton::kv {
namespace {

std::string_view dtype_name(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kBf16:
      return "bf16";
    case KvDtype::kF16:
      return "f16";
    case KvDtype::kF32:
      return "f32";
    case KvDtype::kE4m3:
      return "fp8_e4m3";
    case KvDtype::kE5m2:
      return "fp8_e5m2";
    case KvDtype::kI8Scaled:
      return "int8_per_token_head";
    case KvDtype::kE4m3Scaled:
      return "fp8_per_token_head";
  }
  return "unknown";
}

std::string_view order_name(TileOrder order) { return order == TileOrder::kVnni ? "vnni" : "token"; }

constexpr CacheDtype kCacheDtypes[] = {{"auto", KvDtype::kBf16},
                                       {"bfloat16", KvDtype::kBf16},
                                       {"fp8", KvDtype::kE4m3},
                                       {"fp8_e4m3", KvDtype::kE4m3},
                                       {"fp8_e5m2", KvDtype::kE5m2},
                                       {"int8_per_token_head", KvDtype::kI8Scaled},
                                       {"fp8_per_token_head", KvDtype::kE4m3Scaled}};

}  // namespace

std::span<const CacheDtype> cache_dtypes() { return kCacheDtypes; }

const CacheDtype* find_cache_dtype(std::string_view name) {
  for (const CacheDtype& row : kCacheDtypes)
    if (row.name == name) return &row;
  return nullptr;
}

// Every field takes part: two layouts with one id must be byte-compatible.
std::string KvLayout::id() const {
  return cat(dtype_name(dtype), "-l", layers, "-h", kv_heads, "-d", head_dim, "-b", block_tokens, "-", order_name(tile_order));
}

std::string_view model_part(std::string_view id) { return id.substr(0, id.find("-b")); }

}  // namespace baton::kv
