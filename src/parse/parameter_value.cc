#include "parse/parameter_value.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>

#include "parse/event.h"
#include "parse/limits.h"
#include "parse/python_literal.h"

namespace baton::parse {
namespace {

std::string lower(std::string_view s) {
  std::string out(s);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}
// {"type": ["string", "null"]}, or a null among the alternatives.
bool may_be_null(const Json& property) {
  const auto is_null = [](const Json& j) { return j.as_string() == "null"; };
  if (const Json* type = property.find("type")) return is_null(*type) || std::ranges::any_of(type->items, is_null);
  for (const char* key : {"anyOf", "oneOf"}) {
    const Json* ways = property.find(key);
    const auto allows = [&](const Json& way) { return way.find("type") && is_null(*way.find("type")); };
    if (ways && std::ranges::any_of(ways->items, allows)) return true;
  }
  return false;
}

std::string type_of(const Json& schema) {
  const Json* type = schema.find("type");
  if (type && type->is_string()) return lower(trimmed(type->text));
  return may_be_null(schema) ? "string or null" : "string";
}

std::optional<std::string> whole_number(std::string_view text) {
  const bool minus = text.starts_with('-');
  if (minus || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || !std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; })) return std::nullopt;
  while (text.size() > 1 && text.front() == '0') text.remove_prefix(1);
  return cat(minus && text != "0" ? "-" : "", text);
}

std::optional<std::string> number(std::string_view text) {
  if (auto whole = whole_number(text)) return whole;
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || problem != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  if (value == std::trunc(value) && std::abs(value) < 9e15) return std::to_string(static_cast<int64_t>(value));
  JsonWriter w;
  w.value(value);
  return w.take();
}

std::string as_json(std::string_view value, std::string_view type) {
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::ranges::find(names, type) != names.end();
  };
  const auto begins = [&](std::initializer_list<std::string_view> names) {
    return std::ranges::any_of(names, [&](std::string_view name) { return type.starts_with(name); });
  };
  const std::string_view bare = trimmed(value);
  if (is_one_of({"string", "str", "text", "varchar", "char", "enum"})) return json_string(value);
  if (lower(bare) == "null") return "null";
  if (type == "string or null") return json_string(value);
  if (begins({"int", "uint", "long", "short", "unsigned"})) return whole_number(bare).value_or(json_string(value));
  if (begins({"num", "float"})) return number(bare).value_or(json_string(value));
  if (is_one_of({"boolean", "bool", "binary"})) return lower(bare) == "true" ? "true" : "false";
  if (parse_json(bare, {.depth_max = static_cast<int>(kNestingMax)})) return std::string(bare);
  return python_to_json(bare).value_or(json_string(type == "any" ? bare : value));
}

}  // namespace

const Json* parameters_schema(const Json& tools, std::string_view function) {
  for (const Json& tool : tools.items) {
    const Json* name = tool.find_path({"function", "name"});
    if (name != nullptr && name->text == function) return tool.find_path({"function", "parameters"});
  }
  return nullptr;
}

const Json* member_schema(const Json* schema, std::string_view name) {
  if (schema == nullptr) return nullptr;
  const Json* properties = schema->find("properties");
  return (properties ? properties : schema)->find(name);
}

std::string value_json(const Json* schema, std::string_view value, std::string_view undeclared) {
  return as_json(value, schema ? type_of(*schema) : undeclared);
}

std::string parameter_json(const Json& tools, std::string_view function, std::string_view parameter, std::string_view value,
                           std::string_view undeclared) {
  return value_json(member_schema(parameters_schema(tools, function), parameter), value, undeclared);
}

}  // namespace baton::parse
