#pragma once
// Ops: what the transformer asks of a backend. One table of plain functions per instruction set, chosen by cpuid; ref/ judges
// them all. Guarantee (batch invariance): an output row depends on its own input row and the weights alone, bit for bit: not on
// how many rows come with it, on its place among them, or on which thread computes which panel. Every reduction runs in one fixed
// order. All functions are pure over their arguments, allocate nothing and may run on any thread at once over disjoint outputs.
// Shapes: rows are contiguous f32 unless said otherwise; strides count elements.
#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "tensor/activations.h"
#include "tensor/panels.h"

namespace baton::tensor {

// The tokens an attention tile may see are read in spans of this many: each span is reduced by itself and the spans are merged in
// order, so a query gives the same bits whether its spans ran on one thread or on many. 128: a span's scores of 32 rows lie in
// L1.
inline constexpr int kSpanTokens = 128;
inline constexpr int kAttendRowsMax = 24;  // accumulators of a tile fit 32 registers
inline constexpr int kHeadDimMax = 256;

// The gated activations of feed-forward layers. Source: arXiv 2002.05202; kSwigluClamped: gpt-oss's model card.
enum class GatedUnit : uint8_t {
  kSilu,           // g / (1 + e^-g) * u
  kGeluTanh,       // g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3))) * u
  kSwigluClamped,  // g' / (1 + e^(-1.702 g')) * (u' + 1), g' = min(g, 7), u' = u within [-7, 7]
};
inline constexpr int kGatedUnits = 3;

// What K and V are in the cache. From kE4m3 on an element is a byte; the last two have an f32 scale for each token, behind the
// tile's elements. Stored to the nearest, ties to even. Without a scale, what is too large becomes the largest number (448,
// 57344), and what is not finite becomes NaN; with one, a head that holds such a value has the scale NaN. NaN reaches whoever
// reads it.
enum class KvFormat : uint8_t { kBf16, kE4m3, kE5m2, kI8Scaled, kE4m3Scaled };
inline constexpr int kKvFormats = 5;
constexpr size_t kv_element_bytes(KvFormat f) { return f == KvFormat::kBf16 ? 2 : 1; }
constexpr bool kv_scaled(KvFormat f) { return f >= KvFormat::kI8Scaled; }

// One kv head's view of a sequence's paged cache: tiles of block_tokens x head_dim elements, in the order Ops::kv_pairs names,
// and their scales if any. 8-bit formats want block_tokens to be a multiple of 16.
struct KvView {
  std::byte* pool = nullptr;
  size_t block_stride = 0, k_offset = 0, v_offset = 0;  // in bytes
  const int32_t* blocks = nullptr;                      // block table of the sequence
  int block_tokens = 0, head_dim = 0;

  std::byte* k_tile(int64_t token) const {
    return pool + static_cast<size_t>(blocks[token / block_tokens]) * block_stride + k_offset;
  }
  std::byte* v_tile(int64_t token) const {
    return pool + static_cast<size_t>(blocks[token / block_tokens]) * block_stride + v_offset;
  }
};

// Query rows that share a kv head. Row r sees tokens [begin[r], end[r]).
struct AttendRows {
  int rows = 0;
  float soft_cap = 0;      // above 0: a score s (scaled) counts as soft_cap * tanh(s / soft_cap)
  Ahead* ahead = nullptr;  // what kernels may ask memory for meanwhile; null: nothing
  const float* q[kAttendRowsMax];
  int32_t begin[kAttendRowsMax], end[kAttendRowsMax];
};

// Softmax state of one row over some tokens: maximum, sum of exp(score - maximum), and weighted sum o[head_dim] of V. sum 0: saw
// no token.
struct Partial {
  float max = 0, sum = 0;
  float* o = nullptr;
};

// Of a row's weights, those that are at least so much.
struct Mass {
  double sum = 0;
  int64_t count = 0;
};

// A cache of one format.
struct KvOps {
  // Stores dims [dim, dim + n) of one token's K (or V) head; of formats with scales only the whole head at once.
  void (*store_k)(const KvView& kv, int64_t token, int dim, const float* x, int n);
  void (*store_v)(const KvView& kv, int64_t token, int dim, const float* x, int n);
  // out[r] = softmax state over the tokens of spans [span_begin, span_end) that row r sees, merged in order. scratch:
  // attend_scratch_bytes(), 64-byte aligned. Slots of the cache that no row sees are never multiplied: they may hold anything.
  // Whatever the format, the arithmetic is that of a bf16 cache holding the same elements, bit for bit.
  void (*attend)(const AttendRows& rows, const KvView& kv, float scale, int64_t span_begin, int64_t span_end, Partial* out,
                 void* scratch);
};

struct Ops {
  std::string_view name;
  bool bf16_products =
      false;  // attention multiplies bf16: scaled queries and softmax weights (relative to a span's largest) are rounded to it
  bool asks_ahead = false;  // its kernels use Ahead
  bool kv_pairs = false;    // false: K, V [token][dim]; true: K [dim/2][token][2], V [token/2][dim][2]

  // out[r * stride + n] (+)= W[n] . x[r] for rows r < m and outputs n of panels [begin, end); add: accumulate onto out.
  void (*gemm)(const Panels& w, int64_t begin, int64_t end, const Activations& x, int64_t m, float* out, int64_t stride,
               bool add);
  // Inputs [first, first + n) of row r of `out`, and zeros up to a multiple of 32, from n values x in the forms asked for (a set
  // of ActForm). first: a multiple of 32.
  void (*prepare)(const float* x, int64_t first, int64_t n, unsigned forms, const Activations& out, int64_t r);
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  // gate = f(gate) * up for each GatedUnit, by its number.
  void (*gate_mul[kGatedUnits])(float* gate, const float* up, int64_t n);
  void (*soft_cap)(float* x, int64_t n, float cap);  // x = cap * tanh(x / cap)

  // Softmax weights of a row of logits, none of them above `top`, and their sum: out[i] = e^((x[i] - top) * scale), exactly 1 for
  // top, 0 below e^-87. out: nullptr for the sum alone.
  double (*weigh)(const float* x, int64_t n, float top, float scale, float* out);
  Mass (*mass)(const float* w, int64_t n, float least);  // of the weights >= least, which is above 0

  KvOps cache[kKvFormats];  // by KvFormat
  // into = merge(into, next): the one way partial states are joined.
  void (*merge)(Partial& into, const Partial& next, int head_dim);

  const KvOps& of(KvFormat f) const { return cache[static_cast<size_t>(f)]; }
};

size_t attend_scratch_bytes();

// isa: "auto", "avx512", "avx2" or "plain". An instruction set this CPU lacks is an error that names it.
Result<const Ops*> find_ops(std::string_view isa);

unsigned form_for(PanelKind kind);  // the ActForm that panels of this kind multiply

}  // namespace baton::tensor
