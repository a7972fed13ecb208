#pragma once
// What a model's text turns out to be, piece by piece, in the order of a stream: reasoning, content, and calls. A call is one
// kCall with the function's name, then kArguments whose texts, joined, are its arguments (a JSON object unless the model wrote
// none).
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace baton::parse {

struct Event {
  enum class Kind : uint8_t { kReasoning, kContent, kCall, kArguments };
  Kind kind = Kind::kContent;
  std::string text;
  std::string id{};  // of a kCall, where the model wrote one
  bool operator==(const Event&) const = default;
};
using Events = std::vector<Event>;

// Appends, joined with the last event where that is of the same kind.
inline void append(Events& out, Event::Kind kind, std::string_view text) {
  if (text.empty()) return;
  if (kind != Event::Kind::kCall && !out.empty() && out.back().kind == kind)
    out.back().text += text;
  else
    out.push_back({kind, std::string(text), {}});
}
inline void append_call(Events& out, std::string_view name, std::string_view id) {
  out.push_back({Event::Kind::kCall, std::string(name), std::string(id)});
}

inline void append(Events& out, const Event& event) {
  if (event.kind == Event::Kind::kCall)
    out.push_back(event);
  else
    append(out, event.kind, event.text);
}

inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
inline std::string_view trimmed(std::string_view s) {
  while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_space(s.back())) s.remove_suffix(1);
  return s;
}
inline bool is_blank(std::string_view s) { return s.find_first_not_of(" \n\t\r") == std::string_view::npos; }

}  // namespace baton::parse
