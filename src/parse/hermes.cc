// hermes: <tool_call>{"name": "f", "arguments": {...}}</tool_call>, any number of them, text before and between. Hermes 2 and 3,
// Qwen 2.5 and 3, and many others. The last closing tag may be missing.
#include "parse/json_call.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>";

class Hermes final : public ToolParser {
 public:
  void finish(Events& out) override {
    if (state_ == State::kText) return content(open_.take(), out);
    const std::string held = close_.take();
    if (state_ == State::kAfter && is_blank(held) && call_.valid()) return;
    broken_ = true;
    if (!call_.called())
      content(raw_, out);
    else
      append(out, state_ == State::kAfter ? Event::Kind::kContent : Event::Kind::kArguments, held);
  }

 private:
  enum class State : uint8_t { kText, kJson, kAfter, kBad };

  void step(char c, Events& out) override {
    std::string plain;
    if (state_ == State::kText) {
      if (open_.feed(c, plain) >= 0) {
        state_ = State::kJson;
        call_.reset();
        raw_ = kOpen;
      }
      return content(plain, out);
    }
    if (!call_.called()) raw_ += c;
    if (state_ == State::kJson) {
      call_.feed(c, out);
      if (call_.done()) {
        state_ = State::kAfter;
        if (!call_.valid()) broken_ = true;
      }
      if (!call_.bad()) return;
      broken_ = true;
      state_ = call_.called() ? State::kBad : State::kText;
      if (!call_.called()) return give_up(out);
    }
    const bool closed = close_.feed(c, plain) >= 0;
    if (state_ == State::kBad)  // the arguments had begun: what is left of them, as it is
      append(out, Event::Kind::kArguments, plain);
    else if (!is_blank(plain)) {
      broken_ = true;
      append(out, Event::Kind::kContent, plain);
    }
    if (!closed) return;
    state_ = State::kText;
    after_call();
  }

  State state_ = State::kText;
  TagScanner open_{kOpen}, close_{kClose};
  JsonCall call_{false};
};

}  // namespace

std::unique_ptr<ToolParser> make_hermes(const Json&) { return std::make_unique<Hermes>(); }

}  // namespace baton::parse
