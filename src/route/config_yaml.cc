#include "route/config_yaml.h"

#include <yaml-cpp/yaml.h>

#include <set>

#include "route/limits.h"

namespace baton::route {
namespace {

bool digits(std::string_view s) { return s.find_first_not_of("0123456789") == std::string_view::npos; }

// YAML 1.2's numbers as JSON text; "" if `s` is none. Hex, octal, .inf and .nan stay strings: no field takes them.
std::string number_text(std::string_view s) {
  std::string sign;
  if (s.starts_with('-') || s.starts_with('+')) {
    if (s[0] == '-') sign = "-";
    s.remove_prefix(1);
  }
  const size_t e = std::min(s.find_first_of("eE"), s.size());
  std::string_view mantissa = s.substr(0, e), exponent = e < s.size() ? s.substr(e + 1) : std::string_view();
  if (e < s.size()) {
    std::string_view power = exponent;
    if (power.starts_with('-') || power.starts_with('+')) power.remove_prefix(1);
    if (power.empty() || !digits(power) || power.size() > 6) return "";
  }
  const size_t dot = std::min(mantissa.find('.'), mantissa.size());
  std::string_view whole = mantissa.substr(0, dot),
                   fraction = dot < mantissa.size() ? mantissa.substr(dot + 1) : std::string_view();
  if ((whole.empty() && fraction.empty()) || !digits(whole) || !digits(fraction) || mantissa.size() > 400) return "";
  if (whole.size() > 1 && whole[0] == '0') return "";  // an identifier such as 007
  std::string out = sign + (whole.empty() ? "0" : std::string(whole));
  if (!fraction.empty()) out += "." + std::string(fraction);
  if (e < s.size()) out += "e" + std::string(exponent);
  return out;
}

class Converter {
 public:
  Result<Json> convert(const YAML::Node& node, int depth) {
    if (++nodes_ > kConfigNodesMax) return fail(Code::kInvalidArgument, "more than ", kConfigNodesMax, " values");
    if (depth > kConfigDepthMax) return fail(Code::kInvalidArgument, "nested deeper than ", kConfigDepthMax);
    Json out;
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        return out;
      case YAML::NodeType::Scalar:
        return scalar(node);
      case YAML::NodeType::Sequence:
        out.kind = Json::Kind::kArray;
        for (const YAML::Node& item : node) {
          BATON_TRY(Json value, convert(item, depth + 1));
          out.items.push_back(std::move(value));
        }
        return out;
      case YAML::NodeType::Map:
        return map(node, depth);
    }
    return out;
  }

 private:
  static Json scalar(const YAML::Node& node) {
    Json out;
    out.text = node.Scalar();
    const std::string& s = out.text;
    const bool plain = node.Tag() == "?" || node.Tag().empty();
    if (plain && (s == "true" || s == "True" || s == "TRUE" || s == "false" || s == "False" || s == "FALSE")) {
      out.kind = Json::Kind::kBool;
      out.boolean = s[0] == 't' || s[0] == 'T';
      return out;
    }
    if (plain && (s.empty() || s == "~" || s == "null" || s == "Null" || s == "NULL")) return Json{};
    if (std::string number = plain ? number_text(s) : ""; !number.empty()) {
      out.kind = Json::Kind::kNumber;
      out.text = std::move(number);
      return out;
    }
    out.kind = Json::Kind::kString;
    return out;
  }

  Result<Json> map(const YAML::Node& node, int depth) {
    Json out;
    out.kind = Json::Kind::kObject;
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) {
        return fail(Code::kInvalidArgument, "line ", entry.first.Mark().line + 1, ": a key must be a text");
      }
      const std::string& key = entry.first.Scalar();
      if (!seen.insert(key).second) {
        return fail(Code::kInvalidArgument, "line ", entry.first.Mark().line + 1, ": key \"", key, "\" is given twice");
      }
      BATON_TRY(Json value, convert(entry.second, depth + 1));
      out.keys.push_back(key);
      out.items.push_back(std::move(value));
    }
    return out;
  }

  size_t nodes_ = 0;
};

// yaml-cpp looks keys up one by one, so a map of n keys costs n * n; and it builds the tree before we can count. Every key needs
// a colon, every item of a flow list a comma, every item of a block list a dash.
bool too_many_tokens(std::string_view text) {
  size_t n = 0;
  for (char c : text) n += c == ':' || c == ',' || c == '-' || c == '[' || c == '{' || c == '*' || c == '?';
  return n > 4 * kConfigNodesMax;
}

}  // namespace

Result<Json> parse_yaml(std::string_view text) {
  if (text.size() > kConfigBytesMax) return fail(Code::kInvalidArgument, "larger than ", kConfigBytesMax, " bytes");
  if (!valid_utf8(text)) return fail(Code::kInvalidArgument, "not UTF-8");
  if (text.find('\0') != std::string_view::npos) return fail(Code::kInvalidArgument, "a zero byte in it");
  if (too_many_tokens(text)) return fail(Code::kInvalidArgument, "more than ", kConfigNodesMax, " values");
  try {
    return Converter().convert(YAML::Load(std::string(text)), 0);
  } catch (const std::exception& e) {
    return fail(Code::kInvalidArgument, "not YAML: ", e.what());
  }
}

}  // namespace baton::route
