#pragma once
// KvLayout: where every K and V element of a block lies. Block-major: one block holds all layers, heads outermost inside a layer
// (HND), so a block is one contiguous copy and a head range of a layer is contiguous (unequal tensor parallelism).
//
//   pool:   [block 0][block 1]...                       each block_bytes(), 64-byte aligned
//   block:  [layer 0: K heads | V heads][layer 1: ...]
//   head:   tile of block_tokens x head_dim elements; its inner order is the backend's, named by tile_order. Where the dtype has
//           scales, f32 [block_tokens] follow: they move with their head and their block
//
// Peers with equal id() copy bytes; others of one model_part() go through the resharder (reshard.h). Pure values.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace baton::kv {

// From kE4m3 on an element is a byte. The last two have a scale for each token and head: value = element * scale.
enum class KvDtype : uint8_t { kBf16 = 0, kF16 = 1, kF32 = 2, kE4m3 = 3, kE5m2 = 4, kI8Scaled = 5, kE4m3Scaled = 6 };
inline constexpr int kKvDtypes = 7;
constexpr size_t dtype_bytes(KvDtype d) { return d == KvDtype::kF32 ? 4 : d < KvDtype::kE4m3 ? 2 : 1; }
constexpr size_t scale_bytes(KvDtype d) { return d < KvDtype::kI8Scaled ? 0 : 4; }  // of a token and head

// The caches that our kernels keep, by the names of vLLM's --kv-cache-dtype; auto as it is of checkpoints that do not ask for another.
struct CacheDtype {
  std::string_view name;
  KvDtype dtype;
};
std::span<const CacheDtype> cache_dtypes();
const CacheDtype* find_cache_dtype(std::string_view name);  // nullptr: not one of them

// Inner order of one (layer, K or V, head) tile.
enum class TileOrder : uint8_t {
  kTokenMajor = 0,  // [token][dim], both K and V: the neutral order
  kVnni = 1,        // K [dim/2][token][2], V [token/2][dim][2]: pairs for bf16 dot products
};

struct KvLayout {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_tokens = 16;
  KvDtype dtype = KvDtype::kBf16;
  TileOrder tile_order = TileOrder::kTokenMajor;

  size_t element_bytes() const { return static_cast<size_t>(block_tokens) * head_dim * dtype_bytes(dtype); }  // of a tile
  size_t tile_bytes() const { return element_bytes() + static_cast<size_t>(block_tokens) * scale_bytes(dtype); }
  size_t layer_bytes() const { return 2 * static_cast<size_t>(kv_heads) * tile_bytes(); }
  size_t block_bytes() const { return static_cast<size_t>(layers) * layer_bytes(); }
  size_t k_offset(int layer, int head) const { return layer * layer_bytes() + head * tile_bytes(); }
  size_t v_offset(int layer, int head) const { return k_offset(layer, head) + kv_heads * tile_bytes(); }
  size_t token_bytes() const { return block_bytes() / static_cast<size_t>(block_tokens); }
  std::string id() const;  // "bf16-l30-h3-d64-b16-vnni": equal ids mean byte-compatible blocks
  bool operator==(const KvLayout&) const = default;
};

// The part of an id() that two peers must share: what is left may differ, the resharder sees to it. "bf16-l30-h3-d64".
std::string_view model_part(std::string_view layout_id);

}  // namespace baton::kv
