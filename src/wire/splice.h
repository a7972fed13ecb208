#pragma once
// Splice: edits members of a JSON object inside its text and leaves every other byte as it was: unknown fields, 64-bit integers,
// spacing, escapes, order. A value that is not edited is never parsed into a number and written again.
//   Splice(text, root).set({"stream"}, "false").erase({"stream_options"}).text()
// Requires: root = parse_json(text), an object; both outlive the Splice. New values are JSON.
// Guarantees: the result is JSON; an edited key occurs at most once in it (a duplicate that another parser might prefer is
// removed); set() of a missing path creates it, at the end of its object; a path through something that is no object replaces
// that by one; erase() of a missing path changes nothing. Later edits of the same path win. Cost: one copy of the text.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace baton::wire {

class Splice {
 public:
  using Path = std::vector<std::string_view>;

  Splice(std::string_view text, const Json& root) : text_(text), root_(root) {}
  Splice& set(Path path, std::string json);
  Splice& erase(Path path);
  std::string text() const;

 private:
  struct Edit {
    Path path;
    std::optional<std::string> value;  // nullopt = erase
  };
  using Edits = std::vector<const Edit*>;

  void append_object(std::string& out, const Json* object, const Edits& edits, size_t depth) const;
  bool append_value(std::string& out, const Json* old, const Edits& edits, size_t depth) const;

  std::string_view text_;
  const Json& root_;
  std::vector<Edit> edits_;
};

}  // namespace baton::wire
