// What an answer is when the request forced the call (tool_choice "required" or a named tool) and a grammar kept the model to it:
// a JSON list of {"name", "parameters"}, or the named tool's arguments alone.
#include "parse/json_call.h"
#include "parse/limits.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

class RequiredCalls final : public ToolParser {
 public:
  void finish(Events& out) override {
    if (state_ == State::kEnd || state_ == State::kText) return;
    if (any_ && state_ != State::kJson) return;  // cut off between two calls: those that are there are whole
    broken_ = true;
    if (!call_.called()) content(raw_, out);
  }

 private:
  enum class State : uint8_t { kStart, kItem, kJson, kAfterItem, kEnd, kText };

  void step(char c, Events& out) override {
    if (state_ == State::kText) return content({&c, 1}, out);
    if (!call_.called()) raw_ += c;
    if (state_ != State::kJson && is_space(c)) return;
    switch (state_) {
      case State::kStart:
        if (c != '[') return wrong(out);
        state_ = State::kItem;
        return;
      case State::kItem:
        state_ = State::kJson;
        call_.reset();
        return json(c, out);
      case State::kJson:
        return json(c, out);
      case State::kAfterItem:
        if (c == ']')
          state_ = State::kEnd;
        else if (c == ',')
          state_ = State::kItem;
        else
          wrong(out);
        return;
      case State::kEnd:
      case State::kText:
        return wrong(out);
    }
  }
  void json(char c, Events& out) {
    call_.feed(c, out);
    if (call_.bad()) return wrong(out);
    if (!call_.done()) return;
    broken_ |= !call_.valid();
    any_ = true;
    call_.reset();
    raw_.clear();
    state_ = State::kAfterItem;
  }
  void wrong(Events& out) {
    state_ = State::kText;
    give_up(out);
  }

  State state_ = State::kStart;
  bool any_ = false;
  JsonCall call_{kOrParameters};
};

class NamedCall final : public ToolParser {
 public:
  explicit NamedCall(std::string name) : name_(std::move(name)) {}
  void finish(Events& out) override { begin(out); }

 private:
  void begin(Events& out) {
    if (begun_) return;
    begun_ = true;
    append(out, Event::Kind::kCall, name_);
  }
  void step(char c, Events& out) override {
    begin(out);
    append(out, Event::Kind::kArguments, {&c, 1});
  }

  const std::string name_;
  bool begun_ = false;
};

std::unique_ptr<ToolParser> make_required(const Json&) { return std::make_unique<RequiredCalls>(); }

std::unique_ptr<ToolParser> make_named(const Json& tools) {
  return std::make_unique<NamedCall>(tools.items.at(0).find_path({"function", "name"})->text);
}

}  // namespace

const ToolParserRow kRequiredCalls{.name = "required", .make = make_required, .forced = true};
const ToolParserRow kNamedCall{.name = "named", .make = make_named, .forced = true, .ends_as_text = true};

}  // namespace baton::parse
