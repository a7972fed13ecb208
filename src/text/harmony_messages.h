#pragma once
// The messages of a chat as gpt-oss's template can say them. The template writes one call a message and names a result after the
// last call, so calls made side by side become messages of their own, each with its result behind it; it reads what was thought
// under "thinking", and refuses that beside content in a message with calls, so there the content joins it. Pure.
#include <vector>

#include "base/json.h"

namespace baton::text {

std::vector<Json> harmony_messages(std::vector<Json> messages);

}  // namespace baton::text
