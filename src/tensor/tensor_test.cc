#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "base/prng.h"
#include "tensor/ops.h"
#include "tensor/ref/ref.h"
#include "tensor/testing/inputs.h"

namespace baton::tensor {
namespace {

using testing::Aligned;
using testing::backends;
using testing::Inputs;

struct Stored {
  Format format;
  bool grouped = false;  // of formats with scales apart: scales of groups of 64 inputs, with zero points where there are any
};
constexpr Stored kAll[] = {
    {Format::kF32},      {Format::kF16},         {Format::kBf16},        {Format::kQ8_0},       {Format::kQ4_0},
    {Format::kQ4_1},     {Format::kQ5_0},        {Format::kQ5_1},        {Format::kQ4_K},       {Format::kQ5_K},
    {Format::kQ6_K},     {Format::kMxfp4},       {Format::kE4m3},        {Format::kE4m3, true}, {Format::kI8},
    {Format::kI8, true}, {Format::kInt4},        {Format::kInt4, true},  {Format::kInt8},       {Format::kInt8, true},
    {Format::kGptq4},    {Format::kGptq4, true}, {Format::kGptq8, true}, {Format::kAwq4, true}, {Format::kMxfp4Pairs}};
int64_t whole_words(int64_t rows, const Stored& s) { return s.grouped ? (rows + 7) / 8 * 8 : rows; }

// A random matrix in a file's bytes: ordinary scales in every f16 field, any bits in the rest.
struct FileMatrix {
  FileMatrix(const Stored& stored, int64_t rows, int64_t cols, Prng& prng) {
    const Format format = stored.format;
    m = {.format = format, .rows = rows, .cols = cols, .data = nullptr};
    bytes.resize(static_cast<size_t>(rows) * m.row_bytes());
    for (std::byte& b : bytes) b = static_cast<std::byte>(prng.next());
    if (scales_apart(format)) {
      fill_apart(stored.grouped, prng);
      return;
    }
    const size_t block = format_block_bytes(format);
    const auto half = [&](size_t at) {
      const uint16_t h = f32_to_f16(static_cast<float>((prng.uniform() - 0.5) * 0.02));
      std::memcpy(bytes.data() + at, &h, 2);
    };
    for (size_t at = 0; at < bytes.size(); at += block) {
      const auto value = static_cast<float>(prng.uniform() - 0.5);
      const uint16_t bf16 = f32_to_bf16(value), f16 = f32_to_f16(value);
      switch (format) {
        case Format::kF32:
          std::memcpy(bytes.data() + at, &value, 4);
          break;
        case Format::kF16:
          std::memcpy(bytes.data() + at, &f16, 2);
          break;
        case Format::kBf16:
          std::memcpy(bytes.data() + at, &bf16, 2);
          break;
        case Format::kQ6_K:
          half(at + 208);
          break;
        case Format::kMxfp4:
          bytes[at] = static_cast<std::byte>(112 + prng.below(12));
          break;
        case Format::kQ8_0:
        case Format::kQ4_0:
        case Format::kQ5_0:
          half(at);
          break;
        default:
          half(at), half(at + 2);
      }
    }
    m.data = bytes.data();
  }
  // Scales [rows][groups] (or [rows]) in f32, and zero points beside them [rows / values a word][groups].
  void fill_apart(bool grouped, Prng& prng) {
    const int64_t groups = grouped ? m.cols / 64 : 1;
    const bool bytewise = m.format == Format::kE4m3 || m.format == Format::kI8;
    for (std::byte& b : bytes)
      if (m.format == Format::kE4m3 && (b & std::byte{0x7f}) == std::byte{0x7f}) b ^= std::byte{1};  // no NaN
    for (int64_t i = 0; i < m.rows * groups; ++i) {  // halves, as these formats' own scales are
      scales.push_back(f16_to_f32(f32_to_f16(static_cast<float>((prng.uniform() - 0.5) * 0.02))));
      zeros.push_back(static_cast<uint32_t>(prng.next()));
    }
    m.data = bytes.data();
    m.scales = {.data = reinterpret_cast<const std::byte*>(scales.data()),
                .cols_per = grouped ? 64 : m.cols,
                .row_step = groups,
                .col_step = grouped ? 1 : 0};
    if (!grouped || bytewise) return;
    m.scales.zeros = reinterpret_cast<const std::byte*>(zeros.data());
    m.scales.zero_row_step = groups;
    m.scales.zero_col_step = 1;
    m.scales.zero_add = m.format == Format::kGptq4 ? 1 : 0;
  }
  Matrix m;
  std::vector<std::byte> bytes;
  std::vector<float> scales;
  std::vector<uint32_t> zeros;
};

struct Packed {
  explicit Packed(const Matrix& m, std::span<const int32_t> order = {}) : panels(panels_for(m)), bytes(panels.bytes()) {
    pack_panels(m, order, panels, 0, panels.panels(), bytes.values);
    panels.data = bytes.values;
  }
  Panels panels;
  Aligned<std::byte> bytes;
};

TEST(Panels, LinearLayersAgreeWithTheReference) {
  Prng prng(1);
  for (const Stored& stored : kAll) {
    const Format format = stored.format;
    for (const auto& [n, cols] : {std::pair<int64_t, int64_t>{48, 256}, {37, 512}, {16, 768}}) {
      const int64_t rows = whole_words(n, stored);
      const FileMatrix file(stored, rows, cols, prng);
      const Packed w(file.m);
      std::vector<float> decoded(static_cast<size_t>(rows * cols));
      for (int64_t r = 0; r < rows; ++r) decode_row(file.m, r, decoded.data() + r * cols);
      const std::vector<double> weights(decoded.begin(), decoded.end());
      for (const Ops* ops : backends()) {
        const int64_t m = 13;
        const Inputs in(*ops, m, cols, prng);
        const std::vector<double> want = ref::linear(weights, in.seen(form_for(w.panels.kind), m, cols), rows, cols, m);
        std::vector<float> out(static_cast<size_t>(m * rows), 1.f);
        ops->gemm(w.panels, 0, w.panels.panels(), in.view, m, out.data(), rows, true);
        double scale = 0;
        for (const double v : want) scale = std::max(scale, std::abs(v));
        // K-quants: the product of scale and sub-scale is rounded to f16; so is that of scale and zero point.
        const double tolerance = (format_block(format) == 256 || file.m.scales.zeros ? 1e-3 : 1e-5) * scale;
        for (size_t i = 0; i < want.size(); ++i)
          ASSERT_NEAR(out[i] - 1.f, want[i], tolerance + 1e-6)
              << ops->name << " format " << static_cast<int>(format) << " at " << i;
      }
    }
  }
}

// A matrix whose rows and inputs do not lie side by side packs as the same matrix laid out plainly: one of two that alternate by
// rows, transposed for the float formats.
TEST(Panels, StepsBetweenElementsAreFollowed) {
  Prng prng(17);
  const int64_t rows = 37, cols = 96;
  for (const Format format : {Format::kF32, Format::kF16, Format::kBf16, Format::kMxfp4Pairs}) {
    const FileMatrix file({format}, rows, cols, prng);
    const bool transposed = format != Format::kMxfp4Pairs;
    const size_t run = transposed ? format_block_bytes(format) : static_cast<size_t>(cols / 2);  // bytes that stay together
    std::vector<std::byte> both(file.bytes.size() * 2, std::byte{0x7b});
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < (transposed ? cols : 1); ++c)
        std::memcpy(
            both.data() + (transposed ? static_cast<size_t>(c * rows * 2 + r * 2 + 1) : static_cast<size_t>(r * 2 + 1)) * run,
            file.bytes.data() + static_cast<size_t>(r * (transposed ? cols : 1) + c) * run, run);
    Matrix m = file.m;
    m.data = both.data() + run;
    m.row_step = transposed ? 2 : 2 * cols;
    m.col_step = transposed ? 2 * rows : 0;
    EXPECT_EQ(m.file_bytes(), both.size() - run);
    const Packed plain(file.m), stepped(m);
    EXPECT_EQ(std::memcmp(plain.bytes.values, stepped.bytes.values, plain.panels.bytes()), 0) << static_cast<int>(format);
    std::vector<float> a(static_cast<size_t>(cols)), b(a.size());
    for (int64_t r = 0; r < rows; ++r) {
      decode_row(file.m, r, a.data());
      decode_row(m, r, b.data());
      EXPECT_EQ(a, b) << static_cast<int>(format) << " row " << r;
    }
  }
}

void agree_in_floats(int64_t rows, int64_t cols, int64_t m) {
  Prng prng(2);
  for (const Format format : {Format::kF32, Format::kF16, Format::kBf16}) {
    const FileMatrix file({format}, rows, cols, prng);
    const Packed w(file.m);
    std::vector<float> decoded(static_cast<size_t>(rows * cols));
    for (int64_t r = 0; r < rows; ++r) decode_row(file.m, r, decoded.data() + r * cols);
    for (const Ops* ops : backends()) {
      const Inputs in(*ops, m, cols, prng);
      const std::vector<double> want = ref::linear(std::vector<double>(decoded.begin(), decoded.end()),
                                                   in.seen(form_for(w.panels.kind), m, cols), rows, cols, m);
      std::vector<float> out(static_cast<size_t>(m * rows));
      ops->gemm(w.panels, 0, w.panels.panels(), in.view, m, out.data(), rows, false);
      const double tolerance = 1e-5 * std::sqrt(static_cast<double>(cols)) * 2;
      for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(out[i], want[i], tolerance) << ops->name;
    }
  }
}

TEST(Panels, FloatRowsNeedNoMultipleOf32) { agree_in_floats(19, 45, 3); }

TEST(Panels, MoreFloatRowsThanACoreKeepsNear) { agree_in_floats(35, 12'000, 20); }

// A row's result is the same bits alone, at any place among any number of rows, and in any split of the panels.
void alike_in_any_batch(int64_t some_rows, int64_t cols, int64_t least, int64_t most) {
  Prng prng(3);
  for (const Stored& stored : kAll) {
    const int64_t rows = whole_words(some_rows, stored);
    const FileMatrix file(stored, rows, cols, prng);
    const Packed w(file.m);
    for (const Ops* ops : backends()) {
      const Inputs in(*ops, most, cols, prng);
      std::vector<float> alone(static_cast<size_t>(most * rows));
      for (int64_t r = 0; r < most; ++r) {
        Inputs one(*ops, 1, cols, prng);
        ops->prepare(in.x.data() + r * cols, 0, cols, kI8 | kBf16Form | kF32Form, one.view, 0);
        ops->gemm(w.panels, 0, w.panels.panels(), one.view, 1, alone.data() + r * rows, rows, false);
      }
      for (int64_t m = least; m <= most; ++m) {
        std::vector<float> out(static_cast<size_t>(m * rows));
        const int64_t cut = static_cast<int64_t>(prng.below(static_cast<uint64_t>(w.panels.panels() + 1)));
        ops->gemm(w.panels, cut, w.panels.panels(), in.view, m, out.data(), rows, false);
        ops->gemm(w.panels, 0, cut, in.view, m, out.data(), rows, false);
        ASSERT_EQ(std::memcmp(out.data(), alone.data(), out.size() * 4), 0)
            << ops->name << " format " << static_cast<int>(stored.format) << " rows " << m;
      }
    }
  }
}

TEST(Panels, ResultsDoNotDependOnTheBatchOrTheSplit) { alike_in_any_batch(70, 512, 1, 41); }

TEST(Panels, NorOnTheLotsThatManyRowsGoIn) { alike_in_any_batch(20, 6144, 100, 100); }

TEST(Panels, RowOrderIsAPermutationOfTheOutputs) {
  Prng prng(4);
  const int64_t rows = 48, cols = 64;
  const FileMatrix file({Format::kQ4_1}, rows, cols, prng);
  std::vector<int32_t> order(rows);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i-- > 1;) std::swap(order[i], order[prng.below(i + 1)]);
  const Packed straight(file.m), ordered(file.m, order);
  const Ops& ops = **find_ops("auto");
  const Inputs in(ops, 1, cols, prng);
  std::vector<float> a(rows), b(rows);
  ops.gemm(straight.panels, 0, 3, in.view, 1, a.data(), rows, false);
  ops.gemm(ordered.panels, 0, 3, in.view, 1, b.data(), rows, false);
  for (size_t n = 0; n < b.size(); ++n) EXPECT_EQ(b[n], a[static_cast<size_t>(order[n])]);
}

TEST(Panels, Avx2AndAvx512AgreeBitForBitOnQuantisedLayers) {
  const auto a = find_ops("avx2"), b = find_ops("avx512");
  if (!a || !b) GTEST_SKIP() << "this CPU lacks one of them";
  Prng prng(5);
  for (const Stored& stored : kAll) {
    const Format format = stored.format;
    if (format_block(format) == 1 || format == Format::kE4m3) continue;
    const FileMatrix file(stored, 32, 256, prng);
    const Packed w(file.m);
    const Inputs in(**a, 7, 256, prng);
    std::vector<float> x(7 * 32), y(7 * 32);
    (*a)->gemm(w.panels, 0, 2, in.view, 7, x.data(), 32, false);
    (*b)->gemm(w.panels, 0, 2, in.view, 7, y.data(), 32, false);
    EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size() * 4), 0) << static_cast<int>(format);
  }
}

