#pragma once
// Maxima of what a model's text can make parse/ hold. Beyond them the text is no call: it stays content.
#include <cstddef>

namespace baton::parse {

constexpr size_t kCallBytesMax = 1 << 20;  // one call as the model wrote it
constexpr size_t kNameBytesMax = 256;      // a function's name; OpenAI allows 64
constexpr size_t kNestingMax = 60;         // arrays and objects inside arguments; base/json.h reads 64

}  // namespace baton::parse
