// SchemaWriter, the keywords of each type.
#include <algorithm>

#include "grammar/formats.h"
#include "grammar/number_range.h"
#include "grammar/schema_writer.h"

namespace baton::grammar {
namespace {

constexpr size_t kNameBytesMax = 200;  // of a property, where others may stand beside it: its automaton is as deep
constexpr size_t kWrittenOutMax = 8;   // optional members at the front of an object up to which each beginning is written out

struct Lengths {
  int64_t min = 0, max = 0;  // max kNoEnd = any
};

// Characters in a text that matches; `e` has no calls.
Lengths lengths_of(const Rules& r, ExprId id) {
  const Expr& e = r.at(id);
  Lengths out;
  switch (e.kind) {
    case Expr::Kind::kBytes:
      return {static_cast<int64_t>(e.bytes.size()), static_cast<int64_t>(e.bytes.size())};
    case Expr::Kind::kChars:
    case Expr::Kind::kCall:
      return {1, 1};
    case Expr::Kind::kFree:  // no pattern makes it
      return {0, kNoEnd};
    case Expr::Kind::kSeq:
      for (const ExprId part : e.parts) {
        const Lengths l = lengths_of(r, part);
        out.min += l.min;
        out.max = out.max == kNoEnd || l.max == kNoEnd ? kNoEnd : out.max + l.max;
      }
      return out;
    case Expr::Kind::kAlt:
      for (size_t i = 0; i < e.parts.size(); ++i) {
        const Lengths l = lengths_of(r, e.parts[i]);
        out.min = i == 0 ? l.min : std::min(out.min, l.min);
        out.max = out.max == kNoEnd || l.max == kNoEnd ? kNoEnd : std::max(out.max, l.max);
      }
      return out;
    case Expr::Kind::kRepeat: {
      const Lengths l = lengths_of(r, e.parts[0]);
      constexpr int64_t kFar = int64_t{1} << 40;
      out.min = std::min(kFar, l.min * e.min);
      out.max = l.max == 0 ? 0 : l.max == kNoEnd || e.max == kNoEnd ? kNoEnd : std::min(kFar, l.max * e.max);
      return out;
    }
  }
  return out;
}

}  // namespace

Result<ExprId> SchemaWriter::typed(const Place& at, std::string_view type) {
  if (type == "object") return object(at);
  if (type == "array") return array(at);
  if (type == "string") return string(at);
  if (type == "integer" || type == "number") return number(at, type == "integer");
  if (type == "boolean") return json_.boolean();
  if (type == "null") return json_.null();
  return invalid(at, "there is no type \"", type, "\"");
}

Result<std::optional<int32_t>> SchemaWriter::count(const Place& at, std::string_view key) const {
  const Json* value = at.schema.find(key);
  if (!value) return std::nullopt;
  const auto n = value->as_int();
  if (!n || *n < 0) return invalid(at, "\"", key, "\" must be a whole number");
  if (*n > kRepeatMax) return refused(at, "\"", key, "\" over ", kRepeatMax);
  return static_cast<int32_t>(*n);
}

ExprId SchemaWriter::list(ExprId item, int32_t min, int32_t max) {
  const int32_t more = max == kNoEnd ? kNoEnd : max - 1;
  return r_.seq({item, r_.repeat(r_.seq({json_.comma(), item}), std::max(0, min - 1), more)});
}

// ---- objects

// A string of plain characters that is none of these names.
ExprId SchemaWriter::name_other_than(const std::vector<std::string>& names) {
  static const CodeRanges kPlain{{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
  const ExprId quote = r_.bytes("\""), any = r_.repeat(r_.chars(kPlain), 0, kNoEnd);
  std::vector<std::vector<uint32_t>> texts;
  for (const std::string& name : names) texts.push_back(code_points(name));
  // Of the texts that begin alike up to `i`, what may follow.
  const auto rest = [&](const auto& self, const std::vector<size_t>& alike, size_t i) -> ExprId {
    std::map<uint32_t, std::vector<size_t>> next;
    bool whole = false;
    for (const size_t t : alike) {
      if (texts[t].size() == i)
        whole = true;
      else
        next[texts[t][i]].push_back(t);
    }
    CodeRanges taken;
    std::vector<ExprId> ways;
    if (!whole) ways.push_back(quote);
    for (const auto& [c, those] : next) {
      taken.push_back({c, c});
      if (contains(kPlain, c)) ways.push_back(r_.seq({r_.chars({{c, c}}), self(self, those, i + 1)}));
    }
    ways.push_back(r_.seq({r_.chars(common(kPlain, others(taken))), any, quote}));
    return r_.alt(std::move(ways));
  };
  std::vector<size_t> all(names.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  return r_.rule("other name", r_.seq({quote, rest(rest, all, 0)}));
}

Result<std::vector<SchemaWriter::Member>> SchemaWriter::members(const Place& at, bool& closed) {
  const Json& s = at.schema;
  std::set<std::string, std::less<>> required;
  if (const Json* names = s.find("required")) {
    if (!names->is_array()) return invalid(at, "\"required\" must be a list of names");
    for (const Json& name : names->items) required.insert(name.text);
  }
  std::vector<Member> out;
  const auto add = [&](const std::string& name, const Place& place) -> Result<> {
    BATON_TRY(const ExprId written, value(place));
    out.push_back({name, r_.seq({json_.quoted(name), json_.colon(), written}), required.erase(name) > 0});
    return {};
  };
  if (const Json* properties = s.find("properties")) {
    if (!properties->is_object()) return invalid(at, "\"properties\" must be an object");
    for (size_t i = 0; i < properties->keys.size(); ++i) {
      const Json& child = properties->items[i];
      if (child.is_bool() && !child.boolean && !required.contains(properties->keys[i])) {
        closed = true;  // that name must not come at all, so it cannot be among others
        continue;
      }
      BATON_OK(add(properties->keys[i], at.under(cat("properties/", properties->keys[i]), child)));
    }
  }
  // A required name that is not described is what other members are.
  const Json* more = s.find("additionalProperties");
  static const Json kAnything = *parse_json("true");
  if (s.find("patternProperties") && !required.empty()) return refused(at, "\"required\" names beside \"patternProperties\"");
  for (const std::set<std::string, std::less<>> left = required; const std::string& name : left)
    BATON_OK(add(name, at.under(cat("required/", name), more ? *more : kAnything)));
  return out;
}

// How a member that is not described is written; nullopt: there is none.
Result<std::optional<ExprId>> SchemaWriter::extra_member(const Place& at, const std::vector<std::string>& names) {
  const Json& s = at.schema;
  const Json *more = s.find("additionalProperties"), *patterns = s.find("patternProperties"),
             *all_names = s.find("propertyNames");
  if (!more) more = s.find("unevaluatedProperties");
  const bool forbidden = more && more->as_bool() == false;
  if (patterns) {
    if (!patterns->is_object()) return invalid(at, "\"patternProperties\" must be an object");
    if (patterns->items.size() > 1) return refused(at, "more than one of \"patternProperties\"");
    if (patterns->items.empty()) return std::nullopt;
    if (!names.empty() || all_names || (more && !forbidden)) return refused(at, "\"patternProperties\" beside other properties");
    BATON_TRY(const ExprId key, regex(r_, patterns->keys[0], {.search = true, .chars = JsonRules::chars}));
    BATON_TRY(const ExprId written, value(at.under("patternProperties/0", patterns->items[0])));
    return r_.seq({r_.bytes("\""), key, r_.bytes("\""), json_.colon(), written});
  }
  if (forbidden || (!more && !(names.empty() && !s.find("properties")))) return std::nullopt;
  ExprId key = json_.string();
  if (all_names) {
    if (!names.empty()) return refused(at, "\"propertyNames\" beside \"properties\"");
    const Json* type = all_names->find("type");
    if (type && type->text != "string") return invalid(at, "a property's name is a string");
    BATON_TRY(key, all_names->is_object() && !all_names->find("enum") && !all_names->find("const") && !all_names->find("$ref")
                       ? string(at.under("propertyNames", *all_names))
                       : value(at.under("propertyNames", *all_names)));
  } else if (!names.empty()) {
    if (std::ranges::any_of(names, [](const std::string& n) { return n.size() > kNameBytesMax; }))
      return refused(at, "property names over ", kNameBytesMax, " bytes beside \"additionalProperties\"");
    key = name_other_than(names);
  }
  ExprId written = json_.value();
  if (more && !more->is_bool()) {
    BATON_TRY(written, value(at.under("additionalProperties", *more)));
  }
  return r_.seq({key, json_.colon(), written});
}

// The members in order, the optional ones perhaps left out, then any number of extra ones; a comma stands before all but the
// first that is written. May be empty.
ExprId SchemaWriter::in_order(const std::vector<Member>& members, std::optional<ExprId> extra) {
  const size_t n = members.size();
  std::vector<ExprId> behind(n + 1);  // what follows member i - 1, which is written
  behind[n] = extra ? r_.repeat(r_.seq({json_.comma(), *extra}), 0, kNoEnd) : r_.bytes("");
  size_t front = 0;
  while (front < n && !members[front].required) ++front;
  const bool rules = front > kWrittenOutMax;
  for (size_t i = n; i-- > 0;) {
    const ExprId one = r_.seq({json_.comma(), members[i].written});
    behind[i] = r_.seq({members[i].required ? one : r_.optional(one), behind[i + 1]});
    if (rules && i <= front + 1) behind[i] = r_.rule("members", behind[i]);
  }
  std::vector<ExprId> ways;
  for (size_t i = 0; i < n; ++i) {
    ways.push_back(r_.seq({members[i].written, behind[i + 1]}));
    if (members[i].required) return r_.alt(std::move(ways));
  }
  if (extra) ways.push_back(list(*extra, 1, kNoEnd));
  ways.push_back(r_.bytes(""));
  return r_.alt(std::move(ways));
}

// minProperties and maxProperties: of members that are all alike, or where they say nothing more. bounded: they were written.
Result<ExprId> SchemaWriter::counted_members(const Place& at, std::optional<ExprId> extra, size_t required, size_t declared,
                                             bool& bounded) {
  BATON_TRY(const auto min, count(at, "minProperties"));
  BATON_TRY(const auto max, count(at, "maxProperties"));
  bounded = false;
  const bool enough = std::cmp_less_equal(min.value_or(0), required);
  const bool few = !max || (!extra && std::cmp_greater_equal(*max, declared));
  if (enough && few) return 0;
  if (declared > 0 || !extra) return refused(at, enough ? "\"maxProperties\"" : "\"minProperties\"", " beside \"properties\"");
  if (max && *max < min.value_or(0)) return invalid(at, "\"maxProperties\" below \"minProperties\"");
  bounded = true;
  if (max == 0) return json_.braces('{', r_.alt({}), '}', true);
  return json_.braces('{', list(*extra, min.value_or(0), max.value_or(kNoEnd)), '}', min.value_or(0) == 0);
}

Result<ExprId> SchemaWriter::object(const Place& at) {
  bool closed = false;
  BATON_TRY(const std::vector<Member> all, members(at, closed));
  std::vector<std::string> names;
  size_t required = 0;
  for (const Member& m : all) {
    names.push_back(m.name);
    required += m.required;
  }
  BATON_TRY(auto extra, extra_member(at, names));
  if (closed && extra) return refused(at, "a property that is false beside \"additionalProperties\"");
  bool bounded = false;
  BATON_TRY(const ExprId counted, counted_members(at, extra, required, all.size(), bounded));
  if (bounded) return counted;
  if (all.empty() && !extra) return r_.seq({r_.bytes("{"), json_.space(), r_.bytes("}")});
  if (all.empty()) return json_.braces('{', list(*extra, 1, kNoEnd), '}', true);
  return json_.braces('{', in_order(all, extra), '}', false);
}

// ---- arrays

Result<ExprId> SchemaWriter::array(const Place& at) {
  const Json& s = at.schema;
  const Json *prefix = s.find("prefixItems"), *items = s.find("items");
  if (!prefix && items && items->is_array()) {  // before 2020-12
    prefix = items;
    items = s.find("additionalItems");
  }
  if (prefix && !prefix->is_array()) return invalid(at, "\"prefixItems\" must be a list of schemas");
  BATON_TRY(const auto min_items, count(at, "minItems"));
  BATON_TRY(const auto max_items, count(at, "maxItems"));
  const int32_t min = min_items.value_or(0), max = max_items.value_or(kNoEnd);
  if (max != kNoEnd && max < min) return invalid(at, "\"maxItems\" below \"minItems\"");
  std::vector<ExprId> parts;
  const size_t n = !prefix ? 0 : max == kNoEnd ? prefix->items.size() : std::min(prefix->items.size(), static_cast<size_t>(max));
  for (size_t i = 0; i < n; ++i) {
    if (i > 0) parts.push_back(json_.comma());
    BATON_TRY(const ExprId item, value(at.under(cat("prefixItems/", i), prefix->items[i])));
    parts.push_back(item);
  }
  const auto written = static_cast<int32_t>(n);
  const bool none = items && items->as_bool() == false;
  const bool more = !none && (n == 0 || items || min > written) && (max == kNoEnd || max > written);
  if (none && min > written) return invalid(at, "\"minItems\" asks for more than there may be");
  if (!more) {
    if (parts.empty()) return r_.seq({r_.bytes("["), json_.space(), r_.bytes("]")});
    return json_.braces('[', r_.seq(std::move(parts)), ']', false);
  }
  ExprId item = json_.value();
  if (items && !items->is_bool()) {
    BATON_TRY(item, value(at.under("items", *items)));
  }
  const int32_t least = std::max(0, min - written), most = max == kNoEnd ? kNoEnd : max - written;
  if (n == 0) return json_.braces('[', list(item, least, most), ']', least == 0);
  parts.push_back(r_.repeat(r_.seq({json_.comma(), item}), least, most));
  return json_.braces('[', r_.seq(std::move(parts)), ']', false);
}

// ---- strings and numbers

Result<ExprId> SchemaWriter::string(const Place& at) {
  const Json& s = at.schema;
  BATON_TRY(const auto min, count(at, "minLength"));
  BATON_TRY(const auto max, count(at, "maxLength"));
  if (max && *max < min.value_or(0)) return invalid(at, "\"maxLength\" below \"minLength\"");
  const Json *pattern = s.find("pattern"), *format = s.find("format");
  if (pattern && format) return refused(at, "\"pattern\" beside \"format\"");
  if (!pattern && !format) {
    if (min.value_or(0) == 0 && !max) return json_.string();
    return r_.seq({r_.bytes("\""), r_.repeat(json_.character(), min.value_or(0), max.value_or(kNoEnd)), r_.bytes("\"")});
  }
  const Json& given = pattern ? *pattern : *format;
  if (!given.is_string()) return invalid(at, pattern ? "\"pattern\"" : "\"format\"", " must be a string");
  const std::string text = pattern ? given.text : format_regex(given.text);
  if (text.empty() && format) return refused(at, "\"format\": \"", given.text, "\"");
  if (min || max) {  // fine where the pattern says the same or more
    Rules plain;
    auto matched = regex(plain, text, {.search = pattern != nullptr});
    const Lengths l = matched && !plain.full() ? lengths_of(plain, *matched) : Lengths{0, kNoEnd};
    if (l.min < min.value_or(0) || (max && (l.max == kNoEnd || l.max > *max)))
      return refused(at, pattern ? "\"pattern\"" : "\"format\"", " beside a narrower \"", max ? "maxLength" : "minLength", "\"");
  }
  auto body = regex(r_, text, {.search = pattern != nullptr, .chars = JsonRules::chars});
  if (!body) return invalid(at, "\"pattern\": ", body.error().message);
  return r_.seq({r_.bytes("\""), *body, r_.bytes("\"")});
}

Result<ExprId> SchemaWriter::number(const Place& at, bool integer) {
  NumberRange range;
  range.integer = integer;
  const auto read = [&](const char* key, const char* exclusive_key, bool least, std::optional<Bound>& bound) -> Result<> {
    const Json *inclusive = at.schema.find(key), *exclusive = at.schema.find(exclusive_key);
    const bool draft4 = exclusive && exclusive->as_bool() == true;
    if (exclusive && exclusive->is_bool()) exclusive = nullptr;
    if (inclusive && exclusive) {  // the tighter of the two
      const double a = inclusive->as_double().value_or(0), b = exclusive->as_double().value_or(0);
      (a == b || (b > a) == least ? inclusive : exclusive) = nullptr;
    }
    const Json* given = inclusive ? inclusive : exclusive;
    if (!given) return {};
    if (!given->is_number()) return invalid(at, "\"", key, "\" must be a number");
    auto decimal = decimal_of(given->text);
    if (!decimal) return refused(at, decimal.error().message);
    bound = Bound{*std::move(decimal), exclusive != nullptr || draft4};
    return {};
  };
  BATON_OK(read("minimum", "exclusiveMinimum", true, range.low));
  BATON_OK(read("maximum", "exclusiveMaximum", false, range.high));
  if (!range.low && !range.high) return integer ? json_.integer() : json_.number();
  return number_between(r_, range);
}

}  // namespace baton::grammar
