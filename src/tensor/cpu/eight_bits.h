#pragma once
// Caches of one byte an element, over the kernels of a bf16 one. bf16 holds every E4M3, E5M2 and I8 value, so a span's keys (then
// its values) are widened once, in the order they lie in, and the bf16 kernel reads them from the core's own cache: all rows
// share one widening, and results are those of a bf16 cache with the same elements, bit for bit. A token's scale belongs to all
// of its dims, so it is multiplied onto the scores and onto the weights, never onto the elements. Included only by the .cc files
// of this folder. Source: OCP FP8 1.0 for the formats; vLLM's per_token_head caches for the scales.
#include "tensor/cpu/attend.h"
#include "tensor/panels.h"

namespace baton::tensor {
namespace {

template <class Tiles>
inline constexpr KvOps kv_ops = {.store_k = Tiles::store_k, .store_v = Tiles::store_v, .attend = attend<Tiles>};

using Vi16 = int16_t __attribute__((vector_size(kLanes * 2)));
using Vu8 = uint8_t __attribute__((vector_size(kLanes * 2)));

// Nearest byte of a float format, ties to even; beyond kTop the largest finite one.
template <int kFraction, int kBias>
inline uint8_t to_fp8(float x, float top) {
  constexpr int kShift = 23 - kFraction;
  const auto bits = __builtin_bit_cast(uint32_t, x);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  float size = __builtin_bit_cast(float, bits & 0x7fffffff);
  if (!(size <= 3.4e38f)) return sign | 0x7f;
  if (size > top) size = top;
  constexpr float kNormal = __builtin_bit_cast(float, static_cast<uint32_t>(128 - kBias) << 23);
  if (size < kNormal) {  // in steps of the smallest: the sum's last bit is one
    constexpr auto kStep = static_cast<uint32_t>(128 - kBias - kFraction + 23) << 23;
    return sign | static_cast<uint8_t>(__builtin_bit_cast(uint32_t, size + __builtin_bit_cast(float, kStep)) - kStep);
  }
  const auto from = __builtin_bit_cast(uint32_t, size);
  const uint32_t rounded = (from + (1u << (kShift - 1)) - 1 + (from >> kShift & 1)) >> kShift;
  return sign | static_cast<uint8_t>(rounded - (static_cast<uint32_t>(127 - kBias) << kFraction));
}

// A format: widen() makes pairs of bytes into two vectors of values / kUnit that bf16 holds; narrow() is the way back.
struct E4m3 {
  static constexpr bool kScaled = false, kNanIsANumber = true;  // to widen(): it must be found and put right
  static constexpr float kUnit = kE4m3Scale, kTop = 448;
  static void widen(Vu16 two, Vf& first, Vf& second) {
    const auto x = __builtin_bit_cast(Vi16, two);
    const auto keep = static_cast<int16_t>(0xbf80);  // the sign came into the bit below it, too
    first = from_f16(__builtin_bit_cast(Vu16, ((x << 8) >> 1) & keep));
    second = from_f16(__builtin_bit_cast(Vu16, (x >> 1) & keep));
  }
  static uint8_t narrow(float x) { return to_fp8<3, 7>(x, kTop); }
};
struct E5m2 {  // the upper byte of a half
  static constexpr bool kScaled = false, kNanIsANumber = false;
  static constexpr float kUnit = 1, kTop = 57344;
  static void widen(Vu16 two, Vf& first, Vf& second) {
    first = from_f16(static_cast<Vu16>(two << 8));
    second = from_f16(static_cast<Vu16>(two & static_cast<uint16_t>(0xff00)));
  }
  static uint8_t narrow(float x) { return to_fp8<2, 15>(x, kTop); }
};
struct E4m3Scaled : E4m3 {
  static constexpr bool kScaled = true;
};
struct I8Scaled {
  static constexpr bool kScaled = true, kNanIsANumber = false;
  static constexpr float kUnit = 1, kTop = 127;
  static void widen(Vu16 two, Vf& first, Vf& second) {
    const auto x = __builtin_bit_cast(Vi16, two);
    first = __builtin_convertvector(__builtin_convertvector((x << 8) >> 8, Vi), Vf);
    second = __builtin_convertvector(__builtin_convertvector(x >> 8, Vi), Vf);
  }
  static uint8_t narrow(float x) {  // the integer stands in the low bits of the mantissa
    return static_cast<uint8_t>(__builtin_bit_cast(uint32_t, x + 12582912.f));
  }
};

template <class Tiles, class Format>
struct EightBits {
  static void to_factors(float* query, int64_t n) { Tiles::to_factors(query, n); }
  static void scores(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, int64_t last, const float* q, float* s,
                     uint16_t* room) {
    const int64_t n = t1 - t0;
    widen([&](auto f) { for_keys(kv, t0, t1, last, f); }, room);
    Tiles::scores(rows, span_of(kv, room), 0, n, n, q, s, room);
    multiply(rows, n, s, factors(kv, t0, t1, &KvView::k_tile, room));
  }
  static void weigh(const AttendRows& rows, const KvView& kv, int64_t t0, int64_t t1, float* p, float* o, uint16_t* room) {
    const int64_t n = t1 - t0;
    multiply(rows, n, p, factors(kv, t0, t1, &KvView::v_tile, room));
    widen([&](auto f) { for_values(kv, t0, t1, f); }, room);
    Tiles::weigh(rows, span_of(kv, room), 0, n, p, o, room);
  }

