// A weight that is not a number, wherever it lies, shows in the logits: it is never rounded, masked or clamped into an answer.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "model/model.h"
#include "model/testing/tiny_model.h"
#include "tensor/ops.h"

namespace baton::model {
namespace {

namespace fs = std::filesystem;

struct Folder {
  fs::path path = fs::temp_directory_path() / cat("baton-nan-", ::testing::UnitTest::GetInstance()->random_seed(), "-", getpid());
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

// The first number of a tensor, or its first block's scale, becomes NaN.
void poison(std::string& file, const TensorRef& tensor) {
  const std::string_view first(reinterpret_cast<const char*>(tensor.bytes.data()), std::min<size_t>(48, tensor.bytes.size()));
  const size_t at = file.find(first);
  ASSERT_NE(at, std::string::npos);
  ASSERT_EQ(file.find(first, at + 1), std::string::npos) << "not the only one";
  const uint32_t f32 = 0x7fc00000;
  const uint16_t bf16 = 0x7fc0, f16 = 0x7e00;
  const auto put = [&](const auto& value) { std::memcpy(file.data() + at, &value, sizeof value); };
  tensor.dtype == Dtype::kF32 ? put(f32) : tensor.dtype == Dtype::kBf16 ? put(bf16) : put(f16);
}

bool gives_numbers(const std::string& path, const std::string& isa) {
  auto model = Model::load(path, {.threads = 2, .isa = isa, .progress = {}});
  EXPECT_TRUE(model.has_value()) << model.error().message;
  std::vector<std::byte> pool((*model)->kv_layout().block_bytes() * 2 + 64);
  void* start = pool.data();
  size_t room = pool.size();
  std::align(64, (*model)->kv_layout().block_bytes() * 2, start, room);
  EXPECT_TRUE((*model)->bind_kv({static_cast<std::byte*>(start), (*model)->kv_layout().block_bytes() * 2}).has_value());
  const int32_t tokens[] = {0, 5, 6, 7, 8, 9, 10}, blocks[] = {1};
  const SeqInput seq{.tokens = tokens, .blocks = blocks, .last_logits = true};
  auto logits = (*model)->step({&seq, 1});
  EXPECT_TRUE(logits.has_value()) << logits.error().message;
  return std::ranges::none_of(*logits, [](float x) { return std::isnan(x); });
}

void expect_every_weight_counts(testing::TinySpec spec) {
  SCOPED_TRACE(dtype_name(spec.dtype));
  Folder folder;
  const std::string good = folder.path / "good.gguf", bad = folder.path / "bad.gguf";
  ASSERT_TRUE(testing::write_tiny_gguf(good, spec).has_value());
  const auto whole = read_file(good, 64 << 20);
  ASSERT_TRUE(whole.has_value());
  const auto weights = WeightFile::open(good);
  ASSERT_TRUE(weights.has_value());
  for (const char* isa : {"auto", "avx2", "plain"}) {
    if (!tensor::find_ops(isa)) continue;
    EXPECT_TRUE(gives_numbers(good, isa));
    for (const std::string_view name : (*weights)->names()) {
      std::string file = *whole;
      poison(file, *(*weights)->find(name));
      ASSERT_TRUE(write_file(bad, file).has_value());
      EXPECT_FALSE(gives_numbers(bad, isa)) << name << " " << isa;
    }
  }
}

TEST(NotANumber, ShowsInTheLogitsOfFloatWeights) {
  expect_every_weight_counts({.layers = 2, .dtype = Dtype::kF32});
  expect_every_weight_counts({.layers = 2, .dtype = Dtype::kBf16});
}

TEST(NotANumber, ShowsInTheLogitsOfQuantisedWeights) {
  expect_every_weight_counts({.layers = 2, .dtype = Dtype::kQ4_1});
  expect_every_weight_counts({.layers = 2, .dtype = Dtype::kQ8_0, .family = "qwen2"});
}

}  // namespace
}  // namespace baton::model
