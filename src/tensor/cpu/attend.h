#pragma once
// Attention, written once over lanes.h's vectors and a cache's order of tiles (token_major.h, pairs.h): softmax of a span's
// scores, and how spans are joined. Included only by the .cc files of this folder.
#include "tensor/cpu/lanes.h"

namespace baton::tensor {
namespace {

// Strides of a tile's queries and scores: constants, so that rows are reached by displacement; odd numbers of cache lines, so
// that rows fall into different sets of the cache.
inline constexpr int kQueryStride = kHeadDimMax + 16;
inline constexpr int kScoreStride = kSpanTokens + 16;

// What the sums of two partial states are multiplied with when they are joined: e^(their maximum - the larger one), exactly 1 for
// the larger.
inline void merge_factors(Vf into, Vf next, Vf& a, Vf& b) {
  const Vf top = into > next ? into : next;
  a = exp(into - top);
  b = exp(next - top);
}
inline void merge_with(Partial& into, const Partial& next, int head_dim, float a, float b) {
  if (next.sum == 0) return;
  if (into.sum == 0) {
    into.max = next.max;
    into.sum = next.sum;
    __builtin_memcpy(into.o, next.o, static_cast<size_t>(head_dim) * 4);
    return;
  }
  into.max = into.max > next.max ? into.max : next.max;
  into.sum = into.sum * a + next.sum * b;
  for (int i = 0; i < head_dim; i += kLanes) {
    const int left = head_dim - i;
    if (left >= kLanes)
      store(into.o + i, fma(load(into.o + i), splat(a), load(next.o + i) * b));
    else
      store_some(into.o + i, fma(load_some(into.o + i, left), splat(a), load_some(next.o + i, left) * b), left);
  }
}
inline void merge(Partial& into, const Partial& next, int head_dim) {
  Vf a, b;
  merge_factors(splat(into.max), splat(next.max), a, b);
  merge_with(into, next, head_dim, a[0], b[0]);
}
// The same for many, whose factors are found together.
inline void merge_rows(Partial* into, const Partial* next, int rows, int head_dim) {
  for (int first = 0; first < rows; first += kLanes) {
    const int n = static_cast<int>(min_i(rows - first, kLanes));
    float ours[kLanes] = {}, theirs[kLanes] = {};
    for (int r = 0; r < n; ++r) {
      ours[r] = into[first + r].max;
      theirs[r] = next[first + r].max;
    }
    Vf a, b;
    merge_factors(load(ours), load(theirs), a, b);
    store(ours, a);
    store(theirs, b);
    for (int r = 0; r < n; ++r) merge_with(into[first + r], next[first + r], head_dim, ours[r], theirs[r]);
  }
}

// Scores of R rows over a span become weights exp(score - max), zero where seen() hides them, and out their maxima and sums. Rows
// are taken several at a time because each is one chain of waiting.
template <int R, class Seen>
inline void softmax_seen(float* s, int64_t n, Partial* out, Seen seen) {
  Vf top[R], total[R] = {};
  for (int r = 0; r < R; ++r) top[r] = splat(-__builtin_inff());
  for (int64_t i = 0; i < n; i += kLanes)
#pragma clang loop unroll(full)
    for (int r = 0; r < R; ++r) top[r] = max(top[r], seen(i, load(s + r * kScoreStride + i), splat(-__builtin_inff())));
#pragma clang loop unroll(full)
  for (int r = 0; r < R; ++r) out[r].max = max_of(top[r]);
  for (int64_t i = 0; i < n; i += kLanes)
#pragma clang loop unroll(full)
    for (int r = 0; r < R; ++r) {
      const Vf p = seen(i, exp_weight(load(s + r * kScoreStride + i) - out[r].max), Vf{});
      store(s + r * kScoreStride + i, p);
      total[r] += p;
    }
#pragma clang loop unroll(full)
  for (int r = 0; r < R; ++r) out[r].sum = sum(total[r]);
}
template <int R>
inline void softmax_rows(float* s, int64_t n, Partial* out) {
  softmax_seen<R>(s, n, out, [](int64_t, Vf v, Vf) { return v; });
}
inline void softmax_span(float* s, int64_t lo, int64_t hi, int64_t n, Partial& out) {
  if (lo == 0 && hi >= n) return softmax_rows<1>(s, n, &out);
  Vi lane{};
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  softmax_seen<1>(s, n, &out, [&](int64_t i, Vf v, Vf hidden) {
    const Vi at = lane + static_cast<int32_t>(i);
    return ((at >= static_cast<int32_t>(lo)) & (at < static_cast<int32_t>(hi))) ? v : hidden;
  });
}
inline void softmax_capped(float* s, int64_t lo, int64_t hi, int64_t n, float cap, Partial& out) {
  for (int64_t i = 0; i < n; i += kLanes) store(s + i, capped(load(s + i), cap));
  softmax_span(s, lo, hi, n, out);
}

// Scores of the span from token t0 on, padded to n, become weights; out: the rows' maxima and sums.
inline void softmax(const AttendRows& rows, int64_t t0, int64_t n, float* scores, Partial* out) {
  constexpr int kTogether = kLanes == 16 ? 4 : 2;  // as registers allow
  for (int r = 0; r < rows.rows;) {
    float* const s = scores + r * kScoreStride;
    const auto sees_all = [&](int row) { return rows.begin[row] <= t0 && rows.end[row] - t0 >= n; };
    int all = 0;
    while (rows.soft_cap <= 0 && all < kTogether && r + all < rows.rows && sees_all(r + all)) ++all;
    if (all == kTogether) {
      softmax_rows<kTogether>(s, n, out + r);
      r += kTogether;
      continue;
    }
    const int64_t lo = max_i(rows.begin[r] - t0, 0), hi = min_i(rows.end[r] - t0, kSpanTokens);
    out[r] = {};
    if (lo < hi && rows.soft_cap > 0)
      softmax_capped(s, lo, hi, n, rows.soft_cap, out[r]);
    else if (lo < hi)
      softmax_span(s, lo, hi, n, out[r]);
    else
      __builtin_memset(s, 0, static_cast<size_t>(n) * 4);
    ++r;
  }
}

// Tiles is the order of the cache: scores() fills scores[row][token - t0] for tokens [t0, t1) and may write anything for the
// tokens that fill up a group of 16 (last: tokens beyond t1 that a later span reads, for prefetching); weigh() computes o[row] =
// sum of weight * V over tokens [t0, t1), and may spoil the weights. Queries come to scores() as to_factors() left them. memory:
// queries, scores, the span's o [24][head_dim], and room for a bf16 tile of a span.
template <class Tiles>
inline void attend(const AttendRows& rows, const KvView& kv, float scale, int64_t span_begin, int64_t span_end, Partial* out,
                   void* memory) {
  auto* const q = static_cast<float*>(memory);
  float* const scores = q + kAttendRowsMax * kQueryStride;
  float* const span_o = scores + kAttendRowsMax * kScoreStride;
  auto* const room = reinterpret_cast<uint16_t*>(span_o + kAttendRowsMax * kHeadDimMax);
  int64_t first = rows.begin[0], last = rows.end[0];
  for (int r = 0; r < rows.rows; ++r) {
    first = min_i(first, rows.begin[r]);
    last = max_i(last, rows.end[r]);
    out[r].sum = 0;
    for (int i = 0; i < kv.head_dim; ++i) q[r * kQueryStride + i] = rows.q[r][i] * scale;
    Tiles::to_factors(q + r * kQueryStride, kv.head_dim);
  }
  for (int64_t span = span_begin; span < span_end; ++span) {
    const int64_t t0 = span * kSpanTokens, t1 = min_i(t0 + kSpanTokens, last);
    if (t1 <= t0 || t0 + kSpanTokens <= first) continue;
    const int64_t padded = (t1 - t0 + 15) / 16 * 16;
    Tiles::scores(rows, kv, t0, t1, last, q, scores, room);
    Partial part[kAttendRowsMax];
    softmax(rows, t0, padded, scores, part);
    for (int r = 0; r < rows.rows; ++r) part[r].o = span_o + r * kv.head_dim;
    Tiles::weigh(rows, kv, t0, t1, scores, span_o, room);
    merge_rows(out, part, rows.rows, kv.head_dim);
  }
}

inline uint16_t* bf16_of(std::byte* tile) { return reinterpret_cast<uint16_t*>(tile); }

}  // namespace
}  // namespace baton::tensor
