#include "parse/harmony.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "parse/limits.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

constexpr std::string_view kStart = "<|start|>", kMessage = "<|message|>", kChannel = "<|channel|>", kConstrain = "<|constrain|>";
constexpr std::string_view kEnds[] = {"<|end|>", "<|call|>", "<|return|>"};
constexpr std::string_view kFunctions = "functions.";
constexpr std::string_view kNoRole = "?";  // the prompt's last message is over: the answer begins with <|start|>

// The end that `text` begins with, "" if none is whole.
std::string_view whole_end(std::string_view text) {
  for (const std::string_view end : kEnds) {
    if (text.starts_with(end)) return end;
  }
  return {};
}

// An end, and behind it a beginning of <|start|>.
bool may_be_end(std::string_view text) {
  return std::ranges::any_of(kEnds, [&](std::string_view end) {
    if (text.size() <= end.size()) return end.starts_with(text);
    return text.starts_with(end) && kStart.starts_with(text.substr(end.size()));
  });
}

bool either_begins(std::string_view a, std::string_view b) { return a.starts_with(b) || b.starts_with(a); }

// `header` is the beginning of one: a role of our own, then where it goes, its channel, and in which form.
bool may_be_header(std::string_view header) {
  if (header.size() <= kHarmonyHeader.size()) return kHarmonyHeader.starts_with(header);
  if (!header.starts_with(kHarmonyHeader) || header.size() > 2 * kNameBytesMax) return false;
  if (header.find('\n') != std::string_view::npos) return false;
  const std::string_view rest = header.substr(kHarmonyHeader.size());
  const bool tag = std::ranges::any_of(std::initializer_list<std::string_view>{kChannel, kMessage, kConstrain},
                                       [&](std::string_view t) { return either_begins(rest, t); });
  return tag || either_begins(rest, " to=") || either_begins(rest, " <|");
}

// The word behind `mark`, "" if it is not there.
std::string_view word_behind(std::string_view header, std::string_view mark) {
  const size_t at = header.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = header.substr(at + mark.size());
  return rest.substr(0, rest.find_first_of(" <"));
}

// The function that is called, "" for anything else. A name alone is taken for a function, as vLLM does, unless it is one of the
// tools that the model was trained with.
std::string_view function_of(std::string_view recipient) {
  if (recipient.starts_with(kFunctions)) return recipient.substr(kFunctions.size());
  const std::string_view first = recipient.substr(0, recipient.find('.'));
  constexpr std::string_view kOwn[] = {"assistant", "python", "browser", "container"};
  return std::ranges::find(kOwn, first) == std::end(kOwn) ? recipient : std::string_view();
}

}  // namespace

std::string harmony_begun(std::string_view prompt) {
  const size_t at = prompt.rfind(kStart);
  return std::string(at == std::string_view::npos ? kHarmonyHeader : prompt.substr(at + kStart.size()));
}

Harmony::Harmony(std::string_view begun, bool calls) : calls_(calls) {
  if (begun.starts_with(kHarmonyHeader) && is_blank(begun.substr(kHarmonyHeader.size()))) begun = kHarmonyHeader;
  const bool over = std::ranges::any_of(kEnds, [&](std::string_view end) { return begun.ends_with(end); });
  header_ = kHarmonyHeader;
  if (over || !begun.starts_with(kHarmonyHeader)) {
    header_ = kNoRole;
    return;
  }
  Events before;
  first_ = false;  // <|start|> has been
  add(begun.substr(kHarmonyHeader.size()), before);
  first_ = state_ == State::kHeader;
  raw_.clear();
  any_ = told_[0] = told_[1] = false;
  if (in_call()) kind_ = Event::Kind::kContent;  // whose name was never sent
}

bool Harmony::thinking() const {
  return state_ == State::kBody && kind_ == Event::Kind::kReasoning && any_ && whole_end(held_).empty();
}

void Harmony::step(char c, Events& out) { state_ == State::kBody ? body_byte(c, out) : header_byte(c, out); }

void Harmony::say(std::string_view text, Events& out) {
  if (text.empty()) return;
  if (in_call()) {
    if (arguments_.size() < kCallBytesMax) arguments_ += text;
  } else {
    bool& told = told_[kind_ == Event::Kind::kReasoning];
    if (!any_ && told) append(out, kind_, "\n");
    told = true;
  }
  any_ = true;
  append(out, kind_, text);
}

