// hermes: <tool_call>{"name": "f", "arguments": {...}}</tool_call>, any number of them, text before and between. Hermes 2 and 3,
// Qwen 2.5 and 3, Granite 4, Ernie 4.5 and many others. The last closing tag may be missing. Others have tags of their own:
// longcat <longcat_tool_call>...</longcat_tool_call>; internlm <|action_start|><|plugin|>...<|action_end|>, with "parameters";
// granite-20b-fc <function_call>... with nothing that closes it; gigachat3 likewise, behind function call<|role_sep|> and a line
// end, or behind <|function_call|>, <|message_sep|> before it or not.
#include <span>

#include "parse/json_call.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

struct TaggedForm {
  std::span<const std::string_view> open;  // any of them
  std::string_view close;                  // "": the object's end is the call's
  CallKeys keys{};
};
constexpr std::string_view kHermesOpen[] = {"<tool_call>"}, kLongcatOpen[] = {"<longcat_tool_call>"},
                           kInternlmOpen[] = {"<|action_start|><|plugin|>"}, kGranite20bOpen[] = {"<function_call>"},
                           kGigachat3Open[] = {"<|message_sep|>function call<|role_sep|>\n", "function call<|role_sep|>\n",
                                               "<|message_sep|><|function_call|>", "<|function_call|>"};
constexpr TaggedForm kHermes{.open = kHermesOpen, .close = "</tool_call>"},
    kLongcat{.open = kLongcatOpen, .close = "</longcat_tool_call>"},
    kInternlm{.open = kInternlmOpen, .close = "<|action_end|>", .keys = kOrParameters},
    kGranite20b{.open = kGranite20bOpen, .close = ""}, kGigachat3{.open = kGigachat3Open, .close = ""};

class Hermes final : public ToolParser {
 public:
  explicit Hermes(const TaggedForm& form)
      : form_(form), close_(form.close.empty() ? TagScanner{} : TagScanner{form.close}), call_(form.keys) {
    for (const std::string_view tag : form.open) open_.add_tag(tag);
  }
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
      const int tag = open_.feed(c, plain);
      if (tag >= 0) {
        state_ = State::kJson;
        call_.reset();
        raw_ = form_.open[static_cast<size_t>(tag)];
      }
      return content(plain, out);
    }
    if (!call_.called()) raw_ += c;
    if (state_ == State::kJson) {
      call_.feed(c, out);
      if (call_.done()) {
        state_ = State::kAfter;
        if (!call_.valid()) broken_ = true;
        if (form_.close.empty()) end();
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
    if (closed) end();
  }
  void end() {
    state_ = State::kText;
    after_call();
  }

  const TaggedForm& form_;
  State state_ = State::kText;
  TagScanner open_, close_;
  JsonCall call_;
};

}  // namespace

std::unique_ptr<ToolParser> make_hermes(const Json&) { return std::make_unique<Hermes>(kHermes); }
std::unique_ptr<ToolParser> make_gigachat3(const Json&) { return std::make_unique<Hermes>(kGigachat3); }
std::unique_ptr<ToolParser> make_longcat(const Json&) { return std::make_unique<Hermes>(kLongcat); }
std::unique_ptr<ToolParser> make_internlm(const Json&) { return std::make_unique<Hermes>(kInternlm); }
std::unique_ptr<ToolParser> make_granite_20b_fc(const Json&) { return std::make_unique<Hermes>(kGranite20b); }

}  // namespace baton::parse