// Every gated unit and the soft cap, on ordinary, tiny and huge values, at row lengths with and without a rest.
TEST(Rows, GatesAndCapsAgreeWithTheReference) {
  Prng prng(16);
  for (const Ops* ops : backends()) {
    for (const int64_t n : {1, 15, 32, 33, 577}) {
      std::vector<float> gate(n), up(n);
      for (float& v : gate) v = static_cast<float>((prng.uniform() - 0.5) * (prng.chance(0.1) ? 2000 : 12));
      for (float& v : up) v = static_cast<float>((prng.uniform() - 0.5) * (prng.chance(0.1) ? 60 : 2));
      const std::vector<double> g(gate.begin(), gate.end()), u(up.begin(), up.end());
      for (int unit = 0; unit < kGatedUnits; ++unit) {
        std::vector<float> out = gate;
        ops->gate_mul[unit](out.data(), up.data(), n);
        const std::vector<double> want = ref::gate_mul(static_cast<GatedUnit>(unit), g, u);
        for (int64_t i = 0; i < n; ++i)
          ASSERT_NEAR(out[i], want[i], 2e-6 + std::abs(want[i]) * 1e-5) << ops->name << " unit " << unit << " of " << g[i];
      }
      for (const float cap : {30.f, 50.f}) {
        std::vector<float> out = gate;
        ops->soft_cap(out.data(), n, cap);
        for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(out[i], ref::soft_cap(g[i], cap), 2e-5) << ops->name << " of " << g[i];
      }
    }
  }
}

