// mistral: [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...] (tokenizers before version 11) or [TOOL_CALLS]f{...}, the tag
// again before each (from version 11; later ones put [CALL_ID]id and [ARGS] between name and arguments).
#include <algorithm>
#include <cctype>

#include "base/json.h"
#include "parse/json_call.h"
#include "parse/limits.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

constexpr std::string_view kTag = "[TOOL_CALLS]";

bool is_name(std::string_view s) {
  return !s.empty() && s.size() <= kNameBytesMax &&
         std::ranges::all_of(s, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.'; });
}

class Mistral final : public ToolParser {
 public:
  void finish(Events& out) override {
    if (state_ == State::kText) return content(tag_.take(), out);
    broken_ = true;
    if (!sent()) content(raw_, out);
  }

 private:
  enum class State : uint8_t { kText, kStart, kItem, kJson, kAfterItem, kName, kArguments, kBad };

  // The call's name went out, so it cannot be content any more.
  bool sent() const { return state_ == State::kArguments || state_ == State::kBad || call_.called(); }

  void step(char c, Events& out) override {
    if (state_ == State::kText) {
      std::string plain;
      if (tag_.feed(c, plain) >= 0) {
        state_ = State::kStart;
        raw_ = kTag;
        call_.reset();
      }
      return content(plain, out);
    }
    if (!sent()) raw_ += c;
    switch (state_) {
      case State::kText:
        return;
      case State::kStart:
        if (is_space(c)) return;
        if (c != '[') return name_byte(c, out);
        state_ = State::kItem;
        return;
      case State::kItem:
        if (is_space(c)) return;
        state_ = State::kJson;
        call_.reset();
        return json(c, out);
      case State::kJson:
        return json(c, out);
      case State::kAfterItem:
        if (c == ',')
          state_ = State::kItem;
        else if (c == ']')
          end();
        else if (!is_space(c))
          wrong(c, out);
        return;
      case State::kName:
        return name_byte(c, out);
      case State::kArguments:
        return arguments(c, out);
      case State::kBad:
        return append(out, Event::Kind::kArguments, {&c, 1});
    }
  }

  void end() {
    state_ = State::kText;
    after_call();
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
    if (state_ == State::kStart) name_.clear();
    state_ = State::kName;
    if (c != '{') {
      name_ += c;
      if (name_.size() > 2 * kNameBytesMax) wrong(c, out);
      return;
    }
    const size_t end = std::min(name_.find("[CALL_ID]"), name_.find("[ARGS]"));
    if (end != std::string::npos) name_.resize(end);
    while (!name_.empty() && is_space(name_.back())) name_.pop_back();
    if (!is_name(name_)) return wrong(c, out);
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
      end();
    }
  }

  State state_ = State::kText;
  TagScanner tag_{kTag};
  JsonCall call_{false};
  JsonExtent extent_;
  std::string name_;
};

}  // namespace

std::unique_ptr<ToolParser> make_mistral(const Json&) { return std::make_unique<Mistral>(); }

}  // namespace baton::parse
