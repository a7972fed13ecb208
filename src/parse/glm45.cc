// glm45: <tool_call>f<arg_key>k</arg_key><arg_value>VALUE</arg_value>...</tool_call>, white space between the tags or none.
// GLM-4.5 and later, Ling 3. Values are bare text, of the type that the request's tool names; arguments go out one at a time.
// poolside_v1: likewise, and what no tool declares is JSON where it can be. hy_v4: <tool_calls> around the calls; every tag may
// have a suffix, the same one: <tool_calls:opensource>. hy_v3: that, and <tool_sep> behind the name. k2_horizon:
// <ifm|tool_calls>, and so every tag; <ifm|arg_type>TYPE</ifm|arg_type> may stand before a value. The section's end may be
// missing.
#include <deque>

#include "base/json.h"
#include "parse/limits.h"
#include "parse/parameter_value.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

struct GlmForm {
  std::string_view undeclared = "string";  // the type of an argument that no tool declares
  std::string_view prefix = "";            // of every tag's name
  bool section = false;                    // <tool_calls> stands around the calls, and tags may have a suffix
  bool separated = false;                  // <tool_sep> ends a name
};
constexpr GlmForm kGlm45{}, kPoolside{.undeclared = "any"}, kHyV3{.section = true, .separated = true}, kHyV4{.section = true},
    kK2Horizon{.prefix = "ifm|", .section = true};
constexpr size_t kSuffixBytesMax = 32;

class Glm45 final : public ToolParser {
 public:
  Glm45(const GlmForm& form, const Json& tools)
      : form_(form), tools_(tools), opening_(cat("<", form.prefix, form.section ? "tool_calls>" : "tool_call>")) {
    suffixed_ = opening_;
    suffixed_.back() = ':';
    text_.add_tag(opening_);
    if (form.section) text_.add_tag(suffixed_);
    spell("");
  }
  void finish(Events& out) override {
    if (state_ == State::kText) return content(text_.take(), out);
    if (state_ == State::kSection && any_) return;  // what closes it may be missing, or cut off
    broken_ = true;
    if (state_ == State::kName || state_ == State::kSection || state_ == State::kSuffix) return content(raw_, out);
    // Cut off inside a value: what there is of it goes out as it is, the string not closed.
    if (state_ != State::kValue) return;
    std::string json = cat(separator(), json_string(key_), ": ", json_string(value_ + value_scan_.take()));
    json.pop_back();
    append(out, Event::Kind::kArguments, json);
  }

 private:
  enum class State : uint8_t { kText, kSuffix, kSection, kName, kBody, kKey, kBetween, kType, kValue };

