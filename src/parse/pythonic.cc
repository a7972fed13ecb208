// pythonic: the answer is a Python list of calls with literal keyword arguments: [f(a=1, b='x'), g()]. Llama 3.2 and 4, ToolACE.
// An answer that does not begin with '[' is text. Arguments go out one keyword at a time. llama4_pythonic: likewise, between
// <|python_start|> and <|python_end|> or not. lfm2: <|tool_call_start|>[...]<|tool_call_end|>, text before and behind. olmo3:
// <function_calls>, a call a line without brackets, </function_calls>, text before and behind. What closes the last may be
// missing.
#include <cctype>
#include <utility>

#include "base/json.h"
#include "parse/limits.h"
#include "parse/python_literal.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

struct PythonicForm {
  std::string_view open{}, close{};  // "" = no tags
  bool anywhere = false;             // the opening tag has to be there, and text may stand before it
  bool lines = false;                // a call a line, no brackets
};
constexpr PythonicForm kPythonic{}, kLlama4{.open = "<|python_start|>", .close = "<|python_end|>"},
    kLfm2{.open = "<|tool_call_start|>", .close = "<|tool_call_end|>", .anywhere = true},
    kOlmo3{.open = "<function_calls>", .close = "</function_calls>", .anywhere = true, .lines = true};

TagScanner scanner_of(std::string_view tag) { return tag.empty() ? TagScanner{} : TagScanner{tag}; }

class Pythonic final : public ToolParser {
 public:
  explicit Pythonic(const PythonicForm& form)
      : form_(form),
        state_(form.anywhere ? State::kOpen : State::kStart),
        open_scan_(scanner_of(form.open)),
        close_scan_(scanner_of(form.close)) {}
  void finish(Events& out) override {
    if (state_ == State::kOpen) return content(open_scan_.take(), out);
    if (state_ == State::kText || state_ == State::kAfter || (state_ == State::kNext && form_.lines)) return;
    broken_ = broken_ || state_ != State::kStart;
    if (called_)
      append(out, Event::Kind::kArguments, argument_);
    else
      content(raw_, out);
  }

 private:
  enum class State : uint8_t { kOpen, kStart, kName, kArguments, kNext, kAfter, kText };

  void step(char c, Events& out) override {
    if (state_ == State::kText) return content({&c, 1}, out);
    if (state_ == State::kOpen) return open_byte(c, out);
    if (!called_) raw_ += c;
    switch (state_) {
      case State::kText:
      case State::kOpen:
        return;
      case State::kStart:
        return start(c, out);
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
        return form_.lines ? next_line(c, out) : next(c, out);
      case State::kAfter:
        return close_byte(c, out);
    }
  }

  void open_byte(char c, Events& out) {
    std::string plain;
    if (open_scan_.feed(c, plain) >= 0) {
      state_ = form_.lines ? State::kName : State::kStart;
      raw_ = form_.open;
      name_.clear();
    }
    content(plain, out);
  }
  // The bracket, behind white space and a tag that may be missing.
  void start(char c, Events& out) {
    if (is_space(c)) return;
    std::string_view begun = raw_;
    while (!begun.empty() && is_space(begun.front())) begun.remove_prefix(1);
    if (begun.starts_with(form_.open)) begun.remove_prefix(form_.open.size());
    if (begun.empty() || form_.open.starts_with(begun)) return;
    if (c == '[' && is_blank(begun.substr(0, begun.size() - 1))) {
      state_ = State::kName;
      return;
    }
    state_ = form_.anywhere ? State::kOpen : State::kText;
    content(std::exchange(raw_, {}), out);
  }
  void next(char c, Events& out) {
    if (c == ',') {
      state_ = State::kName;
    } else if (c == ']') {
      state_ = State::kAfter;
      raw_.clear();
      after_call();
    } else if (!is_space(c)) {
      wrong({&c, 1}, out);
    }
  }
  // Behind a call of a line: the next one, or what closes them.
  void next_line(char c, Events& out) {
    if (is_space(c) || c == ',') return;
    if (c == form_.close.front()) {
      state_ = State::kAfter;
      raw_.clear();
      after_call();
      return close_byte(c, out);
    }
    state_ = State::kName;
    if (std::isalpha(static_cast<unsigned char>(c)) == 0 && c != '_') return wrong({&c, 1}, out);
    name_ = c;
  }
  void close_byte(char c, Events& out) {
    std::string plain;
    const bool closed = close_scan_.feed(c, plain) >= 0;
    if (!is_blank(plain)) return wrong(plain + close_scan_.take(), out);
    if (closed && form_.anywhere) state_ = State::kOpen;
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

  const PythonicForm& form_;
  State state_;
  TagScanner open_scan_, close_scan_;
  bool called_ = false;  // the call's name went out
  bool escape_ = false;
  char quote_ = '\0';
  std::string name_, argument_, open_;
};

}  // namespace

std::unique_ptr<ToolParser> make_pythonic(const Json&) { return std::make_unique<Pythonic>(kPythonic); }
std::unique_ptr<ToolParser> make_llama4_pythonic(const Json&) { return std::make_unique<Pythonic>(kLlama4); }
std::unique_ptr<ToolParser> make_lfm2(const Json&) { return std::make_unique<Pythonic>(kLfm2); }
std::unique_ptr<ToolParser> make_olmo3(const Json&) { return std::make_unique<Pythonic>(kOlmo3); }

}  // namespace baton::parse
