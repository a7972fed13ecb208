// glm45: <tool_call>f<arg_key>k</arg_key><arg_value>VALUE</arg_value>...</tool_call>, white space between the tags or none.
// GLM-4.5 and later. Values are bare text, of the type that the request's tool names; arguments go out one at a time.
#include "base/json.h"
#include "parse/limits.h"
#include "parse/parameter_value.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>";
constexpr std::string_view kKeyOpen = "<arg_key>", kKeyClose = "</arg_key>", kValueOpen = "<arg_value>",
                           kValueClose = "</arg_value>";

std::string_view stripped(std::string_view s) {
  while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_space(s.back())) s.remove_suffix(1);
  return s;
}

class Glm45 final : public ToolParser {
 public:
  explicit Glm45(const Json& tools) : tools_(tools) {}
  void finish(Events& out) override {
    if (state_ == State::kText) return content(text_.take(), out);
    broken_ = true;
    if (state_ == State::kName) return content(raw_, out);
    // Cut off inside a value: what there is of it goes out as it is, the string not closed.
    if (state_ != State::kValue) return;
    std::string json = cat(separator(), json_string(key_), ": ", json_string(value_ + value_scan_.take()));
    json.pop_back();
    append(out, Event::Kind::kArguments, json);
  }

 private:
  enum class State : uint8_t { kText, kName, kBody, kKey, kBetween, kValue };

  void step(char c, Events& out) override {
    std::string plain;
    switch (state_) {
      case State::kText:
        if (text_.feed(c, plain) >= 0) begin();
        return content(plain, out);
      case State::kName:
        return name_byte(c, out);
      case State::kBody: {
        const int tag = body_.feed(c, plain);
        if (!is_blank(plain)) return wrong(plain, out);
        if (tag == 0) begin_key();
        if (tag == 1) end(out);
        return;
      }
      case State::kKey:
        if (key_scan_.feed(c, key_) >= 0) {
          key_ = std::string(stripped(key_));
          state_ = State::kBetween;
        } else if (key_.size() > kNameBytesMax) {
          wrong(key_, out);
        }
        return;
      case State::kBetween: {
        const bool begun = between_.feed(c, plain) >= 0;
        if (!is_blank(plain)) return wrong(plain, out);
        if (begun) state_ = State::kValue;
        return;
      }
      case State::kValue:
        if (value_scan_.feed(c, value_) >= 0)
          end_value(out);
        else if (value_.size() > kCallBytesMax)
          wrong(value_, out);
        return;
    }
  }

  void begin() {
    state_ = State::kName;
    raw_ = kOpen;
    name_.clear();
    arguments_ = 0;
  }
  void name_byte(char c, Events& out) {
    raw_ += c;
    const int tag = name_scan_.feed(c, name_);
    const std::string_view name = stripped(name_);
    if (tag >= 0 ? name.empty() : name.size() > kNameBytesMax || name.find('<') != std::string_view::npos) {
      state_ = State::kText;
      return give_up(out);
    }
    if (tag < 0) return;
    name_ = std::string(name);
    append(out, Event::Kind::kCall, name_);
    append(out, Event::Kind::kArguments, "{");
    raw_.clear();
    if (tag == 0) begin_key();
    if (tag == 1) end(out);
  }
  void begin_key() {
    state_ = State::kKey;
    key_.clear();
    value_.clear();
  }
  void end_value(Events& out) {
    append(out, Event::Kind::kArguments, cat(separator(), json_string(key_), ": ", parameter_json(tools_, name_, key_, value_)));
    ++arguments_;
    state_ = State::kBody;
  }
  void end(Events& out) {
    append(out, Event::Kind::kArguments, "}");
    state_ = State::kText;
    after_call();
  }
  // The call's name went out, so it cannot be content any more.
  void wrong(std::string_view rest, Events& out) {
    state_ = State::kText;
    broken_ = true;
    append(out, Event::Kind::kContent, rest);
  }
  std::string_view separator() const { return arguments_ > 0 ? ", " : ""; }

  const Json& tools_;
  State state_ = State::kText;
  TagScanner text_{kOpen}, name_scan_{kKeyOpen, kClose}, body_{kKeyOpen, kClose}, key_scan_{kKeyClose}, between_{kValueOpen},
      value_scan_{kValueClose};
  std::string name_, key_, value_;
  int arguments_ = 0;
};

}  // namespace

std::unique_ptr<ToolParser> make_glm45(const Json& tools) { return std::make_unique<Glm45>(tools); }

}  // namespace baton::parse
