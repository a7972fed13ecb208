// Values as text: Python's str() and repr(), and json.dumps() as Hugging Face's `tojson` calls it.
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <list>

#include "text/jinja/value.h"
#include "text/unicode.h"

namespace baton::text::jinja {
namespace {

void append_hex(std::string& out, char32_t c, int digits) {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) out += kDigits[c >> shift & 15];
}

bool printable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string string_repr(std::string_view s) {
  char quote = s.find('\'') != std::string_view::npos && s.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < s.size();) {
    CodePoint c = code_point_at(s, i);
    if (c.value == static_cast<char32_t>(quote) || c.value == '\\') {
      out += '\\';
      out += s[i];
    } else if (c.value == '\n' || c.value == '\r' || c.value == '\t') {
      out += c.value == '\n' ? "\\n" : c.value == '\r' ? "\\r" : "\\t";
    } else if (printable(c.value)) {
      out += s.substr(i, c.length);
    } else {
      bool small = c.value < 0x100, wide = c.value > 0xffff;
      out += small ? "\\x" : wide ? "\\U" : "\\u";
      append_hex(out, c.value, small ? 2 : wide ? 8 : 4);
    }
    i += c.length;
  }
  return out + quote;
}

std::string joined_repr(const std::vector<Value>& items) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) out += (i > 0 ? ", " : "") + repr(items[i]);
  return out;
}

class JsonText {
 public:
  explicit JsonText(const JsonStyle& style) : style_(style) {}

  Result<> write(const Value& v, int level) {
    if (v.is_none()) {
      out += "null";
    } else if (auto* b = v.as<bool>()) {
      out += *b ? "true" : "false";
    } else if (auto* d = v.as<double>()) {
      out += std::isnan(*d) ? "NaN" : std::isinf(*d) ? (*d > 0 ? "Infinity" : "-Infinity") : float_text(*d);
    } else if (auto* s = v.string()) {
      write_string(*s);
    } else if (v.is_number()) {
      out += to_text(v);
    } else if (auto* l = v.list()) {
      if (l->items.empty()) return out += "[]", Result<>();
      out += '[';
      for (size_t i = 0; i < l->items.size(); ++i) {
        separate(i > 0, level + 1);
        BATON_OK(write(l->items[i], level + 1));
      }
      close(']', level);
    } else if (auto* dict = v.dict()) {
      return write_dict(*dict, level);
    } else {
      return fail(Code::kInvalidArgument, "tojson: object of type ", v.type_name(), " is not JSON serializable");
    }
    return {};
  }

  std::string out;

 private:
  Result<> write_dict(const Dict& dict, int level) {
    if (dict.items.empty()) return out += "{}", Result<>();
    std::list<const std::pair<Value, Value>*> order;
    for (const auto& item : dict.items) order.push_back(&item);
    if (style_.sort_keys) {
      order.sort([](auto* a, auto* b) { return compare(a->first, b->first).value_or(0) < 0; });
    }
    out += '{';
    for (const auto* item : order) {
      separate(item != order.front(), level + 1);
      const Value& key = item->first;
      if (auto* s = key.string()) {
        write_string(*s);
      } else {  // numbers, booleans and null become strings
        JsonText inner(style_);
        BATON_OK(inner.write(key, 0));
        write_string(inner.out);
      }
      out += style_.key_separator;
      BATON_OK(write(item->second, level + 1));
    }
    close('}', level);
    return {};
  }

  void separate(bool comma, int level) {
    if (comma) out += style_.item_separator;
    if (style_.indent >= 0) newline(level);
  }
  void close(char c, int level) {
    if (style_.indent >= 0) newline(level);
    out += c;
  }
  void newline(int level) {
    out += '\n';
    out.append(static_cast<size_t>(level) * static_cast<size_t>(style_.indent), ' ');
  }
  void write_string(std::string_view s) {
    static constexpr std::string_view kPlain = "\"\\\n\r\t\b\f", kEscaped = "\"\\nrtbf";
    out += '"';
    for (size_t i = 0; i < s.size();) {
      CodePoint c = code_point_at(s, i);
      if (size_t k = c.value < 0x80 ? kPlain.find(s[i]) : std::string_view::npos; k != std::string_view::npos) {
        out += '\\';
        out += kEscaped[k];
      } else if (c.value < 0x20) {
        out += "\\u";
        append_hex(out, c.value, 4);
      } else if (c.value >= 0x7f && style_.ascii) {
        char32_t high = c.value > 0xffff ? 0xd800 + ((c.value - 0x10000) >> 10) : 0;
        if (high != 0) out += "\\u", append_hex(out, high, 4);
        out += "\\u";
        append_hex(out, high != 0 ? 0xdc00 + (c.value & 0x3ff) : c.value, 4);
      } else {
        out += s.substr(i, c.length);
      }
      i += c.length;
    }
    out += '"';
  }

  const JsonStyle& style_;
};

}  // namespace

std::string float_text(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  char buffer[64];
  auto magnitude = std::fabs(d);
  bool exponent = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);  // where Python's repr switches
  auto format = exponent ? std::chars_format::scientific : std::chars_format::fixed;
  auto end = std::to_chars(buffer, buffer + sizeof buffer, d, format).ptr;
  std::string out(buffer, end);
  if (!exponent && out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string to_text(const Value& v) {
  if (auto* s = v.string()) return *s;
  if (v.is_undefined()) return "";
  return repr(v);
}

std::string repr(const Value& v) {
  if (v.is_undefined()) return "Undefined";
  if (v.is_none()) return "None";
  if (auto* b = v.as<bool>()) return *b ? "True" : "False";
  if (auto* i = v.as<int64_t>()) return std::to_string(*i);
  if (auto* d = v.as<double>()) return float_text(*d);
  if (auto* big = v.as<BigInt>()) return big->digits;
  if (auto* s = v.string()) return string_repr(*s);
  if (auto* l = v.list()) {
    if (!l->tuple) return "[" + joined_repr(l->items) + "]";
    return "(" + joined_repr(l->items) + (l->items.size() == 1 ? ",)" : ")");
  }
  if (auto* d = v.dict()) {
    std::string out = "{";
    for (const auto& [key, value] : d->items) out += (out.size() > 1 ? ", " : "") + repr(key) + ": " + repr(value);
    return out + "}";
  }
  return cat("<", v.type_name(), ">");
}

Result<std::string> to_json(const Value& v, const JsonStyle& style) {
  JsonText text(style);
  BATON_OK(text.write(v, 0));
  return std::move(text.out);
}

}  // namespace baton::text::jinja
