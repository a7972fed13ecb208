// GGUF files: arbitrary bytes never read out of bounds, and what is accepted is what the header promises (gguf.h, weight_data.h).
// Each input is tried as a file and as edits to a good tiny file, because chance alone writes no whole model.
#include <algorithm>

#include "model/gguf.h"
#include "model/testing/tiny_model.h"
#include "model/weight_data.h"

namespace {

using namespace baton;
using namespace baton::model;

void check_views(const Gguf& gguf, std::span<const std::byte> file) {
  for (const auto& [key, value] : gguf.values) {
    BATON_CHECK(value.bytes.empty() ||
                (value.bytes.data() >= file.data() && value.bytes.data() + value.bytes.size() <= file.data() + file.size()));
    (void)value.as_int();
    (void)value.as_double();
    if (const auto list = value.as_strings()) BATON_CHECK(list->size() == value.count);
    if (const auto list = value.as_floats()) BATON_CHECK(list->size() == value.count);
    if (const auto list = value.as_ints()) BATON_CHECK(list->size() == value.count);
  }
  for (const TensorRef& t : gguf.tensors) {
    BATON_CHECK(t.bytes.data() >= file.data() && t.bytes.data() + t.bytes.size() <= file.data() + file.size());
    const auto block = static_cast<size_t>(dtype_block(t.dtype));
    BATON_CHECK(t.bytes.size() == static_cast<size_t>(t.rows * t.cols) / block * dtype_block_bytes(t.dtype));
    std::vector<float> first(block);
    dequantize(t.dtype, t.bytes.first(dtype_block_bytes(t.dtype)), first);
  }
}

void check(std::span<const std::byte> file) {
  const auto gguf = parse_gguf(file);
  if (gguf) check_views(*gguf, file);
  const auto weights = read_gguf(file);
  BATON_CHECK(gguf || !weights);
  if (weights) BATON_CHECK(check_weights(*weights) && weights->tensors.contains("embed.weight"));
}

// Input as records of 3 bytes offset, 1 byte count (up to 8), bytes to put there; offsets wrap at the end of the header.
std::string edited(std::string image, std::span<const uint8_t> edits) {
  constexpr size_t kHeader = 12000;  // keys and tensor entries of the tiny file
  while (edits.size() > 4) {
    const size_t at = static_cast<size_t>(edits[0] | edits[1] << 8 | edits[2] << 16) % kHeader,
                 n = std::min<size_t>(edits[3] % 9, edits.size() - 4);
    for (size_t i = 0; i < n && at + i < image.size(); i++) image[at + i] = static_cast<char>(edits[4 + i]);
    edits = edits.subspan(4 + n);
  }
  return image;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<std::string> good = [] {
    std::vector<std::string> files;
    for (const char* family : {"llama", "phi3", "gemma3", "gpt-oss"})
      files.push_back(*testing::tiny_gguf(
          {.layers = 1, .hidden = 32, .heads = 2, .kv_heads = 1, .ffn = 32, .vocab = 259, .family = family, .window = 9}));
    return files;
  }();
  check(std::as_bytes(std::span(data, size)));
  for (const std::string& whole : good) {
    const std::string file = edited(whole, {data, size});
    check(std::as_bytes(std::span(file)));
  }
  return 0;
}
