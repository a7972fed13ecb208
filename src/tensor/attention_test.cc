// Attention of every backend over caches of every format, against the reference; and what is stored against its definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/prng.h"
#include "tensor/ops.h"
#include "tensor/ref/ref.h"
#include "tensor/testing/backends.h"

namespace baton::tensor {
namespace {

using testing::Aligned;
using testing::backends;

constexpr KvFormat kFormats[] = {KvFormat::kBf16, KvFormat::kE4m3, KvFormat::kE5m2, KvFormat::kI8Scaled, KvFormat::kE4m3Scaled};

// A paged cache with NaN in every slot that no token fills, and blocks in random order.
struct Cache {
  Cache(const Ops& o, KvFormat f, int64_t count, int dims, int tokens_per_block, Prng& prng)
      : ops(o), format(f), tokens(count), head_dim(dims) {
    const auto blocks = static_cast<size_t>((count + tokens_per_block - 1) / tokens_per_block);
    const size_t tile =
        static_cast<size_t>(tokens_per_block) * (static_cast<size_t>(dims) * kv_element_bytes(f) + (kv_scaled(f) ? 4 : 0));
    pool.assign(blocks * 2 * tile + 64, std::byte{0xff});
    for (size_t i = 0; i < blocks; ++i) table.push_back(static_cast<int32_t>(i));
    for (size_t i = blocks; i-- > 1;) std::swap(table[i], table[prng.below(i + 1)]);
    view = {.pool = pool.data(),
            .block_stride = 2 * tile,
            .k_offset = 0,
            .v_offset = tile,
            .blocks = table.data(),
            .block_tokens = tokens_per_block,
            .head_dim = dims};
  }
  void store(int64_t token, bool value, const std::vector<float>& x) {
    const auto put = value ? ops.of(format).store_v : ops.of(format).store_k;
    const int step = kv_scaled(format) ? head_dim : 8;
    for (int d = 0; d < head_dim; d += step) put(view, token, d, x.data() + d, step);
    auto& known = value ? v : k;
    if (static_cast<int64_t>(known.size()) == token * head_dim) {
      for (int d = 0; d < head_dim; ++d) known.push_back(stored(token, value, d));
    }
  }
  // What lies in the cache, by ops.h's drawing and the definition of the format.
  double stored(int64_t token, bool value, int dim) const {
    const int64_t at = token % view.block_tokens;
    const std::byte* tile = value ? view.v_tile(token) : view.k_tile(token);
    int64_t place = at * head_dim + dim;
    if (ops.kv_pairs)
      place = value ? (at / 2 * head_dim + dim) * 2 + at % 2 : (int64_t{dim / 2} * view.block_tokens + at) * 2 + dim % 2;
    if (format == KvFormat::kBf16) {
      uint16_t bits = 0;
      std::memcpy(&bits, tile + place * 2, 2);
      return bf16_to_f32(bits);
    }
    float scale = 1;
    if (kv_scaled(format)) std::memcpy(&scale, tile + int64_t{view.block_tokens} * head_dim + at * 4, 4);
    return ref::kv_element(format, static_cast<uint8_t>(tile[place])) * scale;
  }
  void fill(int64_t until, Prng& prng) {  // tokens [filled, until)
    for (; filled < until; ++filled) {
      std::vector<float> key(head_dim), one(head_dim);
      const float size = prng.chance(0.1) ? 0.f : prng.chance(0.1) ? 0.01f : 1.f;
      for (float& f : key) f = static_cast<float>((prng.uniform() - 0.5) * 4) * size;
      for (float& f : one) f = static_cast<float>(prng.uniform() - 0.5) * size;
      store(filled, false, key);
      store(filled, true, one);
    }
  }
  const Ops& ops;
  KvFormat format;
  int64_t tokens, filled = 0;
  int head_dim;
  std::vector<std::byte> pool;
  std::vector<int32_t> table;
  std::vector<double> k, v;  // as stored
  KvView view;
};

// attend() of rows that see [begin, end), normalised.
std::vector<std::vector<float>> attended(const Cache& cache, const std::vector<std::vector<float>>& q,
                                         const std::vector<std::pair<int, int>>& sees, bool split, float soft_cap) {
  const int dims = cache.head_dim;
  const auto attend = cache.ops.of(cache.format).attend;
  Aligned<std::byte> scratch(attend_scratch_bytes());
  AttendRows rows;
  std::vector<std::vector<float>> o(q.size(), std::vector<float>(dims)), part(q.size(), std::vector<float>(dims));
  Partial all[kAttendRowsMax], one[kAttendRowsMax];
  int64_t spans = 0;
  for (size_t r = 0; r < q.size(); ++r) {
    rows.q[r] = q[r].data();
    rows.begin[r] = sees[r].first;
    rows.end[r] = sees[r].second;
    all[r].o = o[r].data();
    one[r].o = part[r].data();
    spans = std::max<int64_t>(spans, (sees[r].second + kSpanTokens - 1) / kSpanTokens);
  }
  rows.rows = static_cast<int>(q.size());
  rows.soft_cap = soft_cap;
  const float scale = 1 / std::sqrt(static_cast<float>(dims));
  if (!split) {
    attend(rows, cache.view, scale, 0, spans, all, scratch.values);
  } else {
    for (size_t r = 0; r < q.size(); ++r) all[r].sum = 0;
    for (int64_t s = 0; s < spans; ++s) {
      attend(rows, cache.view, scale, s, s + 1, one, scratch.values);
      for (size_t r = 0; r < q.size(); ++r) cache.ops.merge(all[r], one[r], dims);
    }
  }
  for (size_t r = 0; r < q.size(); ++r)
    for (float& f : o[r]) f /= all[r].sum;
  return o;
}

struct Queries {
  Queries(int rows, int dims, int tokens, Prng& prng) {
    for (int r = 0; r < rows; ++r) {
      q.emplace_back(dims);
      for (float& f : q.back()) f = static_cast<float>((prng.uniform() - 0.5) * 4);
      const int end = r == 0 ? 1 : 1 + static_cast<int>(prng.below(static_cast<uint64_t>(tokens)));
      sees.push_back({prng.chance(0.3) ? static_cast<int>(prng.below(static_cast<uint64_t>(end))) : 0, end});
    }
  }
  std::vector<std::vector<float>> q;
  std::vector<std::pair<int, int>> sees;
};

void expect_right(const Ops& ops, KvFormat format, int dims, int block_tokens, Prng& prng) {
  SCOPED_TRACE(cat(ops.name, " format ", static_cast<int>(format), " dims ", dims, " blocks of ", block_tokens));
  Cache cache(ops, format, 300, dims, block_tokens, prng);
  const float cap = block_tokens == 32 ? 1.5f : 0;  // scores reach about 4
  const Queries queries(kAttendRowsMax, dims, 300, prng);
  const auto& [q, sees] = queries;
  // Each row alone, as its own decode step would see the cache: later slots unwritten.
  std::vector<size_t> by_end(q.size());
  std::iota(by_end.begin(), by_end.end(), 0);
  std::sort(by_end.begin(), by_end.end(), [&](size_t a, size_t b) { return sees[a].second < sees[b].second; });
  std::vector<std::vector<float>> alone(q.size());
  for (const size_t r : by_end) {
    cache.fill(sees[r].second, prng);
    alone[r] = attended(cache, {q[r]}, {sees[r]}, prng.chance(0.5), cap)[0];
  }
  const auto together = attended(cache, q, sees, false, cap), split = attended(cache, q, sees, true, cap);
  for (size_t r = 0; r < q.size(); ++r) {
    const auto [begin, end] = sees[r];
    const float scale = 1 / std::sqrt(static_cast<float>(dims));
    std::vector<double> scaled(q[r].begin(), q[r].end());
    for (double& x : scaled) x = ops.bf16_products ? bf16_to_f32(f32_to_bf16(static_cast<float>(x) * scale)) : x * scale;
    const std::vector<double> want =
        ref::attend(scaled, std::span(cache.k).subspan(begin * dims, (end - begin) * dims),
                    std::span(cache.v).subspan(begin * dims, (end - begin) * dims), end - begin,
                    {.scale = 1, .cap = cap, .sink = {}});
    // Values reach 0.5; a weight rounded to bf16 is off by at most 2^-8 of itself.
    for (int d = 0; d < dims; ++d) ASSERT_NEAR(together[r][d], want[d], ops.bf16_products ? 0x1p-9 + 2e-5 : 2e-5) << "row " << r;
    ASSERT_EQ(std::memcmp(together[r].data(), alone[r].data(), dims * 4), 0) << "row " << r;
    ASSERT_EQ(std::memcmp(together[r].data(), split[r].data(), dims * 4), 0) << "row " << r;
  }
}

TEST(Attention, AgreesWithTheReferenceAndDoesNotDependOnTheTile) {
  Prng prng(7);
  for (const Ops* ops : backends()) {
    for (const KvFormat format : kFormats) {
      for (const int dims : {16, 64, 80, 128, 256}) {
        for (const int block_tokens : {16, 32, 128, 256}) {
          if (dims == 256 && block_tokens > 32) continue;
          expect_right(*ops, format, dims, block_tokens, prng);
        }
      }
    }
  }
}

// A byte an element changes what is stored, never what is done with it.
TEST(Attention, FloatCachesOfAByteGiveWhatABf16CacheOfTheSameValuesGives) {
  Prng prng(8);
  for (const Ops* ops : backends()) {
    for (const KvFormat format : {KvFormat::kE4m3, KvFormat::kE5m2}) {
      const int dims = 64, tokens = 261;
      Cache bytes(*ops, format, tokens, dims, 16, prng), wide(*ops, KvFormat::kBf16, tokens, dims, 16, prng);
      bytes.fill(tokens, prng);
      for (int64_t t = 0; t < tokens; ++t) {
        for (const bool value : {false, true}) {
          const auto from = (value ? bytes.v : bytes.k).begin() + t * dims;
          wide.store(t, value, std::vector<float>(from, from + dims));
        }
      }
      ASSERT_EQ(wide.k, bytes.k) << "bf16 holds every value";
      const Queries queries(7, dims, tokens, prng);
      EXPECT_EQ(attended(bytes, queries.q, queries.sees, false, 0), attended(wide, queries.q, queries.sees, false, 0))
          << ops->name << " " << static_cast<int>(format);
    }
  }
}

TEST(KvStore, BytesAreTheNearest) {
  Prng prng(9);
  std::vector<float> xs;
  for (int b = 0; b < 256; ++b) {  // every value, what lies half way to the next, and just beside that
    for (const KvFormat format : {KvFormat::kE4m3, KvFormat::kE5m2}) {
      const double a = ref::kv_element(format, static_cast<uint8_t>(b)),
                   next = ref::kv_element(format, static_cast<uint8_t>(b + 1));
      if (!std::isfinite(a)) continue;
      xs.push_back(static_cast<float>(a));
      if (!std::isfinite(next) || std::signbit(next) != std::signbit(a)) continue;
      const auto middle = static_cast<float>((a + next) / 2);
      for (const float f : {middle, std::nextafter(middle, 1e9f), std::nextafter(middle, -1e9f)}) xs.push_back(f);
    }
  }
  for (int i = 0; i < 2000; ++i) {
    const float f = __builtin_bit_cast(float, static_cast<uint32_t>(prng.next()));
    if (std::isfinite(f)) xs.push_back(f);
  }
  for (const float f : {447.f, 449.f, 463.f, 465.f, 1e30f, 60000.f, 3e38f, 1e-45f, 0.f}) xs.push_back(f), xs.push_back(-f);
  while (xs.size() % 16 != 0) xs.push_back(1);
  for (const Ops* ops : backends()) {
    for (const KvFormat format : {KvFormat::kE4m3, KvFormat::kE5m2}) {
      Cache cache(*ops, format, 1, 16, 16, prng);
      for (size_t at = 0; at < xs.size(); at += 16) {
        cache.store(0, at % 32 == 0, std::vector<float>(xs.begin() + at, xs.begin() + at + 16));
        for (int d = 0; d < 16; ++d) {
          const float x = xs[at + static_cast<size_t>(d)];
          const double want = ref::kv_element(format, ref::kv_nearest(format, x)), got = cache.stored(0, at % 32 == 0, d);
          ASSERT_EQ(got, want) << ops->name << " format " << static_cast<int>(format) << " of " << x;
          ASSERT_EQ(std::signbit(got), std::signbit(x)) << x;
        }
      }
    }
  }
}

TEST(KvStore, ScalesFitTheLargestOfAHead) {
  Prng prng(10);
  for (const Ops* ops : backends()) {
    for (const KvFormat format : {KvFormat::kI8Scaled, KvFormat::kE4m3Scaled}) {
      Cache cache(*ops, format, 40, 80, 16, prng);
      for (const float size : {1.f, 1e-3f, 1e-30f, 1e20f, 0.f, 1e-42f}) {
        std::vector<float> x(80);
        for (float& f : x) f = static_cast<float>((prng.uniform() - 0.5) * 2) * size;
        const float top = std::abs(*std::ranges::max_element(x, {}, [](float f) { return std::abs(f); }));
        cache.store(17, true, x);
        for (int d = 0; d < 80; ++d) {
          // Half a step of the format: of 127 steps; or of eighths between powers of two.
          const double step =
              format == KvFormat::kI8Scaled ? top / 127 / 2 : std::max(std::abs(x[d]) / 16.0, top / 448 * 0x1p-10);
          ASSERT_NEAR(cache.stored(17, true, d), x[d], step * 1.001 + 1e-36) << ops->name << " " << size;
        }
      }
    }
  }
}

// What is no number reaches whoever reads it, and nobody else; what no row sees may be anything.
TEST(KvStore, NaNReachesItsReaders) {
  Prng prng(11);
  for (const Ops* ops : backends()) {
    for (const KvFormat format : kFormats) {
      for (const float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                              -std::numeric_limits<float>::infinity()}) {
        for (const bool value : {false, true}) {
          if (format == KvFormat::kBf16 && !value && std::isinf(odd)) continue;  // such a score may be one that nobody weighs
          SCOPED_TRACE(cat(ops->name, " format ", static_cast<int>(format), " ", odd, value ? " in V" : " in K"));
          const int dims = 32;
          Cache cache(*ops, format, 200, dims, 16, prng);
          cache.fill(150, prng);
          std::vector<float> head(dims, 0.5f);
          head[5] = odd;
          cache.store(150, false, value ? std::vector<float>(dims, 1.f) : head);
          cache.store(150, true, value ? head : std::vector<float>(dims, 1.f));
          const std::vector<std::vector<float>> q = {std::vector<float>(dims, 0.25f)};
          const std::vector<float> before = attended(cache, q, {{0, 150}}, false, 0)[0];
          for (const float f : before) EXPECT_TRUE(std::isfinite(f));
          const std::vector<float> seen = attended(cache, q, {{0, 151}}, false, 0)[0];
          EXPECT_FALSE(std::isfinite(seen[5]));
          for (int d = 0; d < dims; ++d)  // a scale is its whole head's
            EXPECT_EQ(std::isfinite(seen[d]), value && !kv_scaled(format) && d != 5) << d;
        }
      }
    }
  }
}

}  // namespace
}  // namespace baton::tensor