  static void store_k(const KvView& kv, int64_t token, int dim, const float* x, int n) {
    const int64_t at = token % kv.block_tokens;
    store(kv, kv.k_tile(token), at, x, n, [&](int i) { return Tiles::key_place(kv, at, dim + i); });
  }
  static void store_v(const KvView& kv, int64_t token, int dim, const float* x, int n) {
    const int64_t at = token % kv.block_tokens;
    store(kv, kv.v_tile(token), at, x, n, [&](int i) { return Tiles::value_place(kv, at, dim + i); });
  }

 private:
  static std::byte* scales(const KvView& kv, std::byte* tile) { return tile + int64_t{kv.block_tokens} * kv.head_dim; }

  template <class Place>
  static void store(const KvView& kv, std::byte* tile, int64_t at, const float* x, int n, Place place) {
    float inverse = 1;
    if constexpr (Format::kScaled) {
      float top = 0, zero = 0;  // zero is NaN if anything is not finite
      for (int i = 0; i < n; ++i) {
        const float size = x[i] < 0 ? -x[i] : x[i];
        top = size > top ? size : top;
        zero += size * 0;
      }
      const float scale = top / Format::kTop + zero;
      inverse = top > 1e-36f ? Format::kTop / top : 0;  // below it the quotient would be infinite
      __builtin_memcpy(scales(kv, tile) + at * 4, &scale, 4);
    }
    for (int i = 0; i < n; ++i) tile[place(i)] = static_cast<std::byte>(Format::narrow(x[i] * inverse));
  }

  // f(block's first token of [t0, t1), tokens of the span before it, tokens to take: up to a whole group of 16).
  template <class F>
  static void for_blocks(const KvView& kv, int64_t t0, int64_t t1, F f) {
    for (int64_t t = t0; t < t1;) {
      const int64_t n = min_i((t1 - t + 15) / 16 * 16, kv.block_tokens - t % kv.block_tokens);
      f(t, t - t0, n);
      t += n;
    }
  }
  // f(bytes, place in the widened tile, how many: a multiple of 32) for runs that lie together in both. One head's tiles are
  // islands of memory that no hardware prefetcher follows: ask for the keys of the next block and for the values of this one.
  template <class F>
  static void for_keys(const KvView& kv, int64_t t0, int64_t t1, int64_t last, F f) {
    for_blocks(kv, t0, t1, [&](int64_t t, int64_t before, int64_t n) {
      const std::byte *tile = kv.k_tile(t), *values = kv.v_tile(t);
      const std::byte* next = t + n < last ? kv.k_tile(t + n) : tile;
      const int64_t in_block = t % kv.block_tokens;
      if constexpr (Tiles::kByToken) {
        f(tile + in_block * kv.head_dim, before * kv.head_dim, n * kv.head_dim);
      } else {
        for (int64_t d = 0; d < kv.head_dim; d += 2) {
          __builtin_prefetch(next + d * kv.block_tokens);
          __builtin_prefetch(values + d * kv.block_tokens);
          f(tile + d * kv.block_tokens + in_block * 2, d * kSpanTokens + before * 2, n * 2);
        }
      }
    });
  }
  template <class F>
  static void for_values(const KvView& kv, int64_t t0, int64_t t1, F f) {
    for_blocks(kv, t0, t1, [&](int64_t t, int64_t before, int64_t n) {
      f(kv.v_tile(t) + t % kv.block_tokens * kv.head_dim, before * kv.head_dim, n * kv.head_dim);
    });
  }

