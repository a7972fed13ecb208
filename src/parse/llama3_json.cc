// llama3_json: the answer is {"name": "f", "parameters": {...}} ("arguments" too), several with ';' between, after <|python_tag|>
// or not. Llama 3.1 to 4. An answer that does not begin with '{' is text, whatever follows; text after the last call is content.
#include <utility>

#include "parse/json_call.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

constexpr std::string_view kTag = "<|python_tag|>";

class Llama3Json final : public ToolParser {
 public:
  void finish(Events& out) override {
    switch (state_) {
      case State::kStart:
        return content(raw_, out);
      case State::kJson:
        broken_ = true;
        if (!call_.called()) content(raw_, out);
        return;
      case State::kAfter:
      case State::kText:
      case State::kBad:
        return;
    }
  }

 private:
  enum class State : uint8_t { kStart, kJson, kAfter, kText, kBad };

  void step(char c, Events& out) override {
    switch (state_) {
      case State::kText:
        return content({&c, 1}, out);
      case State::kBad:  // the arguments had begun
        return append(out, Event::Kind::kArguments, {&c, 1});
      case State::kStart:
        raw_ += c;
        return start(c, out);
      case State::kAfter:
        if (is_space(c) || (c == ';' && !separated_)) {
          separated_ = separated_ || c == ';';
          raw_ += c;
          return;
        }
        if (c != '{') {
          state_ = State::kText;
          return content(std::exchange(raw_, {}) + c, out);
        }
        raw_ += c;
        return begin(c, out);
      case State::kJson:
        if (!call_.called()) raw_ += c;
        return json(c, out);
    }
  }

  void start(char c, Events& out) {
    if (c == '{') return begin(c, out);
    const size_t from = raw_.find_first_not_of(" \n\t\r");
    if (from == std::string::npos || kTag.starts_with(std::string_view(raw_).substr(from))) return;
    if (raw_.compare(from, kTag.size(), kTag) == 0 && is_blank(std::string_view(raw_).substr(from + kTag.size()))) return;
    state_ = State::kText;
    content(std::exchange(raw_, {}), out);
  }
  void begin(char c, Events& out) {
    state_ = State::kJson;
    call_.reset();
    json(c, out);
  }
  void json(char c, Events& out) {
    call_.feed(c, out);
    if (call_.bad()) {
      broken_ = true;
      state_ = call_.called() ? State::kBad : State::kText;
      if (!call_.called()) return give_up(out);
      append(out, Event::Kind::kArguments, {&c, 1});
    } else if (call_.done()) {
      if (!call_.valid()) broken_ = true;
      state_ = State::kAfter;
      separated_ = false;
      raw_.clear();
      after_call();
    }
  }

  State state_ = State::kStart;
  bool separated_ = false;
  JsonCall call_{kOrParameters};
};

}  // namespace

std::unique_ptr<ToolParser> make_llama3_json(const Json&) { return std::make_unique<Llama3Json>(); }

}  // namespace baton::parse
