// Attention of one kv head, one thread: rows that share it (3: a decode step of SmolLM2, 24: a full tile) over a paged cache.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/prng.h"
#include "tensor/ops.h"

namespace baton::tensor {
namespace {

void attention(benchmark::State& state, const char* isa, KvFormat format = KvFormat::kBf16) {
  const auto ops = find_ops(isa);
  if (!ops) return state.SkipWithError("not on this CPU");
  constexpr int kDims = 64, kBlock = 16;
  const int rows = static_cast<int>(state.range(0)), tokens = static_cast<int>(state.range(1));
  const KvOps& cache = (*ops)->of(format);
  const size_t tile = kBlock * (kDims * kv_element_bytes(format) + (kv_scaled(format) ? 4 : 0));
  const size_t block_stride = 30 * 2 * 3 * tile;  // as in a model of 30 layers and 3 heads
  std::vector<std::byte> pool(block_stride * static_cast<size_t>(tokens / kBlock));
  std::vector<int32_t> table;
  for (int i = 0; i < tokens / kBlock; ++i) table.push_back(i);
  const KvView kv{.pool = pool.data(),
                  .block_stride = block_stride,
                  .k_offset = 0,
                  .v_offset = 3 * tile,
                  .blocks = table.data(),
                  .block_tokens = kBlock,
                  .head_dim = kDims};
  Prng prng(1);
  std::vector<float> x(kDims), q(static_cast<size_t>(rows * kDims)), o(q.size());
  for (int t = 0; t < tokens; ++t) {
    for (float& f : x) f = static_cast<float>(prng.uniform() - 0.5);
    cache.store_k(kv, t, 0, x.data(), kDims);
    cache.store_v(kv, t, 0, x.data(), kDims);
  }
  for (float& f : q) f = static_cast<float>(prng.uniform() - 0.5);
  std::vector<std::byte> scratch(attend_scratch_bytes());
  AttendRows in;
  Partial out[kAttendRowsMax];
  in.rows = rows;
  for (int r = 0; r < rows; ++r) {
    in.q[r] = q.data() + r * kDims;
    in.begin[r] = 0;
    in.end[r] = tokens;
    out[r].o = o.data() + r * kDims;
  }
  for (auto _ : state) cache.attend(in, kv, 0.125f, 0, (tokens + kSpanTokens - 1) / kSpanTokens, out, scratch.data());
  state.counters["GOPS"] = benchmark::Counter(4.0 * kDims * rows * tokens, benchmark::Counter::kIsIterationInvariantRate,
                                              benchmark::Counter::OneK::kIs1000);
  state.counters["bytes"] =
      benchmark::Counter(2.0 * static_cast<double>(tile) / kBlock * tokens, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::OneK::kIs1000);
}

BENCHMARK_CAPTURE(attention, avx512, "avx512")->ArgsProduct({{1, 3, 8, 16, 24}, {128, 1024, 8192}});
BENCHMARK_CAPTURE(attention, avx2, "avx2")->ArgsProduct({{3, 24}, {1024, 8192}});
BENCHMARK_CAPTURE(attention, plain, "plain")->ArgsProduct({{3, 24}, {1024}});
BENCHMARK_CAPTURE(attention, avx512_fp8, "avx512", KvFormat::kE4m3)->ArgsProduct({{3, 24}, {1024, 8192}});
BENCHMARK_CAPTURE(attention, avx512_int8_per_token_head, "avx512", KvFormat::kI8Scaled)->ArgsProduct({{3, 24}, {1024, 8192}});
BENCHMARK_CAPTURE(attention, avx2_fp8, "avx2", KvFormat::kE4m3)->ArgsProduct({{3, 24}, {1024, 8192}});
BENCHMARK_CAPTURE(attention, avx2_fp8_e5m2, "avx2", KvFormat::kE5m2)->ArgsProduct({{3, 24}, {1024}});
BENCHMARK_CAPTURE(attention, avx2_int8_per_token_head, "avx2", KvFormat::kI8Scaled)->ArgsProduct({{3, 24}, {1024, 8192}});

}  // namespace
}  // namespace baton::tensor
