// Any bytes as a render or tokenize answer: read the same again, within its bounds.
#include <cstdlib>

#include "picker/body_limits.h"
#include "picker/prompt_tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::picker;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto first = read_tokens_answer(body), second = read_tokens_answer(body);
  if (first.has_value() != second.has_value()) std::abort();
  if (!first) return 0;
  if (*first != *second || static_cast<int64_t>(first->ids.size()) > first->total || first->media.size() > kAssetsMax)
    std::abort();
  for (size_t i = 0; i < first->media.size(); ++i) {
    if (first->media[i].offset < 0 || first->media[i].length <= 0) std::abort();
    if (i > 0 && first->media[i].offset < first->media[i - 1].offset) std::abort();
  }
  return 0;
}