// Rows of logits of any length, some impossible: weights, their sum, and what of them is at least so much.
TEST(Rows, LogitsAreWeighedAsTheDefinitionSays) {
  Prng prng(17);
  for (const Ops* ops : backends()) {
    for (const int64_t n : {1, 15, 16, 255, 256, 257, 5003}) {
      std::vector<float> x(n), w(n);
      for (float& v : x)
        v = prng.chance(0.1) ? -std::numeric_limits<float>::infinity() : static_cast<float>(prng.uniform() * 40 - 35);
      const float top = x[prng.below(static_cast<uint64_t>(n))] = 6;
      for (const float scale : {1.f, 0.3f, 25.f}) {
        const double sum = ops->weigh(x.data(), n, top, scale, w.data());
        EXPECT_EQ(ops->weigh(x.data(), n, top, scale, nullptr), sum);
        double want = 0;
        for (int64_t i = 0; i < n; ++i) {
          const double one = std::exp((static_cast<double>(x[i]) - top) * scale);
          ASSERT_NEAR(w[i], one, one * 2e-5 + 1e-37) << ops->name << " of " << x[i];  // the argument's own rounding, at 25 * 40
          if (x[i] == top) ASSERT_EQ(w[i], 1.f);
          want += one;
        }
        EXPECT_NEAR(sum, want, want * 1e-6) << ops->name;
        for (const float least : {1.f, 0.5f, w[prng.below(static_cast<uint64_t>(n))], 1e-30f}) {
          if (least <= 0) continue;
          const Mass got = ops->mass(w.data(), n, least);
          double mass = 0;
          for (const float v : w) mass += v >= least ? static_cast<double>(v) : 0;
          EXPECT_EQ(got.count, std::ranges::count_if(w, [&](float v) { return v >= least; })) << ops->name;
          EXPECT_NEAR(got.sum, mass, mass * 1e-6) << ops->name;
        }
      }
    }
  }
}

