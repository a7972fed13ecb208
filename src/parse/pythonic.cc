// pythonic: the answer is a Python list of calls with literal keyword arguments: [f(a=1, b='x'), g()]. Llama 3.2 and 4, ToolACE.
// An answer that does not begin with '[' is text. Arguments go out one keyword at a time.
#include <cctype>
#include <utility>

#include "base/json.h"
#include "parse/limits.h"
#include "parse/python_literal.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

class Pythonic final : public ToolParser {
 public:
  void finish(Events& out) override {
    if (state_ == State::kText || state_ == State::kAfter) return;
    broken_ = broken_ || state_ != State::kStart;
    if (called_)
      append(out, Event::Kind::kArguments, argument_);
    else
      content(raw_, out);
  }

 private:
  enum class State : uint8_t { kStart, kName, kArguments, kNext, kAfter, kText };

  void step(char c, Events& out) override {
    if (state_ == State::kText) return content({&c, 1}, out);
    if (!called_) raw_ += c;
    switch (state_) {
      case State::kText:
        return;
      case State::kStart:
        if (c == '[')
          state_ = State::kName;
        else if (!is_space(c)) {
          state_ = State::kText;
          content(std::exchange(raw_, {}), out);
        }
        return;
      case State::kName:
        if (is_space(c) && name_.empty()) return;
        if (c == '(' && !name_.empty()) {
          state_ = State::kArguments;
          argument_.clear(), open_.clear();
        } else if ((std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '.') || name_.size() == kNameBytesMax) {
          wrong({&c, 1}, out);
        } else {
          name_ += c;
        }
        return;
      case State::kArguments:
        return argument_byte(c, out);
      case State::kNext:
        if (c == ',') {
          state_ = State::kName;
        } else if (c == ']') {
          state_ = State::kAfter;
          raw_.clear();
          after_call();
        } else if (!is_space(c)) {
          wrong({&c, 1}, out);
        }
        return;
      case State::kAfter:
        if (!is_space(c)) wrong({&c, 1}, out);
        return;
    }
  }

  void wrong(std::string_view rest, Events& out) {
    broken_ = true;
    state_ = State::kText;
    if (!called_) return give_up(out);
    append(out, Event::Kind::kArguments, rest);
  }

  void argument_byte(char c, Events& out) {
    if (argument_.size() + raw_.size() > kCallBytesMax) return wrong(std::exchange(argument_, {}) + c, out);
    if (quote_ != '\0') {
      if (escape_)
        escape_ = false;
      else if (c == '\\')
        escape_ = true;
      else if (c == quote_)
        quote_ = '\0';
      argument_ += c;
      return;
    }
    if (open_.empty() && (c == ',' || c == ')')) {
      if (!end_argument(c == ')', out)) return wrong(std::exchange(argument_, {}) + c, out);
      if (c != ')') return;
      append(out, Event::Kind::kArguments, "}");
      called_ = false;
      name_.clear();
      state_ = State::kNext;
      return;
    }
    argument_ += c;
    if (c == '\'' || c == '"') {
      quote_ = c;
    } else if (c == '[' || c == '{' || c == '(') {
      open_ += c;
      if (open_.size() > kNestingMax) wrong(std::exchange(argument_, {}), out);
    } else if (c == ']' || c == '}' || c == ')') {
      if (open_.empty()) return wrong(std::exchange(argument_, {}), out);
      open_.pop_back();
    }
  }

  // name = literal, or nothing at the end of the list.
  bool end_argument(bool last, Events& out) {
    std::string json;
    if (!is_blank(argument_) || !last) {
      const size_t equals = argument_.find('=');
      if (equals == std::string::npos) return false;
      std::string key = argument_.substr(0, equals);
      std::erase_if(key, is_space);
      if (key.empty()) return false;
      for (const unsigned char c : key) {  // beyond ASCII Python's identifiers are letters of any language
        if (std::isalnum(c) == 0 && c != '_' && c < 0x80) return false;
      }
      if (!valid_utf8(key)) return false;
      const auto value = python_to_json(std::string_view(argument_).substr(equals + 1));
      if (!value) return false;
      json = cat(json_string(key), ": ", *value);
    }
    const bool first = !called_;
    if (first) {
      append(out, Event::Kind::kCall, name_);
      append(out, Event::Kind::kArguments, "{");
      called_ = true;
      raw_.clear();
    }
    if (!json.empty()) append(out, Event::Kind::kArguments, cat(first ? "" : ", ", json));
    argument_.clear();
    return true;
  }

  State state_ = State::kStart;
  bool called_ = false;  // the call's name went out
  bool escape_ = false;
  char quote_ = '\0';
  std::string name_, argument_, open_;
};

}  // namespace

std::unique_ptr<ToolParser> make_pythonic(const Json&) { return std::make_unique<Pythonic>(); }

}  // namespace baton::parse
