// Linear layers of one thread: tokens and operations a second of one 576 x 1536 layer (SmolLM2's gate), per kind, backend and
// rows.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/prng.h"
#include "tensor/ops.h"

namespace baton::tensor {
namespace {

void linear(benchmark::State& state, const char* isa, Format format, int64_t rows, int64_t cols) {
  const auto ops = find_ops(isa);
  if (!ops) return state.SkipWithError("not on this CPU");
  const int64_t m = state.range(0);
  Prng prng(1);
  Matrix w{.format = format, .rows = rows, .cols = cols, .data = nullptr};
  std::vector<std::byte> file(static_cast<size_t>(rows) * w.row_bytes());
  for (std::byte& b : file)
    b = static_cast<std::byte>(0x30 + prng.below(12));  // ordinary halves and floats whatever the field: no denormals
  w.data = file.data();
  const std::vector<float> scale(static_cast<size_t>(rows), 0.01f);
  if (scales_apart(format))
    w.scales = {.data = reinterpret_cast<const std::byte*>(scale.data()), .cols_per = cols, .row_step = 1};
  Panels panels = panels_for(w);
  std::vector<std::byte> packed(panels.bytes() + 64);
  std::byte* const base = packed.data() + (64 - reinterpret_cast<uintptr_t>(packed.data()) % 64);
  pack_panels(w, {}, panels, 0, panels.panels(), base);
  panels.data = base;
  std::vector<float> x(static_cast<size_t>(cols)), out(static_cast<size_t>(m * rows));
  std::vector<Quantised> q8(static_cast<size_t>((m + 3) / 4 * cols / 32));
  std::vector<uint16_t> bf16(static_cast<size_t>(m * row_stride(cols)));
  std::vector<float> rounded(bf16.size()), f32(bf16.size());
  const Activations act{.cols = cols, .q8 = q8.data(), .bf16 = bf16.data(), .rounded = rounded.data(), .f32 = f32.data()};
  for (int64_t r = 0; r < m; ++r) {
    for (float& v : x) v = static_cast<float>(prng.uniform() - 0.5);
    (*ops)->prepare(x.data(), 0, cols, kI8 | kBf16Form | kF32Form, act, r);
  }
  for (auto _ : state) (*ops)->gemm(panels, 0, panels.panels(), act, m, out.data(), rows, false);
  state.counters["GOPS"] = benchmark::Counter(2.0 * static_cast<double>(rows * cols * m),
                                              benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::OneK::kIs1000);
  state.counters["bytes"] = benchmark::Counter(static_cast<double>(panels.bytes()), benchmark::Counter::kIsIterationInvariantRate,
                                               benchmark::Counter::OneK::kIs1000);
}

const auto kRegistered = [] {
  const std::pair<const char*, Format> formats[] = {{"q4_1", Format::kQ4_1}, {"q4_0", Format::kQ4_0}, {"q8_0", Format::kQ8_0},
                                                    {"q6_k", Format::kQ6_K}, {"bf16", Format::kBf16}, {"f16", Format::kF16},
                                                    {"f32", Format::kF32},   {"fp8", Format::kE4m3},  {"int8", Format::kI8}};
  for (const char* isa : {"avx512", "avx2", "plain"})
    for (const auto& [name, format] : formats) {
      const int64_t cols = format == Format::kQ6_K ? 512 : 576;
      benchmark::RegisterBenchmark(cat(isa, "/", name).c_str(),
                                   [isa, format, cols](benchmark::State& s) { linear(s, isa, format, 1536, cols); })
          ->Arg(1)
          ->Arg(4)
          ->Arg(8)
          ->Arg(16)
          ->Arg(256);
    }
  return 0;
}();

}  // namespace
}  // namespace baton::tensor
