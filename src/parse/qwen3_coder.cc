// qwen3_coder: <tool_call><function=f><parameter=p>VALUE</parameter>...</function></tool_call>. Qwen3-Coder. Values are bare
// text: what they are in JSON follows from the type that the request's tool names for the parameter. Arguments go out a parameter
// at a time. <function=...> without <tool_call> around it is a call too.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "base/json.h"
#include "parse/limits.h"
#include "parse/python_literal.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

constexpr std::string_view kCallOpen = "<tool_call>", kCallClose = "</tool_call>";
constexpr std::string_view kFunctionOpen = "<function=", kFunctionClose = "</function>";
constexpr std::string_view kParameterOpen = "<parameter=", kParameterClose = "</parameter>";

std::string lower(std::string_view s) {
  std::string out(s);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}
std::string_view trimmed(std::string_view s) {
  while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_space(s.back())) s.remove_suffix(1);
  return s;
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

// The schema's type of the parameter; nullopt if the tool or the parameter is not declared.
std::optional<std::string> declared_type(const Json& tools, std::string_view function, std::string_view parameter) {
  for (const Json& tool : tools.items) {
    const Json* name = tool.find_path({"function", "name"});
    if (name == nullptr || name->text != function) continue;
    const Json* schema = tool.find_path({"function", "parameters", "properties"});
    if (schema == nullptr) schema = tool.find_path({"function", "parameters"});
    const Json* property = schema ? schema->find(parameter) : nullptr;
    if (property == nullptr) return std::nullopt;
    const Json* type = property->find("type");
    if (type && type->is_string()) return lower(trimmed(type->text));
    return may_be_null(*property) ? "string or null" : "string";
  }
  return std::nullopt;
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

// The value as JSON, by the schema's type, as vLLM converts it; what does not fit its type stays a string.
std::string as_json(std::string_view value, const std::optional<std::string>& type) {
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::ranges::find(names, *type) != names.end();
  };
  const auto begins = [&](std::initializer_list<std::string_view> names) {
    return std::ranges::any_of(names, [&](std::string_view name) { return type->starts_with(name); });
  };
  const std::string_view bare = trimmed(value);
  if (!type || is_one_of({"string", "str", "text", "varchar", "char", "enum"})) return json_string(value);
  if (lower(bare) == "null") return "null";
  if (type == "string or null") return json_string(value);
  if (begins({"int", "uint", "long", "short", "unsigned"})) return whole_number(bare).value_or(json_string(value));
  if (begins({"num", "float"})) return number(bare).value_or(json_string(value));
  if (is_one_of({"boolean", "bool", "binary"})) return lower(bare) == "true" ? "true" : "false";
  if (parse_json(bare, {.depth_max = static_cast<int>(kNestingMax)})) return std::string(bare);
  return python_to_json(bare).value_or(json_string(value));
}

class Qwen3Coder final : public ToolParser {
 public:
  explicit Qwen3Coder(const Json& tools) : tools_(tools) {}
  void finish(Events& out) override {
    if (state_ == State::kText) return content(text_.take(), out);
    if (state_ == State::kEnd) {
      const std::string held = end_.take();
      broken_ = broken_ || !is_blank(held);
      return content(held, out);
    }
    broken_ = true;
    if (!called_) return content(raw_, out);
    // Cut off inside a value: what there is of it goes out as it is, the string not closed.
    if (state_ != State::kValue) return;
    value_ += value_scan_.take();
    std::string json = cat(parameters_ > 0 ? ", " : "", json_string(parameter_), ": ", json_string(value_));
    json.pop_back();
    append(out, Event::Kind::kArguments, json);
  }

 private:
  enum class State : uint8_t { kText, kOpen, kName, kBody, kParameter, kValue, kEnd };