  void step(char c, Events& out) override {
    std::string plain;
    switch (state_) {
      case State::kText: {
        const int tag = text_.feed(c, plain);
        content(plain, out);
        if (tag >= 0) open(tag == 1);
        return;
      }
      case State::kSuffix:
        return suffix_byte(c, out);
      case State::kSection:
        return section_byte(c, out);
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
          key_ = std::string(trimmed(key_));
          state_ = State::kBetween;
        } else if (key_.size() > kNameBytesMax) {
          wrong(key_, out);
        }
        return;
      case State::kBetween: {
        const int tag = between_.feed(c, plain);
        if (!is_blank(plain)) return wrong(plain, out);
        if (tag >= 0) state_ = tag == 0 ? State::kValue : State::kType;
        return;
      }
      case State::kType:
        if (type_scan_.feed(c, type_) >= 0)
          state_ = State::kBetween;
        else if (type_.size() > kNameBytesMax)
          wrong(type_, out);
        return;
      case State::kValue:
        if (value_scan_.feed(c, value_) >= 0)
          end_value(out);
        else if (value_.size() > kCallBytesMax)
          wrong(value_, out);
        return;
    }
  }

  // The tags, with the suffix of the first.
  void spell(std::string_view suffix) {
    tags_.clear();
    const auto tag = [&](std::string_view slash, std::string_view name) -> std::string_view {
      return tags_.emplace_back(cat("<", slash, form_.prefix, name, suffix, ">"));
    };
    const std::string_view close = tag("/", "tool_call"), key = tag("", "arg_key");
    section_ = {tag("", "tool_call"), tag("/", "tool_calls")};
    name_scan_ = {form_.separated ? tag("", "tool_sep") : key, close};
    body_ = {key, close};
    key_scan_ = {tag("/", "arg_key")};
    between_ = {tag("", "arg_value"), tag("", "arg_type")};
    type_scan_ = {tag("/", "arg_type")};
    value_scan_ = {tag("/", "arg_value")};
  }
  void open(bool suffixed) {
    any_ = false;
    raw_ = suffixed ? suffixed_ : opening_;
    if (!form_.section) return begin();
    suffix_ = ":";
    if (!suffixed) spell("");
    state_ = suffixed ? State::kSuffix : State::kSection;
  }
  void suffix_byte(char c, Events& out) {
    raw_ += c;
    if (is_space(c) || c == '<' || suffix_.size() > kSuffixBytesMax) return none(out);
    if (c != '>') {
      suffix_ += c;
      return;
    }
    spell(suffix_);
    state_ = State::kSection;
  }
  void section_byte(char c, Events& out) {
    std::string plain;
    raw_ += c;
    const int tag = section_.feed(c, plain);
    if (!is_blank(plain) || (tag == 1 && !any_)) return none(out);
    if (tag == 0) begin();
    if (tag != 1) return;
    state_ = State::kText;
    after_call();
  }
  // What raw_ holds is no call.
  void none(Events& out) {
    state_ = State::kText;
    give_up(out);
  }
  void begin() {
    state_ = State::kName;
    name_.clear();
    arguments_ = 0;
  }
  void name_byte(char c, Events& out) {
    raw_ += c;
    const int tag = name_scan_.feed(c, name_);
    const std::string_view name = trimmed(name_);
    if (tag >= 0 ? name.empty() : name.size() > kNameBytesMax || name.find('<') != std::string_view::npos) return none(out);
    if (tag < 0) return;
    name_ = std::string(name);
    append(out, Event::Kind::kCall, name_);
    append(out, Event::Kind::kArguments, "{");
    raw_.clear();
    any_ = true;
    if (tag == 1) return end(out);
    if (form_.separated)
      state_ = State::kBody;
    else
      begin_key();
  }
  void begin_key() {
    state_ = State::kKey;
    key_.clear(), type_.clear(), value_.clear();
  }
  void end_value(Events& out) {
    std::string_view type = type_.empty() ? form_.undeclared : trimmed(std::string_view(type_).substr(0, type_.find('[')));
    if (!type_.empty() && type == "any") type = "string";
    append(out, Event::Kind::kArguments,
           cat(separator(), json_string(key_), ": ", parameter_json(tools_, name_, key_, value_, type)));
    ++arguments_;
    state_ = State::kBody;
  }
  void end(Events& out) {
    append(out, Event::Kind::kArguments, "}");
    state_ = form_.section ? State::kSection : State::kText;
    after_call();
  }
  // The call's name went out, so it cannot be content any more.
  void wrong(std::string_view rest, Events& out) {
    state_ = State::kText;
    broken_ = true;
    append(out, Event::Kind::kContent, rest);
  }
  std::string_view separator() const { return arguments_ > 0 ? ", " : ""; }

  const GlmForm& form_;
  const Json& tools_;
  State state_ = State::kText;
  std::string opening_, suffixed_;  // the first tag; where a suffix of it begins
  std::deque<std::string> tags_;    // what the other scanners look for
  TagScanner text_, section_, name_scan_, body_, key_scan_, between_, type_scan_, value_scan_;
  bool any_ = false;  // a call of this section went out
  std::string suffix_, name_, key_, type_, value_;
  int arguments_ = 0;
};

}  // namespace

std::unique_ptr<ToolParser> make_glm45(const Json& tools) { return std::make_unique<Glm45>(kGlm45, tools); }
std::unique_ptr<ToolParser> make_hy_v3(const Json& tools) { return std::make_unique<Glm45>(kHyV3, tools); }
std::unique_ptr<ToolParser> make_hy_v4(const Json& tools) { return std::make_unique<Glm45>(kHyV4, tools); }
std::unique_ptr<ToolParser> make_k2_horizon(const Json& tools) { return std::make_unique<Glm45>(kK2Horizon, tools); }
std::unique_ptr<ToolParser> make_poolside_v1(const Json& tools) { return std::make_unique<Glm45>(kPoolside, tools); }

}  // namespace baton::parse
