// safetensors files: arbitrary bytes never read out of bounds; accepted tensors lie in the file, fit their shape and do not
// overlap.
#include <algorithm>

#include "model/limits.h"
#include "model/safetensors.h"
#include "model/weight_data.h"

namespace {

using namespace baton;
using namespace baton::model;

// Besides a whole file the input is a header, and the rest of a tensor entry: the length is put before it, and some data after.
std::string with_length(std::span<const uint8_t> header) {
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; i++) out[i] = static_cast<char>(header.size() >> (8 * i));
  out.append(reinterpret_cast<const char*>(header.data()), header.size());
  return out + std::string(64, 'x');
}

void check(std::span<const std::byte> file) {
  const auto tensors = parse_safetensors(file);
  if (!tensors) return;
  std::vector<std::span<const std::byte>> spans;
  for (const Safetensor& t : *tensors) {
    BATON_CHECK(t.bytes.empty() ||
                (t.bytes.data() >= file.data() + 8 && t.bytes.data() + t.bytes.size() <= file.data() + file.size()));
    int64_t elements = 1;
    for (const int64_t n : t.shape) elements *= n;
    BATON_CHECK(!t.dtype || t.bytes.size() == static_cast<size_t>(elements) * dtype_block_bytes(*t.dtype));
    if (!t.bytes.empty()) spans.push_back(t.bytes);
  }
  std::ranges::sort(spans, {}, [](const auto& s) { return s.data(); });
  for (size_t i = 1; i < spans.size(); i++) BATON_CHECK(spans[i - 1].data() + spans[i - 1].size() <= spans[i].data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  check(std::as_bytes(std::span(data, size)));
  const std::string file = with_length({data, size});
  check(std::as_bytes(std::span(file)));
  const std::string rest = cat(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16",)",
                               std::string_view(reinterpret_cast<const char*>(data), size), "}}");
  const std::string entry = with_length({reinterpret_cast<const uint8_t*>(rest.data()), rest.size()});
  check(std::as_bytes(std::span(entry)));
  const auto names = shard_names({reinterpret_cast<const char*>(data), size});
  if (names) {
    BATON_CHECK(names->size() <= kShardsMax && std::ranges::is_sorted(*names));
    for (const auto& name : *names) BATON_CHECK(name.find('/') == name.npos);
  }
  return 0;
}
