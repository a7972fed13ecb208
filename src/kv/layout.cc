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
  }
  return "unknown";
}

std::string_view order_name(TileOrder order) { return order == TileOrder::kVnni ? "vnni" : "token"; }

}  // namespace

// Every field takes part: two layouts with one id must be byte-compatible.
std::string KvLayout::id() const {
  return cat(dtype_name(dtype), "-l", layers, "-h", kv_heads, "-d", head_dim, "-b", block_tokens, "-", order_name(tile_order));
}

std::string_view model_part(std::string_view id) { return id.substr(0, id.find("-b")); }

}  // namespace baton::kv
