// A list of calls between tags: [{"name": "f", "arguments": {...}}, ...], text before it and behind.
// granite: <|tool_call|>[...], or <tool_call> in its place. phi4_mini_json: functools[...], "parameters" too. jamba and
// hunyuan_a13b: <tool_calls>[...]</tool_calls>. xlam: [TOOL_CALLS][...], <tool_call>[...]</tool_call>, a fence of three
// backquotes with or without the word json behind it, or the bare list where the answer begins, or where </think> ends what was
// thought. apertus: <|tools_prefix|>[{"f": {...}}, ...]<|tools_suffix|>. cohere_command3 and 4:
// <|START_ACTION|>[{"tool_call_id": "0", "tool_name": "f", "parameters": {...}}, ...]<|END_ACTION|>. mistral: [TOOL_CALLS][...]
// (tokenizers before version 11) or [TOOL_CALLS]f{...}, the tag again before each (from version 11; later ones put [CALL_ID]id
// and [ARGS] between name and arguments). The last closing tag may be missing.
#include <algorithm>
#include <span>
#include <utility>

#include "base/json.h"
#include "parse/json_call.h"
#include "parse/limits.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

struct Wrap {
  std::string_view open, close{}, word{};  // close "" = the list's end is the section's; word may stand behind open
};
struct ListForm {
  std::span<const Wrap> wraps;
  CallKeys keys{};
  bool list_begun = false;  // its bracket is the opening tag's end
  bool bare = false;        // a list may stand without tags
  bool or_named = false;    // in a list's place there may be one call: its name, then its arguments
};
constexpr Wrap kGraniteWraps[] = {{.open = "<|tool_call|>"}, {.open = "<tool_call>"}}, kPhi4Wraps[] = {{.open = "functools["}},
               kSectionWraps[] = {{.open = "<tool_calls>", .close = "</tool_calls>"}},
               kXlamWraps[] = {{.open = "```", .close = "```", .word = "json"},
                               {.open = "[TOOL_CALLS]"},
                               {.open = "<tool_call>", .close = "</tool_call>"}},
               kApertusWraps[] = {{.open = "<|tools_prefix|>", .close = "<|tools_suffix|>"}},
               kCohereWraps[] = {{.open = "<|START_ACTION|>", .close = "<|END_ACTION|>"}},
               kMistralWraps[] = {{.open = "[TOOL_CALLS]"}};
constexpr ListForm kGranite{.wraps = kGraniteWraps}, kPhi4Mini{.wraps = kPhi4Wraps, .keys = kOrParameters, .list_begun = true},
    kSection{.wraps = kSectionWraps}, kXlam{.wraps = kXlamWraps, .bare = true},
    kApertus{.wraps = kApertusWraps, .keys = {.name = ""}},
    kCohere{.wraps = kCohereWraps, .keys = {.name = "tool_name", .arguments = "parameters", .id = "tool_call_id"}},
    kMistral{.wraps = kMistralWraps, .or_named = true};
constexpr std::string_view kThoughtsEnd = "</think>";
constexpr Wrap kNoWrap{.open = ""};

TagScanner tags_of(const ListForm& form) {
  TagScanner out;
  for (const Wrap& wrap : form.wraps) out.add_tag(wrap.open);
  if (form.bare) out.add_tag(kThoughtsEnd);
  return out;
}

class ListCalls final : public ToolParser {
 public:
  explicit ListCalls(const ListForm& form)
      : form_(form), state_(form.bare ? State::kBare : State::kText), tag_(tags_of(form)), call_(form.keys) {}
  void finish(Events& out) override {
    if (state_ == State::kText) return content(tag_.take(), out);
    if (state_ == State::kBare) return content(raw_, out);
    if (state_ == State::kClose) return;  // what closes the last may be missing, or cut off
    broken_ = true;
    if (!sent()) content(raw_, out);
  }

 private:
  enum class State : uint8_t { kBare, kText, kStart, kItem, kJson, kAfterItem, kName, kArguments, kClose, kBad };

  // The call's name went out, so it cannot be content any more.
  bool sent() const { return state_ == State::kBad || state_ == State::kArguments || call_.called(); }

  void step(char c, Events& out) override {
    switch (state_) {
      case State::kBare:
        if (c == '[') return begin(kNoWrap, c);
        if (!is_space(c)) return no_list(c, out);
        raw_ += c;
        return;
      case State::kText:
        return text(c, out);
      case State::kStart:
        return start(c, out);
      case State::kClose:
        return close(c, out);
      case State::kBad:
        return append(out, Event::Kind::kArguments, {&c, 1});
      default:
        break;
    }
    if (!sent()) raw_ += c;
    if (state_ == State::kName) return name_byte(c, out);
    if (state_ == State::kArguments) return arguments(c, out);
    if (state_ == State::kJson) return json(c, out);
    if (is_space(c)) return;
    if (state_ == State::kItem) {
      if (c != '{' && wrap_ == &kNoWrap && first_) return not_bare(out);
      state_ = State::kJson;
      first_ = false;
      call_.reset();
      return json(c, out);
    }
    if (c == ',')
      state_ = State::kItem;
    else if (c == ']')
      end_list();
    else
      wrong(c, out);
  }

