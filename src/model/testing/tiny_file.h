#pragma once
// TinyFile: a tiny model as a GGUF file, or where only that form has it as a Hugging Face directory, in the test's own directory;
// removed with the object.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "model/testing/tiny_model.h"

namespace baton::model::testing {

struct TinyFile {
  explicit TinyFile(const TinySpec& spec) {
    const std::string name = cat("tiny_", getpid(), "_", spec.seed, spec.hf_only() ? "" : ".gguf");
    path = (std::filesystem::path(::testing::TempDir()) / name).string();
    const auto written = spec.hf_only() ? write_tiny_hf(path, spec) : write_tiny_gguf(path, spec);
    EXPECT_TRUE(written) << written.error().message;
  }
  TinyFile(const TinyFile&) = delete;
  ~TinyFile() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace baton::model::testing
