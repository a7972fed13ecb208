// Kernels that ask memory for what a thread reads later: in its order, as far as they may, and without changing a result.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor/testing/inputs.h"

namespace baton::tensor {
namespace {

using testing::Aligned;
using testing::backends;

// Random passages over one memory; some are empty, some chunks are no multiple of a cache line.
struct Reads {
  explicit Reads(Prng& prng) : memory(1 << 16) {
    for (int i = 0; i < 12; ++i) {
      Passage passage{.n = static_cast<size_t>(prng.below(4)), .begin = bytes};
      for (size_t k = 0; k < passage.n; ++k) {
        Stretch s{.n = 1 + static_cast<size_t>(prng.below(5)), .bytes = 32 * (1 + static_cast<size_t>(prng.below(60)))};
        for (size_t c = 0; c < s.n; ++c) chunks.push_back(memory.data() + 64 * prng.below(900));
        passage.bytes += s.n * s.bytes;
        stretches.push_back(s);
      }
      bytes += passage.bytes;
      passages.push_back(passage);
    }
    const std::byte* const* chunk = chunks.data();
    for (Stretch& s : stretches) s.chunks = chunk, chunk += s.n;
    const Stretch* stretch = stretches.data();
    for (Passage& p : passages) p.stretches = stretch, stretch += p.n;
  }
  // Bytes before the cursor.
  size_t before(const Ahead& a) const {
    if (a.passage == passages.size()) return bytes;
    const Passage& p = passages[a.passage];
    size_t sum = p.begin + a.within + (p.n > 0 ? a.chunk * p.stretches[a.stretch].bytes : 0);
    for (size_t i = 0; i < a.stretch; ++i) sum += p.stretches[i].n * p.stretches[i].bytes;
    return sum;
  }

  std::vector<std::byte> memory;
  std::vector<const std::byte*> chunks;
  std::vector<Stretch> stretches;
  std::vector<Passage> passages;
  size_t bytes = 0;
};

TEST(Ahead, IsAskedForInOrderUpToItsLimit) {
  constexpr int64_t kRows = 48, kCols = 256, kMost = 16;
  constexpr size_t kAtOnce = 16 * 64;  // no kernel asks for more lines in one go
  Prng prng(5);
  bool any = false;
  for (const Ops* ops : backends()) {
    if (!ops->asks_ahead) continue;
    any = true;
    for (const Format format : {Format::kBf16, Format::kQ4_1, Format::kQ8_0, Format::kE4m3}) {
      Matrix m{.format = format, .rows = kRows, .cols = kCols};
      std::vector<std::byte> file(static_cast<size_t>(kRows) * m.row_bytes());
      for (std::byte& b : file) b = static_cast<std::byte>(prng.below(60));  // finite in every format
      std::vector<float> scales(kRows, 0.01f);
      m.data = file.data();
      if (format == Format::kE4m3)
        m.scales = {.data = reinterpret_cast<const std::byte*>(scales.data()), .cols_per = kCols, .row_step = 1};
      Panels w = panels_for(m);
      Aligned<std::byte> packed(w.bytes());
      pack_panels(m, {}, w, 0, w.panels(), packed.values);
      w.data = packed.values;
      const testing::Inputs in(*ops, kMost, kCols, prng);
      for (int round = 0; round < 20; ++round) {
        const Reads reads(prng);
        Ahead ahead{
            .passages = reads.passages.data(), .n = reads.passages.size(), .limit = static_cast<size_t>(prng.below(8192))};
        Activations asking = in.view;
        asking.ahead = &ahead;
        const int64_t rows = 1 + static_cast<int64_t>(prng.below(kMost));
        std::vector<float> with(static_cast<size_t>(rows * kRows)), without = with;
        const size_t limit = ahead.limit;
        ops->gemm(w, 0, w.panels(), asking, rows, with.data(), kRows, false);
        ops->gemm(w, 0, w.panels(), in.view, rows, without.data(), kRows, false);
        EXPECT_EQ(std::memcmp(with.data(), without.data(), with.size() * 4), 0);
        EXPECT_EQ(ahead.limit, limit + w.bytes()) << "what was read makes room";
        EXPECT_LE(ahead.asked, ahead.limit + kAtOnce);
        EXPECT_EQ(ahead.asked, reads.before(ahead));
        EXPECT_GE(ahead.asked, std::min(limit, reads.bytes)) << ops->name << " format " << static_cast<int>(format);
      }
    }
  }
  if (!any) GTEST_SKIP() << "no backend of this CPU asks ahead";
}

}  // namespace
}  // namespace baton::tensor
