// Any bytes as a dataset and as an answer stream: errors or usable values; an answer cut in two anywhere reads the same.
#include <cstdlib>

#include "loadgen/answer.h"
#include "loadgen/workload.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  loadgen::BenchConfig config;
  config.num_prompts = 3;
  if (const auto prompts = loadgen::parse_dataset(text, config)) {
    if (prompts->size() != 3) std::abort();
    for (const auto& prompt : *prompts) {
      if (prompt.output_len < 1) std::abort();
    }
  }
  auto read = [&](size_t cut, loadgen::Outcome& out) {
    loadgen::AnswerReader reader(out);
    Result<> r = reader.feed(text.substr(0, cut), 5);
    if (r) r = reader.feed(text.substr(cut), 5);
    return r && reader.finish();
  };
  loadgen::Outcome whole, parts;
  const bool a = read(size, whole), b = read(size > 0 ? data[0] % size : 0, parts);
  if (a != b || (a && (whole.text != parts.text || whole.itl_s.size() != parts.itl_s.size()))) std::abort();
  return 0;
}
