// Input: a template and, after a zero byte, its variables as JSON (a small conversation if there is none).
// Properties: compiling and rendering end, within their limits, in UTF-8 text or in an error with words.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json.h"
#include "text/chat_template.h"
#include "text/limits.h"
#include "text/unicode.h"

using namespace baton;

namespace {

void require(bool yes) {
  if (!yes) std::abort();
}

constexpr std::string_view kConversation =
    R"({"messages": [{"role": "system", "content": " s "}, {"role": "user", "content": [{"type": "text", "text": "é"}]}],
        "tools": [{"function": {"name": "f", "parameters": {"a": 1.5, "b": [null, true, 12345678901234567890]}}}], "add_generation_prompt": true})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  size_t cut = input.find('\0');
  auto compiled = text::ChatTemplate::compile(input.substr(0, cut));
  if (!compiled) {
    require(!compiled.error().message.empty());
    return 0;
  }
  auto variables = parse_json(cut == std::string_view::npos ? kConversation : input.substr(cut + 1));
  if (!variables || !variables->is_object()) return 0;
  auto out = compiled->render(*variables);
  if (out) require(out->size() <= text::kRenderBytesMax && text::first_invalid_utf8(*out) == out->size());
  return 0;
}