  void text(char c, Events& out) {
    std::string plain;
    const int tag = tag_.feed(c, plain);
    content(plain, out);
    if (tag < 0) return;
    if (static_cast<size_t>(tag) == form_.wraps.size()) {
      content(kThoughtsEnd, out);
      state_ = State::kBare;
      raw_.clear();
      return;
    }
    wrap_ = &form_.wraps[static_cast<size_t>(tag)];
    raw_ = wrap_->open;
    call_.reset();
    state_ = form_.list_begun ? State::kItem : State::kStart;
  }

  // Behind the opening tag: perhaps a word, white space, the bracket.
  void start(char c, Events& out) {
    if (is_space(c) && is_space(raw_.back())) {
      raw_ += c;
      return;
    }
    std::string_view word = std::string_view(raw_).substr(wrap_->open.size());
    while (!word.empty() && is_space(word.back())) word.remove_suffix(1);
    const bool spaced = is_space(raw_.back());
    if (c == '[' && (word.empty() || word == wrap_->word)) return begin(*wrap_, c);
    if (form_.or_named && !is_space(c)) {
      name_.clear();
      raw_ += c;
      state_ = State::kName;
      return name_byte(c, out);
    }
    const bool goes_on = !spaced && wrap_->word.substr(word.size()).starts_with(c);
    if (!goes_on && !(is_space(c) && (word.empty() || word == wrap_->word))) return no_list(c, out);
    raw_ += c;
  }
  void begin(const Wrap& wrap, char c) {
    wrap_ = &wrap;
    raw_ += c;
    call_.reset();
    first_ = true;
    state_ = State::kItem;
  }
  // A bracket that begins no list may begin a tag.
  void not_bare(Events& out) {
    state_ = State::kText;
    for (const char held : std::exchange(raw_, {})) text(held, out);
  }
  // What raw_ holds is text; c may begin a tag.
  void no_list(char c, Events& out) {
    state_ = State::kText;
    if (!form_.bare) broken_ = true;
    content(std::exchange(raw_, {}), out);
    text(c, out);
  }

  void json(char c, Events& out) {
    call_.feed(c, out);
    if (call_.bad()) return wrong(c, out);
    if (!call_.done()) return;
    if (!call_.valid()) broken_ = true;
    call_.reset();
    raw_.clear();
    state_ = State::kAfterItem;
  }
  void name_byte(char c, Events& out) {
    if (c != '{') {
      name_ += c;
      if (name_.size() > 2 * kNameBytesMax) wrong(c, out);
      return;
    }
    const size_t end = std::min(name_.find("[CALL_ID]"), name_.find("[ARGS]"));
    if (end != std::string::npos) name_.resize(end);
    while (!name_.empty() && is_space(name_.back())) name_.pop_back();
    if (!is_function_name(name_)) return wrong(c, out);
    append(out, Event::Kind::kCall, name_);
    state_ = State::kArguments;
    raw_.clear();  // now the arguments, to be checked when they end
    extent_.reset();
    arguments(c, out);
  }
  void arguments(char c, Events& out) {
    append(out, Event::Kind::kArguments, {&c, 1});
    raw_ += c;
    const auto extent = extent_.feed(c);
    if (extent == JsonExtent::State::kBad || raw_.size() > kCallBytesMax) {
      broken_ = true;
      state_ = State::kBad;
    } else if (extent == JsonExtent::State::kDone) {
      if (!parse_json(raw_)) broken_ = true;
      end_list();
    }
  }
  void wrong(char c, Events& out) {
    if (!sent()) {
      state_ = State::kText;
      return give_up(out);
    }
    broken_ = true;
    state_ = State::kBad;
    append(out, Event::Kind::kArguments, {&c, 1});
  }
  void end_list() {
    raw_.clear();
    state_ = wrap_->close.empty() ? State::kText : State::kClose;
    close_ = wrap_->close.empty() ? TagScanner{} : TagScanner{wrap_->close};
    after_call();
  }
  void close(char c, Events& out) {
    std::string plain;
    const bool closed = close_.feed(c, plain) >= 0;
    if (closed) state_ = State::kText;
    if (is_blank(plain)) return;
    broken_ = true;
    state_ = State::kText;
    content(plain, out);
    for (const char held : close_.take()) text(held, out);
  }

  const ListForm& form_;
  State state_;
  const Wrap* wrap_ = &kNoWrap;
  bool first_ = true;  // no item of the list was begun
  TagScanner tag_, close_;
  JsonCall call_;
  JsonExtent extent_;
  std::string name_;  // of a call without a list
};

}  // namespace

std::unique_ptr<ToolParser> make_apertus(const Json&) { return std::make_unique<ListCalls>(kApertus); }
std::unique_ptr<ToolParser> make_cohere_command(const Json&) { return std::make_unique<ListCalls>(kCohere); }
std::unique_ptr<ToolParser> make_granite(const Json&) { return std::make_unique<ListCalls>(kGranite); }
std::unique_ptr<ToolParser> make_jamba(const Json&) { return std::make_unique<ListCalls>(kSection); }
std::unique_ptr<ToolParser> make_mistral(const Json&) { return std::make_unique<ListCalls>(kMistral); }
std::unique_ptr<ToolParser> make_phi4_mini_json(const Json&) { return std::make_unique<ListCalls>(kPhi4Mini); }
std::unique_ptr<ToolParser> make_xlam(const Json&) { return std::make_unique<ListCalls>(kXlam); }

}  // namespace baton::parse
