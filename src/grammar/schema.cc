#include "grammar/schema.h"

#include <algorithm>

#include "grammar/schema_writer.h"

namespace baton::grammar {
namespace {

bool one_of(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

// Says nothing about what is allowed, here or by the standard.
bool is_note(std::string_view key) {
  static constexpr std::string_view kKnown[] = {"type",
                                                "enum",
                                                "const",
                                                "properties",
                                                "required",
                                                "additionalProperties",
                                                "patternProperties",
                                                "propertyNames",
                                                "items",
                                                "minItems",
                                                "maxItems",
                                                "prefixItems",
                                                "additionalItems",
                                                "minProperties",
                                                "maxProperties",
                                                "minLength",
                                                "maxLength",
                                                "pattern",
                                                "format",
                                                "minimum",
                                                "maximum",
                                                "exclusiveMinimum",
                                                "exclusiveMaximum",
                                                "anyOf",
                                                "oneOf",
                                                "allOf",
                                                "$ref",
                                                "unevaluatedProperties"};
  return std::ranges::find(kKnown, key) == std::end(kKnown);
}

Json without(const Json& schema, std::string_view key) {
  Json out = schema;
  for (size_t i = out.keys.size(); i-- > 0;) {
    if (out.keys[i] != key) continue;
    out.keys.erase(out.keys.begin() + static_cast<std::ptrdiff_t>(i));
    out.items.erase(out.items.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return out;
}

bool only_notes(const Json& schema) { return std::all_of(schema.keys.begin(), schema.keys.end(), is_note); }

std::string_view type_of(const Json& value) {
  switch (value.kind) {
    case Json::Kind::kNull:
      return "null";
    case Json::Kind::kBool:
      return "boolean";
    case Json::Kind::kNumber:
      return value.as_int() ? "integer" : "number";
    case Json::Kind::kString:
      return "string";
    case Json::Kind::kArray:
      return "array";
    case Json::Kind::kObject:
      return "object";
  }
  return "";
}

bool allows_type(const Json* types, std::string_view type) {
  if (!types) return true;
  const auto is = [&](const Json& t) { return t.text == type || (t.text == "number" && type == "integer"); };
  return types->is_array() ? std::any_of(types->items.begin(), types->items.end(), is) : is(*types);
}

// The values of enum or const, nullptr if there is neither.
const std::vector<Json>* values_of(const Json& schema, std::vector<Json>& one) {
  if (const Json* value = schema.find("const")) {
    one = {*value};
    return &one;
  }
  const Json* list = schema.find("enum");
  return list ? &list->items : nullptr;
}

bool requires_name(const Json& schema, std::string_view name) {
  const Json* list = schema.find("required");
  return list && std::any_of(list->items.begin(), list->items.end(), [&](const Json& n) { return n.text == name; });
}

// The types that a schema without "type" speaks of: other values would pass too, but none of them is meant.
std::vector<std::string_view> implied_types(const Json& schema) {
  std::vector<std::string_view> out;
  const auto any = [&](std::initializer_list<std::string_view> keys) {
    return std::any_of(schema.keys.begin(), schema.keys.end(), [&](const std::string& k) { return one_of(k, keys); });
  };
  if (any({"properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
           "maxProperties"}))
    out.push_back("object");
  if (any({"items", "prefixItems", "minItems", "maxItems"})) out.push_back("array");
  if (any({"minLength", "maxLength", "pattern", "format"})) out.push_back("string");
  if (any({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) out.push_back("number");
  return out;
}

}  // namespace

Result<> SchemaWriter::refuse_keywords(const Place& at) const {
  for (size_t i = 0; i < at.schema.keys.size(); ++i) {
    const std::string& key = at.schema.keys[i];
    const Json& value = at.schema.items[i];
    const bool off = (value.is_bool() && !value.boolean) || value.is_null();
    if (one_of(key, {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "contains",
                     "minContains", "maxContains", "multipleOf", "unevaluatedItems", "$dynamicRef", "$recursiveRef"}) ||
        (key == "uniqueItems" && !off) || (key == "unevaluatedProperties" && !value.is_bool()))
      return refused(at, "\"", key, "\"");
  }
  return {};
}

Result<ExprId> SchemaWriter::value(const Place& at) {
  BATON_TRY(const ExprId expr, unwrapped(at));
  const Expr::Kind kind = r_.at(expr).kind;
  return kind == Expr::Kind::kCall || kind == Expr::Kind::kBytes ? expr : r_.rule(at.path, expr);
}

Result<ExprId> SchemaWriter::unwrapped(const Place& at) {
  const Json& s = at.schema;
  if (at.depth > kNestingMax) return invalid(at, "schemas nested more than ", kNestingMax, " deep, or without end");
  if (r_.full()) return invalid(at, "it is too large");
  if (s.is_bool()) return s.boolean ? Result<ExprId>(json_.value()) : Result<ExprId>(r_.alt({}));
  if (!s.is_object()) return invalid(at, "a schema must be an object or a boolean");
  BATON_OK(refuse_keywords(at));
  if (const Json* pointer = s.find("$ref")) {
    if (!pointer->is_string()) return invalid(at, "\"$ref\" must be a string");
    if (only_notes(without(s, "$ref"))) return reference(at, pointer->text);
    BATON_TRY(const Json merged, without_reference(at, s));
    return value({merged, at.path, at.depth + 1});
  }
  if (s.find("allOf")) return all_of(at);
  for (const char* key : {"anyOf", "oneOf"}) {
    if (s.find(key)) return any_of(at, key);
  }
  if (s.find("const") || s.find("enum")) return choices(at);
  std::vector<std::string_view> types = implied_types(s);
  if (const Json* type = s.find("type")) {
    types.clear();
    if (type->is_string()) types.push_back(type->text);
    for (const Json& t : type->items) types.push_back(t.text);
    if (types.empty()) return invalid(at, "\"type\" must be a type or a list of types");
  }
  if (types.empty()) return json_.value();
  std::vector<ExprId> ways;
  for (const std::string_view type : types) {
    if (type == "integer" && std::ranges::find(types, "number") != types.end()) continue;
    BATON_TRY(const ExprId way, typed(at, type));
    ways.push_back(way);
  }
  return r_.alt(std::move(ways));
}

Result<const Json*> SchemaWriter::resolve(const Place& at, std::string_view pointer) const {
  if (!pointer.starts_with('#') || (pointer.size() > 1 && pointer[1] != '/')) return refused(at, "\"$ref\": \"", pointer, "\"");
  const Json* found = &root_;
  std::string_view rest = pointer.substr(1);
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const size_t end = std::min(rest.find('/'), rest.size());
    std::string key;
    for (size_t i = 0; i < end; ++i) {
      const bool tilde = rest[i] == '~' && i + 1 < end;
      if (tilde) ++i;
      key += tilde ? (rest[i] == '1' ? '/' : '~') : rest[i];
    }
    rest.remove_prefix(end);
    if (found->is_array()) {
      const auto index = parse_json(key.empty() ? "x" : key);
      const auto i = index ? index->as_uint().value_or(UINT64_MAX) : UINT64_MAX;
      found = i < found->items.size() ? &found->items[i] : nullptr;
    } else {
      found = found->find(key);
    }
    if (!found) return invalid(at, "\"$ref\": \"", pointer, "\" leads nowhere");
  }
  return found;
}

Result<ExprId> SchemaWriter::reference(const Place& at, std::string_view pointer) {
  if (const auto it = references_.find(pointer); it != references_.end()) return r_.call(it->second);
  BATON_TRY(const Json* target, resolve(at, pointer));
  const RuleId rule = r_.add(std::string(pointer));
  references_.emplace(pointer, rule);
  BATON_TRY(const ExprId written, unwrapped({*target, std::string(pointer), at.depth + 1}));
  r_.define(rule, written);
  return r_.call(rule);
}

bool SchemaWriter::spend(const Json& copied) const {
  copied_ += 256 + (copied.end - copied.begin);
  return copied_ <= kMergedBytesMax;
}

// The schema with what its $ref points at written into it.
Result<Json> SchemaWriter::without_reference(const Place& at, const Json& schema) const {
  if (!spend(schema)) return invalid(at, "it is too large once \"allOf\", \"anyOf\" and \"$ref\" are written out");
  Json out = schema;
  for (int hops = 0; out.is_object() && out.find("$ref"); ++hops) {
    if (hops > kNestingMax) return invalid(at, "\"$ref\" leads to itself");
    BATON_TRY(const Json* target, resolve(at, out.find("$ref")->text));
    if (!spend(*target)) return invalid(at, "it is too large once \"allOf\", \"anyOf\" and \"$ref\" are written out");
    auto merged = merge_schemas(without(out, "$ref"), *target);
    if (!merged) return refused(at, merged.error().message);
    out = *std::move(merged);
  }
  return out;
}

Result<ExprId> SchemaWriter::all_of(const Place& at) {
  const Json& list = *at.schema.find("allOf");
  if (!list.is_array() || list.items.empty()) return invalid(at, "\"allOf\" must be a list of schemas");
  Json merged = without(at.schema, "allOf");
  if (only_notes(merged) && list.items.size() == 1) return value(at.under("allOf/0", list.items[0]));
  for (const Json& part : list.items) {
    BATON_TRY(const Json plain, without_reference(at, part));
    if (merged.find("allOf")) return refused(at, "\"allOf\" within \"allOf\"");
    auto both = merge_schemas(merged, plain);
    if (!both) return refused(at, both.error().message);
    merged = *std::move(both);
  }
  return value({merged, at.path, at.depth + 1});
}

Result<ExprId> SchemaWriter::any_of(const Place& at, const std::string& key) {
  const Json& list = *at.schema.find(key);
  if (!list.is_array() || list.items.empty()) return invalid(at, "\"", key, "\" must be a list of schemas");
  const Json base = without(at.schema, key);
  const bool alone = only_notes(base);
  std::vector<Json> ways;
  for (const Json& part : list.items) {
    if (alone) {
      ways.push_back(part);
      continue;
    }
    BATON_TRY(const Json plain, without_reference(at, part));
    if (!spend(base)) return invalid(at, "it is too large once \"", key, "\" is written out");
    auto both = merge_schemas(base, plain);
    if (!both) return refused(at, both.error().message);
    ways.push_back(*std::move(both));
  }
  for (size_t i = 0; key == "oneOf" && i < ways.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (!disjoint(ways[k], ways[i], 0))
        return refused(at, "\"oneOf\" whose alternatives ", k, " and ", i, " may both hold (use \"anyOf\")");
    }
  }
  std::vector<ExprId> written;
  for (size_t i = 0; i < ways.size(); ++i) {
    BATON_TRY(const ExprId way, value(at.under(cat(key, "/", i), ways[i])));
    written.push_back(way);
  }
  return r_.alt(std::move(written));
}

// enum and const: the values themselves, of the types allowed.
Result<ExprId> SchemaWriter::choices(const Place& at) {
  std::vector<Json> one;
  const std::vector<Json>* values = values_of(at.schema, one);
  for (const std::string& key : at.schema.keys) {
    if (!is_note(key) && !one_of(key, {"type", "enum", "const"}))
      return refused(at, "\"", key, "\" beside \"enum\" or \"const\"");
  }
  const Json* list = at.schema.find("enum");
  if (list && !list->is_array()) return invalid(at, "\"enum\" must be a list");
  std::vector<ExprId> ways;
  for (const Json& v : *values) {
    if (!allows_type(at.schema.find("type"), type_of(v))) continue;
    if (values == &one && list &&
        std::none_of(list->items.begin(), list->items.end(), [&](const Json& x) { return json_text(x) == json_text(v); }))
      continue;
    ways.push_back(json_.literal(v));
  }
  return r_.alt(std::move(ways));
}

// Can no value satisfy both? false where we cannot tell.
bool SchemaWriter::disjoint(const Json& x, const Json& y, int depth) const {
  const Place here{x, "#"};
  const auto a = without_reference(here, x), b = without_reference(here, y);
  if (depth > 8 || !a || !b || !a->is_object() || !b->is_object()) return false;
  for (const char* key : {"anyOf", "oneOf"}) {
    for (const auto& [many, other] : {std::pair(&*a, &*b), std::pair(&*b, &*a)}) {
      const Json* list = many->find(key);
      if (list && list->is_array())
        return std::all_of(list->items.begin(), list->items.end(),
                           [&](const Json& way) { return disjoint(way, *other, depth + 1); });
    }
  }
  std::vector<Json> one, two;
  const auto *p = values_of(*a, one), *q = values_of(*b, two);
  const auto outside = [](const std::vector<Json>& values, const Json& schema) {
    return std::none_of(values.begin(), values.end(),
                        [&](const Json& v) { return allows_type(schema.find("type"), type_of(v)); });
  };
  if (p && q) {
    return std::none_of(p->begin(), p->end(), [&](const Json& v) {
      return std::any_of(q->begin(), q->end(), [&](const Json& w) { return json_text(v) == json_text(w); });
    });
  }
  if ((p && outside(*p, *b)) || (q && outside(*q, *a))) return true;
  static constexpr std::string_view kTypes[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
  if (std::ranges::none_of(
          kTypes, [&](std::string_view t) { return allows_type(a->find("type"), t) && allows_type(b->find("type"), t); }))
    return true;
  for (const auto& [have, other] : {std::pair(&*a, &*b), std::pair(&*b, &*a)}) {
    const Json *mine = have->find("properties"), *theirs = other->find("properties"), *more = other->find("additionalProperties");
    for (size_t i = 0; mine && mine->is_object() && i < mine->keys.size(); ++i) {
      if (!requires_name(*have, mine->keys[i])) continue;
      const Json* same = theirs ? theirs->find(mine->keys[i]) : nullptr;
      if (!same && more && more->as_bool() == false) return true;
      if (same && requires_name(*other, mine->keys[i]) && disjoint(mine->items[i], *same, depth + 1)) return true;
    }
  }
  return false;
}

Result<ExprId> schema(JsonRules& json, const Json& root) { return SchemaWriter(json, root).value({root, "#"}); }

}  // namespace baton::grammar
