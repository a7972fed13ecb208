// Two schemas as one: allOf, and keywords beside $ref or anyOf.
#include <algorithm>
#include <functional>

#include "grammar/limits.h"
#include "grammar/schema.h"

namespace baton::grammar {
namespace {

std::vector<Json> list_of(const Json& v) { return v.is_array() ? v.items : std::vector<Json>{v}; }

bool has(const std::vector<Json>& list, const Json& value) {
  const std::string text = json_text(value);
  return std::any_of(list.begin(), list.end(), [&](const Json& one) { return json_text(one) == text; });
}

Json array_of(std::vector<Json> items) {
  Json out;
  out.kind = Json::Kind::kArray;
  out.items = std::move(items);
  return out;
}

Json common_types(const Json& a, const Json& b) {
  std::vector<Json> out;
  const auto is = [](const Json& v, std::string_view name) { return v.as_string() == name; };
  for (const Json& x : list_of(a)) {
    for (const Json& y : list_of(b)) {
      if (x.text == y.text || (is(x, "integer") && is(y, "number"))) {
        if (!has(out, x)) out.push_back(x);
      } else if (is(x, "number") && is(y, "integer") && !has(out, y)) {
        out.push_back(y);
      }
    }
  }
  return out.size() == 1 ? out[0] : array_of(std::move(out));
}

// A bound of both: the larger of two minima, the smaller of two maxima.
Json tighter(std::string_view key, const Json& a, const Json& b) {
  const bool least = key.starts_with("min") || key == "exclusiveMinimum";
  const double x = a.as_double().value_or(0), y = b.as_double().value_or(0);
  return (x > y) == least ? a : b;
}

bool closed(const Json& s) {
  const Json* more = s.find("additionalProperties");
  return more && !(more->is_bool() && more->boolean);
}

bool names_differ(const Json& a, const Json& b) {
  const Json* x = a.find("properties");
  const Json* y = b.find("properties");
  std::vector<std::string> p = x ? x->keys : std::vector<std::string>{}, q = y ? y->keys : std::vector<std::string>{};
  std::sort(p.begin(), p.end());
  std::sort(q.begin(), q.end());
  return p != q;
}

Result<Json> merge(const Json& a, const Json& b, int depth);

// The members of both; both(key, mine, theirs) of those that both have.
template <class Both>
Result<Json> merge_members(const Json& a, const Json& b, Both both) {
  Json out = a;
  for (size_t i = 0; i < b.keys.size(); ++i) {
    Json* mine = out.find(b.keys[i]);
    if (!mine) {
      out.set(b.keys[i], b.items[i]);
      continue;
    }
    BATON_TRY(Json merged, both(b.keys[i], *mine, b.items[i]));
    *mine = std::move(merged);
  }
  return out;
}

Result<Json> merge_keyword(const std::string& key, const Json& a, const Json& b, int depth) {
  static constexpr std::string_view kBounds[] = {"minimum",       "maximum",      "exclusiveMinimum", "exclusiveMaximum",
                                                 "minLength",     "maxLength",    "minItems",         "maxItems",
                                                 "minProperties", "maxProperties"};
  static constexpr std::string_view kNotes[] = {"title",   "description", "default",  "examples", "$comment",
                                                "$schema", "deprecated",  "readOnly", "writeOnly"};
  if (json_text(a) == json_text(b)) return a;
  if (std::ranges::find(kNotes, key) != std::end(kNotes)) return a;
  if (key == "type") return common_types(a, b);
  if (key == "required") {
    std::vector<Json> all = list_of(a);
    for (const Json& name : list_of(b)) {
      if (!has(all, name)) all.push_back(name);
    }
    return array_of(std::move(all));
  }
  if (key == "enum") {
    std::vector<Json> both;
    for (const Json& value : list_of(a)) {
      if (has(list_of(b), value)) both.push_back(value);
    }
    return array_of(std::move(both));
  }
  if (std::ranges::find(kBounds, key) != std::end(kBounds) && a.is_number() && b.is_number()) return tighter(key, a, b);
  if ((key == "properties" || key == "$defs" || key == "definitions") && a.is_object() && b.is_object())
    return merge_members(a, b, [depth](const std::string&, const Json& x, const Json& y) { return merge(x, y, depth); });
  if (key == "items" || key == "additionalProperties") return merge(a, b, depth);
  return fail(Code::kUnimplemented, "two different \"", key, "\" for one value");
}

Result<Json> merge(const Json& a, const Json& b, int depth) {
  if (depth > kNestingMax) return fail(Code::kInvalidArgument, "schemas nested too deeply");
  if (b.is_bool()) return b.boolean ? a : b;
  if (a.is_bool()) return a.boolean ? b : a;
  if (!a.is_object() || !b.is_object()) return fail(Code::kInvalidArgument, "a schema must be an object or a boolean");
  // additionalProperties speaks of the properties beside it, so it cannot be kept where others come in.
  if ((closed(a) || closed(b)) && names_differ(a, b))
    return fail(Code::kUnimplemented, "\"additionalProperties\" of one schema with the \"properties\" of another");
  return merge_members(a, b, [depth](const std::string& key, const Json& x, const Json& y) { return merge_keyword(key, x, y, depth + 1); });
}

}  // namespace

Result<Json> merge_schemas(const Json& a, const Json& b) { return merge(a, b, 0); }

}  // namespace baton::grammar