TEST(Panels, EightBitWeightsTakeEightBits) {
  Prng prng(8);
  for (const Format format : {Format::kE4m3, Format::kI8}) {
    const FileMatrix file({format}, 64, 512, prng);
    EXPECT_EQ(panels_for(file.m).bytes(), 64u * 512 + 64 * 4);
  }
  EXPECT_EQ(panels_for(FileMatrix({Format::kGptq4, true}, 64, 512, prng).m).bytes(), 64u * 512 / 32 * (16 + 2 + 2));
}

TEST(Panels, EveryFp8ValueIsExactAndNaNReachesItsRowAlone) {
  for (const bool block : {false, true}) {
    std::vector<std::byte> values(16 * 256);  // row r holds byte 16 r + i at input i, and zeros
    for (size_t b = 0; b < 256; ++b) values[b / 16 * 256 + b] = static_cast<std::byte>(b);
    const float scales[4] = {0.75f, 0.75f, 0.75f, 0.75f};
    Matrix m{.format = Format::kE4m3, .rows = 16, .cols = 256, .data = values.data()};
    m.scales = {.data = reinterpret_cast<const std::byte*>(scales), .rows_per = 16, .cols_per = 64, .col_step = 0};
    if (block) m.scales = {.data = reinterpret_cast<const std::byte*>(scales), .rows_per = 16, .cols_per = 64, .col_step = 1};
    const Packed w(m);
    ASSERT_EQ(w.panels.kind, block ? PanelKind::kE4m3Block : PanelKind::kE4m3);
    for (const Ops* ops : backends()) {
      for (int b = 0; b < 256; ++b) {
        if (b / 16 == 7 || b / 16 == 15) continue;  // the rows that hold a NaN
        std::vector<float> x(256), out(16);
        x[static_cast<size_t>(b)] = 1;
        Prng prng(1);
        Inputs in(*ops, 1, 256, prng);
        ops->prepare(x.data(), 0, 256, kBf16Form, in.view, 0);
        ops->gemm(w.panels, 0, 1, in.view, 1, out.data(), 16, false);
        ASSERT_EQ(out[static_cast<size_t>(b / 16)], e4m3_to_f32(static_cast<uint8_t>(b)) * 0.75f) << ops->name << " " << b;
        for (size_t r = 0; r < 16; ++r) EXPECT_EQ(std::isnan(out[r]), r == 7 || r == 15) << ops->name << " " << b << " row " << r;
      }
    }
  }
}

