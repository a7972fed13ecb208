#pragma once
// Does a value satisfy a schema? Written apart from schema.cc, straight from the standard, for the keywords that the cases use;
// patterns and formats are not looked at.
#include "base/json.h"
#include "grammar/json_rules.h"

namespace baton::grammar::testing {

class Validator {
 public:
  explicit Validator(const Json& root) : root_(root) {}

  bool valid(const Json& v, const Json& s) const {
    if (s.is_bool()) return s.boolean;
    if (const Json* ref = s.find("$ref"); ref && !valid(v, *target(ref->text))) return false;
    if (const Json* all = s.find("allOf"); all && count(v, *all) != all->items.size()) return false;
    if (const Json* any = s.find("anyOf"); any && count(v, *any) == 0) return false;
    if (const Json* one = s.find("oneOf"); one && count(v, *one) != 1) return false;
    if (const Json* value = s.find("const"); value && json_text(*value) != json_text(v)) return false;
    if (const Json* list = s.find("enum")) {
      bool found = false;
      for (const Json& value : list->items) found |= json_text(value) == json_text(v);
      if (!found) return false;
    }
    if (const Json* type = s.find("type"); type && !has_type(v, *type)) return false;
    return number(v, s) && string(v, s) && array(v, s) && object(v, s);
  }

 private:
  const Json* target(std::string_view pointer) const {
    const Json* found = &root_;
    for (size_t at = 1; at < pointer.size();) {
      const size_t end = std::min(pointer.find('/', at + 1), pointer.size());
      found = found->find(pointer.substr(at + 1, end - at - 1));
      at = end;
    }
    return found;
  }
  size_t count(const Json& v, const Json& list) const {
    size_t n = 0;
    for (const Json& s : list.items) n += valid(v, s);
    return n;
  }
  static bool has_type(const Json& v, const Json& type) {
    if (type.is_array()) {
      for (const Json& one : type.items) {
        if (has_type(v, one)) return true;
      }
      return false;
    }
    if (type.text == "integer") return v.is_number() && v.text.find_first_of(".eE") == std::string::npos;
    return v.kind_name() == type.text;
  }
  static double at(const Json& s, std::string_view key, double otherwise) {
    const Json* value = s.find(key);
    return value ? value->as_double().value_or(otherwise) : otherwise;
  }
  static bool number(const Json& v, const Json& s) {
    if (!v.is_number()) return true;
    const double x = std::atof(v.text.c_str());
    constexpr double kFar = 1e308;
    return x >= at(s, "minimum", -kFar) && x <= at(s, "maximum", kFar) && x > at(s, "exclusiveMinimum", -kFar) &&
           x < at(s, "exclusiveMaximum", kFar);
  }
  static bool string(const Json& v, const Json& s) {
    const double n = static_cast<double>(code_points(v.text).size());
    return !v.is_string() || (n >= at(s, "minLength", 0) && n <= at(s, "maxLength", n));
  }
  bool array(const Json& v, const Json& s) const {
    if (!v.is_array()) return true;
    const auto n = static_cast<double>(v.items.size());
    if (n < at(s, "minItems", 0) || n > at(s, "maxItems", n)) return false;
    const Json *prefix = s.find("prefixItems"), *items = s.find("items");
    for (size_t i = 0; i < v.items.size(); ++i) {
      const bool first = prefix && i < prefix->items.size();
      if (first ? !valid(v.items[i], prefix->items[i]) : items && !valid(v.items[i], *items)) return false;
    }
    return true;
  }
  bool object(const Json& v, const Json& s) const {
    if (!v.is_object()) return true;
    const auto n = static_cast<double>(v.items.size());
    if (n < at(s, "minProperties", 0) || n > at(s, "maxProperties", n)) return false;
    if (const Json* required = s.find("required")) {
      for (const Json& name : required->items) {
        if (!v.find(name.text)) return false;
      }
    }
    const Json *described = s.find("properties"), *more = s.find("additionalProperties");
    for (size_t i = 0; i < v.items.size(); ++i) {
      const Json* own = described ? described->find(v.keys[i]) : nullptr;
      if (own ? !valid(v.items[i], *own) : more && !s.find("patternProperties") && !valid(v.items[i], *more)) return false;
    }
    return true;
  }
  const Json& root_;
};

}  // namespace baton::grammar::testing
