#include "base/file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace baton {
namespace {

TEST(File, ReadsUpToItsLimit) {
  const auto dir = std::filesystem::temp_directory_path() / ("baton-file-" + std::to_string(::getpid()));
  std::filesystem::create_directories(dir);
  const std::string path = dir / "x";
  for (const size_t n : {0u, 1u, 16'383u, 16'384u, 16'385u, 100'000u}) {
    const std::string text(n, 'a');
    std::ofstream(path, std::ios::binary) << text;
    EXPECT_EQ(read_file(path, n).value_or("?"), text);
    EXPECT_EQ(read_file(path, 1 << 20).value_or("?"), text);
    if (n > 0) EXPECT_EQ(read_file(path, n - 1).error().code, Code::kResourceExhausted);
  }
  EXPECT_EQ(read_file(dir, 100).error().code, Code::kInvalidArgument);
  EXPECT_EQ(read_file(dir / "nothing", 100).error().code, Code::kNotFound);
  std::filesystem::remove_all(dir);
}

TEST(File, ReadsWhatDoesNotSayItsSize) {
  const auto status = read_file("/proc/self/status", 1 << 20);
  ASSERT_TRUE(status);
  EXPECT_NE(status->find("Name:"), std::string::npos);
  EXPECT_EQ(read_file("/proc/self/status", 10).error().code, Code::kResourceExhausted);
  EXPECT_EQ(read_file("/dev/zero", 1 << 20).error().code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace baton
