// Property: whatever object a stranger sends, an edited body parses, the edited keys have their values once, every other member
// keeps its bytes and its place.
#include <algorithm>

#include "wire/splice.h"

namespace {

using baton::Json;

std::vector<std::pair<std::string_view, std::string_view>> others(std::string_view text, const Json& root) {
  std::vector<std::pair<std::string_view, std::string_view>> out;
  for (size_t i = 0; i < root.items.size(); ++i) {
    if (root.keys[i] != "a" && root.keys[i] != "b") out.emplace_back(root.keys[i], root.items[i].raw(text));
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace baton;
  std::string_view text(reinterpret_cast<const char*>(bytes), size);
  auto root = parse_json(text);
  if (!root || !root->is_object()) return 0;
  std::string edited = wire::Splice(text, *root).set({"a"}, "[7]").erase({"b"}).set({"c", "d"}, "8").text();
  auto after = parse_json(edited);
  BATON_CHECK(after.has_value());
  BATON_CHECK(after->find("a")->raw(edited) == "[7]" && std::ranges::count(after->keys, "a") == 1);
  BATON_CHECK(!after->find("b"));
  BATON_CHECK(after->find_path({"c", "d"})->raw(edited) == "8" && std::ranges::count(after->keys, "c") == 1);
  auto keep = [](const auto& member) { return member.first != "c"; };
  auto before = others(text, *root), now = others(edited, *after);
  std::erase_if(before, [&](const auto& m) { return !keep(m); });
  std::erase_if(now, [&](const auto& m) { return !keep(m); });
  BATON_CHECK(before == now);
  return 0;
}