TEST(Rows, NormSiluAndQuantisationAgreeWithTheReference) {
  Prng prng(6);
  for (const Ops* ops : backends()) {
    for (const int64_t n : {1, 15, 32, 33, 96, 577}) {
      std::vector<float> x(n), y(n), out(n);
      for (float& v : x) v = static_cast<float>((prng.uniform() - 0.5) * 12);
      for (float& v : y) v = static_cast<float>((prng.uniform() - 0.5) * 2);
      const std::vector<double> dx(x.begin(), x.end()), dy(y.begin(), y.end());
      ops->rms_norm(x.data(), y.data(), n, 1e-5f, out.data());
      const std::vector<double> norm = ref::rms_norm(dx, dy, 1e-5), silu = ref::gate_mul(GatedUnit::kSilu, dx, dy);
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(out[i], norm[i], 1e-6 + std::abs(norm[i]) * 1e-5) << ops->name << " " << n;
      std::vector<float> gate = x;
      ops->gate_mul[0](gate.data(), y.data(), n);
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(gate[i], silu[i], 1e-6 + std::abs(silu[i]) * 1e-5) << ops->name << " " << n;
    }
    std::vector<float> extreme = {-1000, 1000, 0, -0.f, 88, -88, 1e-30f}, ones(extreme.size(), 1);
    ops->gate_mul[0](extreme.data(), ones.data(), static_cast<int64_t>(extreme.size()));
    EXPECT_NEAR(extreme[0], 0, 1e-30) << ops->name;
    EXPECT_EQ(extreme[1], 1000) << ops->name;
    const Inputs in(*ops, 3, 100, prng);
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t b = 0; b < 4; ++b) {
        const Quantised& group = in.view.group(r)[b];
        const Block32& block = group.block[r];
        int sum = 0, low = 0;
        for (int i = 0; i < 32; ++i) {
          const float want = b * 32 + i < 100 ? in.x[static_cast<size_t>(r * 100 + b * 32 + i)] : 0;
          ASSERT_NEAR(block.d * static_cast<float>(group.q[r][i]), want, block.d * 0.5001f) << ops->name;
          sum += group.q[r][i];
          if (i < 16) low += group.q[r][i];
        }
        EXPECT_EQ(block.nsum, -sum);
        EXPECT_EQ(block.nsum_low, -low);
        EXPECT_FLOAT_EQ(block.ds, block.d * static_cast<float>(sum));
      }
    }
    for (const float odd : {NAN, -NAN, INFINITY, -INFINITY}) {
      for (const int64_t n : {1, 7, 32}) {  // so many of them: the row's products must not look like numbers
        Inputs broken(*ops, 1, 64, prng);
        std::vector<float> row(broken.x.begin(), broken.x.end());
        std::fill_n(row.begin() + 32 - n, n, odd);
        ops->prepare(row.data(), 0, 64, kI8, broken.view, 0);
        EXPECT_TRUE(std::isnan(broken.view.q8[0].block[0].d)) << ops->name << " " << odd << " " << n;
        EXPECT_FALSE(std::isnan(broken.view.q8[1].block[0].d)) << ops->name;
      }
    }
    Inputs zero(*ops, 1, 32, prng);
    const std::vector<float> zeros(32);
    ops->prepare(zeros.data(), 0, 32, kI8, zero.view, 0);
    EXPECT_EQ(zero.view.q8[0].block[0].d, 0) << ops->name;
  }
}

}  // namespace
}  // namespace baton::tensor
