#pragma once
// LoraFiles: adapters for FakeModel, as directories that end with the object, and read.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "engine/adapters.h"
#include "engine/testing/fake_model.h"

namespace baton::engine::testing {

class LoraFiles {
 public:
  LoraFiles() : dir_(std::filesystem::path(::testing::TempDir()) / cat("engine_lora_", getpid(), "_", random_hex(8))) {}
  ~LoraFiles() { std::filesystem::remove_all(dir_); }
  LoraFiles(const LoraFiles&) = delete;

  // Writes (or writes anew) the adapter of this seed; its path.
  std::string write(const std::string& name, uint64_t seed, int32_t rank = 2) const {
    const std::string path = (dir_ / name).string();
    const auto written = model::testing::write_tiny_lora(path, {.rank = rank, .seed = seed}, FakeModel::lora_spec());
    EXPECT_TRUE(written) << written.error().message;
    return path;
  }
  std::string none() const { return (dir_ / "none").string(); }
  void remove(const std::string& name) const { std::filesystem::remove_all(dir_ / name); }
  std::shared_ptr<const Adapter> adapter(int32_t id, const std::string& name) const {
    auto weights = FakeModel().load_lora(write(name, static_cast<uint64_t>(id)), 16, 0);
    EXPECT_TRUE(weights) << weights.error().message;
    kv::Adapter key{.id = id, .name = name, .digest = (*weights)->digest()};
    return std::make_shared<const Adapter>(std::move(key), *weights);
  }

 private:
  std::filesystem::path dir_;
};

}  // namespace baton::engine::testing
