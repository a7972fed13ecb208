#include "grammar/json_rules.h"

#include "grammar/limits.h"

namespace baton::grammar {
namespace {

// Indentation of deep nesting fits; a model that writes white space and nothing else is brought back.
constexpr int32_t kSpacesMax = 128;
const CodeRanges kHex{{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
const CodeRanges kPlain{{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};

void append_text(JsonWriter& w, const Json& v) {
  switch (v.kind) {
    case Json::Kind::kNull:
      w.null();
      return;
    case Json::Kind::kBool:
      w.value(v.boolean);
      return;
    case Json::Kind::kNumber:
      w.raw(v.text);
      return;
    case Json::Kind::kString:
      w.value(v.text);
      return;
    case Json::Kind::kArray:
      w.array();
      for (const Json& item : v.items) append_text(w, item);
      w.end();
      return;
    case Json::Kind::kObject:
      w.object();
      for (size_t i = 0; i < v.items.size(); ++i) {
        w.key(v.keys[i]);
        append_text(w, v.items[i]);
      }
      w.end();
      return;
  }
}

}  // namespace

std::string json_text(const Json& value) {
  JsonWriter w;
  append_text(w, value);
  return w.take();
}

Result<JsonRules> JsonRules::make(Rules& rules, const JsonStyle& style) {
  JsonRules out(rules);
  out.style_ = style;
  out.space_ = rules.add("space");
  if (style.whitespace_pattern) {
    BATON_TRY(const ExprId space, regex(rules, *style.whitespace_pattern));
    rules.define(out.space_, space);
  } else if (style.any_whitespace) {
    rules.define(out.space_, rules.repeat(rules.chars({{'\t', '\n'}, {'\r', '\r'}, {' ', ' '}}), 0, kSpacesMax));
  } else {
    rules.define(out.space_, rules.bytes(""));
  }
  out.write_strings();
  out.write_values();
  return out;
}

void JsonRules::write_strings() {
  Rules& r = *rules_;
  const ExprId hex = r.chars(kHex);
  // \u of anything but half a surrogate pair, or of a whole pair, which is one character.
  const ExprId not_d = r.chars({{'0', '9'}, {'A', 'C'}, {'E', 'F'}, {'a', 'c'}, {'e', 'f'}}),
               d = r.chars({{'D', 'D'}, {'d', 'd'}});
  const ExprId single = r.alt({r.seq({not_d, hex, hex, hex}), r.seq({d, r.chars({{'0', '7'}}), hex, hex})});
  const ExprId pair = r.seq({d, r.chars({{'8', '9'}, {'A', 'B'}, {'a', 'b'}}), hex, hex, r.bytes("\\u"), d,
                             r.chars({{'C', 'F'}, {'c', 'f'}}), hex, hex});
  const ExprId simple =
      r.chars({{'"', '"'}, {'/', '/'}, {'\\', '\\'}, {'b', 'b'}, {'f', 'f'}, {'n', 'n'}, {'r', 'r'}, {'t', 't'}});
  const ExprId escape = r.seq({r.bytes("\\"), r.alt({simple, r.seq({r.bytes("u"), r.alt({single, pair})})})});
  const ExprId character = r.alt({r.chars(kPlain), escape});
  character_ = r.add("character");
  r.define(character_, character);
  string_ = r.add("string");
  r.define(string_, r.seq({r.bytes("\""), r.repeat(character, 0, kNoEnd), r.bytes("\"")}));
}

void JsonRules::write_values() {
  Rules& r = *rules_;
  const ExprId digit = r.chars({{'0', '9'}}), digits = r.repeat(digit, 1, kNoEnd);
  const ExprId whole =
      r.seq({r.optional(r.bytes("-")), r.alt({r.bytes("0"), r.seq({r.chars({{'1', '9'}}), r.repeat(digit, 0, kNoEnd)})})});
  const ExprId exponent =
      r.seq({r.chars({{'E', 'E'}, {'e', 'e'}}), r.optional(r.chars({{'+', '+'}, {'-', '-'}})), r.repeat(digit, 1, 2)});
  integer_ = r.add("integer");
  r.define(integer_, whole);
  number_ = r.add("number");
  r.define(number_, r.seq({whole, r.optional(r.seq({r.bytes("."), digits})), r.optional(exponent)}));
  value_ = r.add("value"), object_ = r.add("object"), array_ = r.add("array");
  const ExprId member = r.seq({string(), colon(), value()});
  r.define(object_, braces('{', r.seq({member, r.repeat(r.seq({comma(), member}), 0, kNoEnd)}), '}', true));
  r.define(array_, braces('[', r.seq({value(), r.repeat(r.seq({comma(), value()}), 0, kNoEnd)}), ']', true));
  r.define(value_, r.alt({object(), array(), string(), number(), boolean(), null()}));
}

ExprId JsonRules::comma() {
  if (!style_.any_whitespace && !style_.whitespace_pattern) return rules_->bytes(", ");
  return rules_->seq({space(), rules_->bytes(","), space()});
}

ExprId JsonRules::colon() {
  if (!style_.any_whitespace && !style_.whitespace_pattern) return rules_->bytes(": ");
  return rules_->seq({space(), rules_->bytes(":"), space()});
}

ExprId JsonRules::braces(char open, ExprId members, char close, bool may_be_empty) {
  Rules& r = *rules_;
  const ExprId inside = r.seq({members, space()});
  return r.seq({r.bytes({&open, 1}), space(), may_be_empty ? r.optional(inside) : inside, r.bytes({&close, 1})});
}

ExprId JsonRules::literal(const Json& v) {
  Rules& r = *rules_;
  if (!v.is_array() && !v.is_object()) return r.bytes(json_text(v));
  std::vector<ExprId> parts;
  for (size_t i = 0; i < v.items.size(); ++i) {
    if (i > 0) parts.push_back(comma());
    if (v.is_object()) parts.insert(parts.end(), {quoted(v.keys[i]), colon()});
    parts.push_back(literal(v.items[i]));
  }
  const char open = v.is_array() ? '[' : '{', close = v.is_array() ? ']' : '}';
  if (parts.empty()) return r.seq({r.bytes({&open, 1}), space(), r.bytes({&close, 1})});
  return braces(open, r.seq(std::move(parts)), close, false);
}

ExprId JsonRules::chars(Rules& r, const CodeRanges& ranges) {
  std::vector<ExprId> parts{r.chars(common(sorted(ranges), kPlain))};
  for (const char c : std::string_view("\"\\")) {
    if (contains(ranges, static_cast<uint8_t>(c))) parts.push_back(r.bytes(std::string{'\\', c}));
  }
  for (uint32_t c = 0; c < 0x20; ++c) {
    if (!contains(ranges, c)) continue;
    const std::string control(1, static_cast<char>(c)), quoted = json_string(control);
    parts.push_back(r.bytes(std::string_view(quoted).substr(1, quoted.size() - 2)));
  }
  return r.alt(std::move(parts));
}

}  // namespace baton::grammar
