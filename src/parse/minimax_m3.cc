// minimax_m3: ]<]minimax[>[ before every tag: <tool_call><invoke
// name="f"><p>VALUE</p><o><k>VALUE</k></o>...</invoke>...</tool_call>. MiniMax M3. An element that holds others is an object, or
// a list where the tool says so; elements of one name are a list too. A text is of the type that the tool declares. Arguments go
// out when all of them are there.
#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/json.h"
#include "parse/limits.h"
#include "parse/parameter_value.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

constexpr std::string_view kMark = "]<]minimax[>[", kOpen = "]<]minimax[>[<tool_call>", kClose = "]<]minimax[>[</tool_call>",
                           kInvoke = "]<]minimax[>[<invoke name=", kInvokeEnd = "]<]minimax[>[</invoke>";

struct Element {
  std::string_view name;
  std::string text;
  std::vector<Element> children{};
};

// The elements of a call; nullopt if something else is between them.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  std::optional<Element> read() {
    Element out{.name = "", .text = ""};
    for (;;) {
      while (at_ < text_.size() && is_space(text_[at_])) ++at_;
      if (at_ == text_.size()) return out;
      if (!element(out.children, 0)) return std::nullopt;
    }
  }

 private:
  bool take(std::string_view s) {
    if (!text_.substr(at_).starts_with(s)) return false;
    at_ += s.size();
    return true;
  }
  // A level may be two in JSON: an object, and a list of those of one name.
  bool element(std::vector<Element>& out, size_t depth) {
    if (depth > kNestingMax / 2 || !take(kMark) || !take("<")) return false;
    const size_t end = text_.find('>', at_);
    if (end == std::string_view::npos) return false;
    Element made{.name = text_.substr(at_, end - at_), .text = ""};
    at_ = end + 1;
    if (is_blank(made.name) || made.name.size() > kNameBytesMax || made.name.starts_with('/') || !valid_utf8(made.name))
      return false;
    for (;;) {
      const size_t mark = text_.find(kMark, at_);
      if (mark == std::string_view::npos) return false;
      made.text += text_.substr(at_, mark - at_);
      at_ = mark;
      if (take(cat(kMark, "</", made.name, ">"))) break;
      if (!element(made.children, depth + 1)) return false;
    }
    out.push_back(std::move(made));
    return valid_utf8(out.back().text);
  }

  std::string_view text_;
  size_t at_ = 0;
};

std::string object_of(const Element& element, const Json* schema);

bool is_of_type(const Json* schema, std::string_view type) {
  const Json* said = schema ? schema->find("type") : nullptr;
  return said &&
         (said->as_string() == type || std::ranges::any_of(said->items, [&](const Json& j) { return j.as_string() == type; }));
}

std::string json_of(const Element& element, const Json* schema) {
  const bool list = is_of_type(schema, "array");
  if (element.children.empty()) {
    // The template writes an empty list or object as an empty element.
    if (is_blank(element.text) && (list || is_of_type(schema, "object"))) return list ? "[]" : "{}";
    return value_json(schema, element.text);
  }
  if (!list) return object_of(element, schema);
  std::string out = "[";
  for (const Element& item : element.children) out += cat(out.size() > 1 ? ", " : "", json_of(item, schema->find("items")));
  return out + "]";
}

// What has one name is a list, and a text beside elements the member "$text".
std::string object_of(const Element& element, const Json* schema) {
  std::vector<std::string_view> names;
  std::map<std::string_view, std::vector<std::string>> values;
  const auto add = [&](std::string_view name, std::string json) {
    std::vector<std::string>& of_name = values[name];
    if (of_name.empty()) names.push_back(name);
    of_name.push_back(std::move(json));
  };
  for (const Element& child : element.children) add(child.name, json_of(child, member_schema(schema, child.name)));
  if (!is_blank(element.text)) add("$text", json_string(element.text));
  std::string out = "{";
  for (const std::string_view name : names) {
    const std::vector<std::string>& jsons = values[name];
    out += cat(out.size() > 1 ? ", " : "", json_string(name), ": ", jsons.size() > 1 ? "[" : "");
    for (size_t i = 0; i < jsons.size(); ++i) out += cat(i > 0 ? ", " : "", jsons[i]);
    if (jsons.size() > 1) out += "]";
  }
  return out + "}";
}

class MinimaxM3 final : public ToolParser {
 public:
  explicit MinimaxM3(const Json& tools) : tools_(tools) {}
  void finish(Events& out) override {
    if (state_ == State::kText) return content(text_.take(), out);
    if (state_ == State::kSection && any_) return;  // what closes it may be missing, or cut off
    broken_ = true;
    content(raw_, out);
  }

 private:
  enum class State : uint8_t { kText, kSection, kCall };

  void step(char c, Events& out) override {
    std::string plain;
    if (state_ == State::kText) {
      if (text_.feed(c, plain) >= 0) {
        state_ = State::kSection;
        any_ = false;
        raw_ = kOpen;
      }
      return content(plain, out);
    }
    raw_ += c;
    if (state_ == State::kCall) return call_byte(c, out);
    const int tag = section_.feed(c, plain);
    if (!is_blank(plain) || (tag == 1 && !any_)) return none(out);
    if (tag == 0) {
      state_ = State::kCall;
      call_.clear();
    } else if (tag == 1) {
      state_ = State::kText;
      after_call();
    }
  }
  void call_byte(char c, Events& out) {
    const bool ended = end_.feed(c, call_) >= 0;
    if (call_.size() > kCallBytesMax) return none(out);
    if (!ended) return;
    const size_t head = call_.find('>');
    if (head == std::string::npos || head == 0) return none(out);
    std::string_view name = trimmed(std::string_view(call_).substr(0, head));
    for (const char quote : {'"', '\''}) {
      if (name.size() > 1 && name.front() == quote && name.back() == quote) name = name.substr(1, name.size() - 2);
    }
    const auto arguments = Reader(std::string_view(call_).substr(head + 1)).read();
    if (!arguments || name.empty() || name.size() > kNameBytesMax) return none(out);
    append(out, Event::Kind::kCall, name);
    append(out, Event::Kind::kArguments, object_of(*arguments, parameters_schema(tools_, name)));
    any_ = true;
    raw_.clear();
    state_ = State::kSection;
  }
  // What raw_ holds is no call.
  void none(Events& out) {
    state_ = State::kText;
    give_up(out);
  }

  const Json& tools_;
  State state_ = State::kText;
  TagScanner text_{kOpen}, section_{kInvoke, kClose}, end_{kInvokeEnd};
  bool any_ = false;  // a call of this section went out
  std::string call_;  // from its name on
};

}  // namespace

std::unique_ptr<ToolParser> make_minimax_m3(const Json& tools) { return std::make_unique<MinimaxM3>(tools); }

}  // namespace baton::parse