  template <class Runs>
  static void widen(Runs runs, uint16_t* to) {
    Vu8 top{};
    runs([&](const std::byte* from, int64_t at, int64_t n) {
      for (int64_t i = 0; i < n; i += 2 * kLanes) {
        Vu16 two;
        __builtin_memcpy(&two, from + i, sizeof two);
        Vf first, second;
        Format::widen(two, first, second);
        const Vi pairs = (__builtin_bit_cast(Vi, first) >> 16 & 0xffff) | __builtin_bit_cast(Vi, second);  // nothing is lost
        __builtin_memcpy(to + at + i, &pairs, sizeof pairs);
        if constexpr (Format::kNanIsANumber) {
          const auto bytes = __builtin_bit_cast(Vu8, two);
          top = __builtin_elementwise_max(top, bytes + bytes);  // without signs
        }
      }
    });
    if constexpr (Format::kNanIsANumber) {
      if (__builtin_reduce_max(top) < 0xfe) return;
      runs([&](const std::byte* from, int64_t at, int64_t n) {
        for (int64_t i = 0; i < n; ++i)
          if ((from[i] & std::byte{0x7f}) == std::byte{0x7f}) to[at + i] = 0x7fc0;
      });
    }
  }
  // The widened tile: one block.
  static KvView span_of(const KvView& kv, uint16_t* room) {
    static constexpr int32_t kFirst = 0;
    return {.pool = reinterpret_cast<std::byte*>(room), .blocks = &kFirst, .block_tokens = kSpanTokens, .head_dim = kv.head_dim};
  }

  // What a token's scores or weights are multiplied with; lies in `room`, which is free then. Null: with 1.
  static const float* factors(const KvView& kv, int64_t t0, int64_t t1, std::byte* (KvView::*tile)(int64_t) const,
                              uint16_t* room) {
    if constexpr (!Format::kScaled && Format::kUnit == 1) return nullptr;
    auto* const out = reinterpret_cast<float*>(room);
    for_blocks(kv, t0, t1, [&](int64_t t, int64_t before, int64_t n) {
      if constexpr (Format::kScaled)
        __builtin_memcpy(out + before, scales(kv, (kv.*tile)(t)) + t % kv.block_tokens * 4, static_cast<size_t>(n) * 4);
      for (int64_t i = before; i < before + n; ++i) out[i] = (Format::kScaled ? out[i] : 1.f) * Format::kUnit;
    });
    return out;
  }
  // Weights of tokens beyond n are zero and stay so; scores there mean nothing.
  static void multiply(const AttendRows& rows, int64_t n, float* s, const float* factor) {
    if (factor == nullptr) return;
    for (int r = 0; r < rows.rows; ++r)
      for (int64_t i = 0; i < n; i += kLanes) store_product(s + r * kScoreStride + i, factor + i, n - i);
  }
  static void store_product(float* s, const float* factor, int64_t left) {
    if (left >= kLanes)
      tensor::store(s, load(s) * load(factor));
    else
      store_some(s, load_some(s, left) * load_some(factor, left), left);
  }
};

}  // namespace
}  // namespace baton::tensor
