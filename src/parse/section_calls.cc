// Calls in a section of their own, each a header with its name, then JSON: any number of them, text before the section.
// kimi_k2: <|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{...}<|tool_call_end|>
// <|tool_calls_section_end|>; the header is the call's id. deepseek_v31:
// <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{...} <｜tool▁call▁end｜><｜tool▁calls▁end｜>. deepseek_v3 (R1 too):
// its header is type<｜tool▁sep｜>f, and its JSON is fenced. plamo3: <|plamo:begin_tool_requests:plamo|>, tags of that kind
// around call, name and arguments. The section's last tags may be missing.
#include <algorithm>
#include <cctype>

#include "base/json.h"
#include "parse/limits.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

struct Header {
  std::string_view name, id;  // name "" = it is none
};

Header kimi_header(std::string_view text) {
  text = trimmed(text);
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon + 1 == text.size()) return {};
  const std::string_view number = text.substr(colon + 1);
  if (!std::ranges::all_of(number, [](unsigned char c) { return std::isdigit(c) != 0; })) return {};
  std::string_view name = text.substr(0, text.find(':'));
  constexpr std::string_view kSpace = "functions.";
  if (name.starts_with(kSpace)) name.remove_prefix(kSpace.size());
  return {.name = name, .id = text};
}

constexpr std::string_view kSeparator = "<｜tool▁sep｜>";

Header deepseek_v3_header(std::string_view text) {
  const size_t at = text.find(kSeparator);
  return {.name = at == std::string_view::npos ? "" : trimmed(text.substr(at + kSeparator.size())), .id = {}};
}

Header plain_header(std::string_view text) { return {.name = trimmed(text), .id = {}}; }

struct SectionForm {
  std::string_view open, call, json, close, end;  // tags: of the section, of a call, between header and JSON; the ends of both
  Header (*header)(std::string_view text);
};
constexpr SectionForm kKimi{.open = "<|tool_calls_section_begin|>",
                            .call = "<|tool_call_begin|>",
                            .json = "<|tool_call_argument_begin|>",
                            .close = "<|tool_call_end|>",
                            .end = "<|tool_calls_section_end|>",
                            .header = kimi_header};
constexpr SectionForm kDeepseekV3{.open = "<｜tool▁calls▁begin｜>",
                                  .call = "<｜tool▁call▁begin｜>",
                                  .json = "\n```json\n",
                                  .close = "\n```<｜tool▁call▁end｜>",
                                  .end = "<｜tool▁calls▁end｜>",
                                  .header = deepseek_v3_header};
constexpr SectionForm kDeepseekV31{.open = "<｜tool▁calls▁begin｜>",
                                   .call = "<｜tool▁call▁begin｜>",
                                   .json = kSeparator,
                                   .close = "<｜tool▁call▁end｜>",
                                   .end = "<｜tool▁calls▁end｜>",
                                   .header = plain_header};

constexpr SectionForm kPlamo3{
    .open = "<|plamo:begin_tool_requests:plamo|>",
    .call = "<|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>",
    .json = "<|plamo:end_tool_name:plamo|><|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>",
    .close = "<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|>",
    .end = "<|plamo:end_tool_requests:plamo|>",
    .header = plain_header};

class SectionCalls final : public ToolParser {
 public:
  explicit SectionCalls(const SectionForm& form)
      : form_(form),
        open_{form.open},
        section_{form.call, form.end},
        header_scan_{form.json, form.call, form.end},
        json_{form.close, form.end} {}

  void finish(Events& out) override {
    if (state_ == State::kText) return content(open_.take(), out);
    if (state_ == State::kArguments) {
      broken_ = true;
      return append(out, Event::Kind::kArguments, space_ + json_.take());
    }
    if (state_ == State::kSection && any_) return;  // what closes it may be missing, or cut off
    broken_ = true;
    content(raw_, out);
  }

 private:
  enum class State : uint8_t { kText, kSection, kHeader, kArguments };

  void step(char c, Events& out) override {
    std::string plain;
    if (state_ == State::kText) {
      if (open_.feed(c, plain) >= 0) {
        state_ = State::kSection;
        any_ = false;
        raw_ = form_.open;
      }
      return content(plain, out);
    }
    if (state_ == State::kArguments) return argument_byte(c, out);
    raw_ += c;
    if (state_ == State::kHeader) return header_byte(c, out);
    const int tag = section_.feed(c, plain);
    if (!is_blank(plain)) return none(out);
    if (tag == 0) {
      state_ = State::kHeader;
      header_.clear();
      if (any_) raw_ = form_.call;
    } else if (tag == 1) {
      if (!any_) return none(out);
      end_section();
    }
  }

  // What raw_ holds is no call.
  void none(Events& out) {
    state_ = State::kText;
    give_up(out);
  }

  void end_section() {
    state_ = State::kText;
    raw_.clear();
    after_call();
  }

  void header_byte(char c, Events& out) {
    const int tag = header_scan_.feed(c, header_);
    if (tag > 0 || header_.size() > 2 * kNameBytesMax) return none(out);
    if (tag < 0) return;
    const Header header = form_.header(header_);
    if (header.name.empty() || header.name.size() > kNameBytesMax || header.name.find('\n') != std::string_view::npos)
      return none(out);
    append_call(out, header.name, header.id);
    any_ = true;
    state_ = State::kArguments;
    raw_.clear();
    arguments_.clear();
    space_.clear();
  }

  // White space around the arguments is no part of them.
  void argument_byte(char c, Events& out) {
    std::string plain;
    const int tag = json_.feed(c, plain);
    for (const char byte : plain) {
      if (is_space(byte)) {
        if (!arguments_.empty()) space_ += byte;
        continue;
      }
      arguments_ += space_;
      append(out, Event::Kind::kArguments, space_ + byte);
      space_.clear();
      arguments_ += byte;
    }
    if (arguments_.size() > kCallBytesMax) {
      broken_ = true;
      arguments_.resize(1);  // whatever follows goes out all the same
    }
    if (tag < 0) return;
    if (arguments_.empty())
      append(out, Event::Kind::kArguments, "{}");
    else if (!parse_json(arguments_))
      broken_ = true;
    state_ = State::kSection;
    if (tag == 1) end_section();
  }

  const SectionForm& form_;
  State state_ = State::kText;
  TagScanner open_, section_, header_scan_, json_;
  bool any_ = false;  // a call of this section went out
  std::string header_, arguments_, space_;
};

}  // namespace

std::unique_ptr<ToolParser> make_kimi_k2(const Json&) { return std::make_unique<SectionCalls>(kKimi); }
std::unique_ptr<ToolParser> make_deepseek_v3(const Json&) { return std::make_unique<SectionCalls>(kDeepseekV3); }
std::unique_ptr<ToolParser> make_deepseek_v31(const Json&) { return std::make_unique<SectionCalls>(kDeepseekV31); }
std::unique_ptr<ToolParser> make_plamo3(const Json&) { return std::make_unique<SectionCalls>(kPlamo3); }

}  // namespace baton::parse
