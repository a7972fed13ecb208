#pragma once
// GgufWriter: builds a GGUF v3 image in memory, for tests: good ones, and, through raw(), bad ones.
//   GgufWriter w;  w.string("general.architecture", "llama");  w.tensor("output_norm.weight", 0, {64}, bytes);  std::string file
//   = w.image();
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace baton::model::testing {

class GgufWriter {
 public:
  template <class T>
  static void append(std::string& out, T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof value);
    out.append(bytes, sizeof bytes);
  }
  static void append_string(std::string& out, std::string_view s) {
    append<uint64_t>(out, s.size());
    out += s;
  }

  void raw(std::string_view key, uint32_t type, std::string_view value) {
    append_string(keys_, key);
    append<uint32_t>(keys_, type);
    keys_ += value;
    key_count_++;
  }
  void u32(std::string_view key, uint32_t v) { scalar(key, 4, v); }
  void f32(std::string_view key, float v) { scalar(key, 6, v); }
  void boolean(std::string_view key, bool v) { scalar<uint8_t>(key, 7, v); }
  void string(std::string_view key, std::string_view v) {
    std::string value;
    append_string(value, v);
    raw(key, 8, value);
  }
  void strings(std::string_view key, const std::vector<std::string>& list) {
    std::string value;
    append<uint32_t>(value, 8);
    append<uint64_t>(value, list.size());
    for (const auto& s : list) append_string(value, s);
    raw(key, 9, value);
  }
  void ints(std::string_view key, const std::vector<int32_t>& list) {
    std::string value;
    append<uint32_t>(value, 5);
    append<uint64_t>(value, list.size());
    for (const int32_t n : list) append(value, n);
    raw(key, 9, value);
  }
  void floats(std::string_view key, const std::vector<float>& list) {
    std::string value;
    append<uint32_t>(value, 6);
    append<uint64_t>(value, list.size());
    for (const float f : list) append(value, f);
    raw(key, 9, value);
  }
  // dimensions: row length first. type: ggml's number.
  void tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& dimensions, std::string_view bytes) {
    tensor_at(name, type, dimensions, data_.size());
    data_ += bytes;
    data_.resize((data_.size() + kAlignment - 1) / kAlignment * kAlignment);
  }
  void tensor_at(std::string_view name, uint32_t type, const std::vector<uint64_t>& dimensions, uint64_t offset) {
    append_string(tensors_, name);
    append<uint32_t>(tensors_, static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t d : dimensions) append(tensors_, d);
    append(tensors_, type);
    append(tensors_, offset);
    tensor_count_++;
  }
  std::string image(uint32_t version = 3) const {
    std::string out = "GGUF";
    append(out, version);
    append(out, tensor_count_);
    append(out, key_count_);
    out += keys_ + tensors_;
    out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment);
    return out + data_;
  }

 private:
  static constexpr size_t kAlignment = 32;
  template <class T>
  void scalar(std::string_view key, uint32_t type, T v) {
    std::string value;
    append(value, v);
    raw(key, type, value);
  }
  uint64_t tensor_count_ = 0, key_count_ = 0;
  std::string keys_, tensors_, data_;
};

}  // namespace baton::model::testing
