#pragma once
// Python's literals as JSON text: strings in either quotes, numbers, True, False, None (and JSON's spellings of them), lists,
// dicts. nullopt: it is none of these, or deeper than kNestingMax. No triple quotes, no prefixes, no expressions but a minus
// sign. Pure.
#include <optional>
#include <string>
#include <string_view>

namespace baton::parse {

std::optional<std::string> python_to_json(std::string_view literal);

}  // namespace baton::parse