// The message goes on until an end with <|start|> behind it, or with nothing: an end alone may be what the model writes about.
void Harmony::body_byte(char c, Events& out) {
  held_ += c;
  while (!held_.empty() && !may_be_end(held_)) {
    say(std::string_view(held_).substr(0, 1), out);
    held_.erase(0, 1);
  }
  const std::string_view end = whole_end(held_);
  if (end.empty() || held_.size() < end.size() + kStart.size()) return;
  raw_ = std::exchange(held_, {});
  header_.clear();
  first_ = false;
  state_ = State::kHeader;
}

void Harmony::header_byte(char c, Events& out) {
  raw_ += c;
  header_ += c;
  if (first_ && kStart.starts_with(raw_)) {  // a prompt that ends before <|start|>, or a model that says it again
    if (raw_.size() < kStart.size()) return;
    header_.clear();
    first_ = false;
    return;
  }
  if (!may_be_header(header_)) return no_header(out);
  if (header_.ends_with(kMessage)) begin_message(out);
}

// What was read is text: of the message before, or the answer is not in this format.
void Harmony::no_header(Events& out) {
  state_ = State::kBody;
  if (in_call() && (!any_ || parse_json(arguments_))) {
    end_message(out);
    kind_ = Event::Kind::kContent;
    any_ = false;
  }
  // It may hold the beginning of an end: "<|start|>assi<|end|>".
  const std::string raw = std::exchange(raw_, {});
  const size_t end = whole_end(raw).size();
  say(std::string_view(raw).substr(0, end + 1), out);
  for (const char c : std::string_view(raw).substr(std::min(end + 1, raw.size()))) step(c, out);
}

void Harmony::begin_message(Events& out) {
  end_message(out);  // the one before
  const std::string_view header = std::string_view(header_).substr(0, header_.size() - kMessage.size());
  const std::string_view channel = word_behind(header, kChannel), recipient = word_behind(header, " to=");
  const std::string_view function = function_of(recipient);
  state_ = State::kBody;
  first_ = any_ = false;
  raw_.clear();
  arguments_.clear();
  if (!function.empty()) {
    kind_ = calls_ && function.size() <= kNameBytesMax ? Event::Kind::kArguments : Event::Kind::kContent;
    if (in_call()) append(out, Event::Kind::kCall, function);
  } else {
    const bool thought = channel == "analysis" || (!recipient.empty() && channel != "final");
    kind_ = thought ? Event::Kind::kReasoning : Event::Kind::kContent;
  }
  header_.clear();
}

void Harmony::end_message(Events& out) {
  if (in_call() && !any_) append(out, Event::Kind::kArguments, "{}");
}

void Harmony::finish(Events& out) {
  if (state_ == State::kHeader) {
    // Cut off inside a header: between two messages nothing is lost by it but the header.
    const size_t end = whole_end(raw_).size();
    if (end > 0) return end_message(out);
    state_ = State::kBody;
    return say(std::exchange(raw_, {}), out);
  }
  const size_t end = whole_end(held_).size();
  if (end < held_.size() && end > 0) {  // half a <|start|>
    held_.resize(end);
  } else if (end == 0) {
    say(std::exchange(held_, {}), out);
    if (in_call()) broken_ = !parse_json(arguments_).has_value();
    if (broken_) return;
  }
  end_message(out);
}

namespace {

// Harmony behind the interface of all formats: a prompt that ends as the template ends it, and reasoning among the events.
class OpenAi final : public ToolParser {
 public:
  void finish(Events& out) override {
    harmony_.finish(out);
    broken_ = harmony_.broken();
  }

 private:
  void step(char c, Events& out) override { harmony_.add({&c, 1}, out); }
  Harmony harmony_{kHarmonyHeader, true};
};

}  // namespace

std::unique_ptr<ToolParser> make_openai(const Json&) { return std::make_unique<OpenAi>(); }

const ToolParserRow kRequiredHarmony{
    .name = "required", .make = make_openai, .special_tokens = true, .forced = true, .harmony = true};
const ToolParserRow kNamedHarmony{
    .name = "named", .make = make_openai, .special_tokens = true, .forced = true, .ends_as_text = true, .harmony = true};

}  // namespace baton::parse