  void step(char c, Events& out) override {
    if (state_ != State::kText && !called_) raw_ += c;
    std::string plain;
    switch (state_) {
      case State::kText: {
        const int tag = text_.feed(c, plain);
        content(plain, out);
        if (tag >= 0) begin(tag == 0, out);
        return;
      }
      case State::kOpen:
        if (open_.feed(c, plain) >= 0)
          begin_function();
        else if (!is_blank(plain))
          wrong(plain, out);
        return;
      case State::kName:
      case State::kParameter:
        return name_byte(c, out);
      case State::kBody:
        return body(c, out);
      case State::kValue:
        return value_byte(c, out);
      case State::kEnd: {
        const int tag = end_.feed(c, plain);
        if (tag == 0) {
          state_ = State::kText;
          after_call();
        } else if (tag == 1) {
          raw_ = kFunctionOpen;
          begin_function();
        } else if (!is_blank(plain)) {
          wrong(plain, out);
        }
        return;
      }
    }
  }

  void begin(bool in_call, Events&) {
    in_call_ = in_call;
    called_ = false;
    raw_ = in_call ? kCallOpen : kFunctionOpen;
    if (in_call)
      state_ = State::kOpen;
    else
      begin_function();
  }
  void begin_function() {
    state_ = State::kName;
    called_ = false;
    name_.clear();
    parameters_ = 0;
  }
  void wrong(std::string_view rest, Events& out) {
    state_ = State::kText;
    if (!called_) return give_up(out);
    broken_ = true;
    append(out, Event::Kind::kContent, rest);
  }
  void name_byte(char c, Events& out) {
    std::string& name = state_ == State::kName ? name_ : parameter_;
    if (c != '>') {
      name += c;
      if (name.size() > kNameBytesMax || c == '<' || c == '\n') wrong(name, out);
      return;
    }
    if (state_ == State::kParameter) {
      state_ = State::kValue;
      value_.clear();
      return;
    }
    if (name_.empty()) return wrong("", out);
    append(out, Event::Kind::kCall, name_);
    append(out, Event::Kind::kArguments, "{");
    called_ = true;
    raw_.clear();
    state_ = State::kBody;
  }
  void body(char c, Events& out) {
    std::string plain;
    const int tag = body_.feed(c, plain);  // a </parameter> too many, behind a value that has one, is none
    if (!is_blank(plain)) return wrong(plain, out);
    if (tag == 0) begin_parameter();
    if (tag == 1) end_function(out);
  }
  void begin_parameter() {
    parameter_.clear();
    state_ = State::kParameter;
  }
  void value_byte(char c, Events& out) {
    const int tag = value_scan_.feed(c, value_);
    if (value_.size() > kCallBytesMax) return wrong(value_, out);
    if (tag < 0) return;
    std::string_view value = value_;
    if (value.starts_with('\n')) value.remove_prefix(1);
    if (value.ends_with('\n')) value.remove_suffix(1);
    append(out, Event::Kind::kArguments,
           cat(parameters_++ > 0 ? ", " : "", json_string(parameter_), ": ",
               as_json(value, declared_type(tools_, name_, parameter_))));
    state_ = State::kBody;
    if (tag == 1) begin_parameter();
    if (tag == 2) end_function(out);
  }
  void end_function(Events& out) {
    append(out, Event::Kind::kArguments, "}");
    state_ = in_call_ ? State::kEnd : State::kText;
    after_call();
  }

  const Json& tools_;
  State state_ = State::kText;
  TagScanner text_{kCallOpen, kFunctionOpen}, open_{kFunctionOpen}, body_{kParameterOpen, kFunctionClose, kParameterClose},
      value_scan_{kParameterClose, kParameterOpen, kFunctionClose}, end_{kCallClose, kFunctionOpen};
  bool in_call_ = false, called_ = false;
  std::string name_, parameter_, value_;
  int parameters_ = 0;
};

}  // namespace

std::unique_ptr<ToolParser> make_qwen3_coder(const Json& tools) { return std::make_unique<Qwen3Coder>(tools); }

}  // namespace baton::parse
