// The caller's work on a model's threads: all of it once, on no thread the model does not have, done when the call returns, between
// any two steps.
#include <gtest/gtest.h>

#include <filesystem>

#include "model/model.h"
#include "model/testing/tiny_model.h"

namespace baton::model {
namespace {

namespace fs = std::filesystem;

TEST(ShareOut, AllOfItOnceAndDoneAtTheEnd) {
  const fs::path path = fs::temp_directory_path() / cat("baton-share-out-", getpid(), ".gguf");
  ASSERT_TRUE(testing::write_tiny_gguf(path, {}).has_value());
  for (const int threads : {1, 3}) {
    auto model = Model::load(path, {.threads = threads, .progress = {}});
    ASSERT_TRUE(model.has_value()) << model.error().message;
    ASSERT_EQ((*model)->threads(), threads);
    for (int64_t n = 0; n < 40; ++n) {
      SCOPED_TRACE(::testing::Message() << n << " on " << threads);
      std::vector<int> times(static_cast<size_t>(n));  // plain numbers: who races is caught
      std::vector<std::vector<int64_t>> mine(static_cast<size_t>(threads));
      (*model)->share_out(n, [&](int64_t i, int thread) {
        ++times.at(static_cast<size_t>(i));
        mine.at(static_cast<size_t>(thread)).push_back(i);
      });
      EXPECT_EQ(times, std::vector<int>(static_cast<size_t>(n), 1));
      int64_t all = 0;
      for (const auto& m : mine) all += std::ssize(m);
      EXPECT_EQ(all, n);
    }
  }
  fs::remove(path);
}

}  // namespace
}  // namespace baton::model
