// qwen3_coder: <tool_call><function=f><parameter=p>VALUE</parameter>...</function></tool_call>. Qwen3-Coder. Values are bare
// text: what they are in JSON follows from the type that the request's tool names for the parameter. Arguments go out a parameter
// at a time. <function=...> without <tool_call> around it is a call too.
// minimax_m2: <minimax:tool_call><invoke name="f"><parameter name="p">VALUE</parameter>...</invoke></minimax:tool_call>,
// likewise. seed_oss, mimo and step3p5 are qwen3_coder with other tags or spaces. deepseek_v32:
// <｜DSML｜function_calls><｜DSML｜invoke name="f"><｜DSML｜parameter name="p" string="true">VALUE</｜DSML｜parameter>...
// </｜DSML｜invoke></｜DSML｜function_calls>: the attribute says whether the value is text or JSON. deepseek_v4:
// <｜DSML｜tool_calls> in that place; deepseek_v41: <｜DSML｜ calls>, and a space before the other tags' names. dots is
// minimax_m2 in <dots_function_call>. minicpm5: <function name="f"><param name="p">VALUE</param>...</function> and nothing around
// it, a value perhaps in <![CDATA[...]]>. step3: <｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke
// name="f"><steptml:parameter name="p">VALUE</steptml:parameter>...</steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>.
// kimi_k3: <|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument key="p" type="string"<|sep|>VALUE
// <|close|>argument<|sep|>...<|close|>call<|sep|><|close|>tools<|sep|>: a value of another type is JSON, whatever the tool says.

#include "base/json.h"
#include "parse/limits.h"
#include "parse/parameter_value.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

struct XmlForm {
  std::string_view call_open, call_close;  // "": nothing stands around functions
  std::string_view function_open, function_close, parameter_open, parameter_close;
  std::string_view head_end = ">";    // behind a name
  std::string_view says_string = "";  // behind a parameter's name: its value is text if this stands there, else JSON
  bool quoted = false;                // names stand in quotes, or in none
  bool own_lines = false;             // a line end around a value is no part of it
  bool trimmed = false;               // nor is any white space there
  bool cdata = false;                 // a value may stand in <![CDATA[...]]>
};
constexpr XmlForm kQwen3Coder{.call_open = "<tool_call>",
                              .call_close = "</tool_call>",
                              .function_open = "<function=",
                              .function_close = "</function>",
                              .parameter_open = "<parameter=",
                              .parameter_close = "</parameter>",
                              .own_lines = true};
constexpr XmlForm kMinimaxM2{.call_open = "<minimax:tool_call>",
                             .call_close = "</minimax:tool_call>",
                             .function_open = "<invoke name=",
                             .function_close = "</invoke>",
                             .parameter_open = "<parameter name=",
                             .parameter_close = "</parameter>",
                             .quoted = true};
constexpr XmlForm dots() {
  XmlForm form = kMinimaxM2;
  form.call_open = "<dots_function_call>";
  form.call_close = "</dots_function_call>";
  form.trimmed = true;
  return form;
}
constexpr XmlForm kDots = dots();
constexpr XmlForm kMinicpm5{.call_open = "",
                            .call_close = "",
                            .function_open = "<function name=",
                            .function_close = "</function>",
                            .parameter_open = "<param name=",
                            .parameter_close = "</param>",
                            .quoted = true,
                            .cdata = true};
constexpr XmlForm kStep3{.call_open = "<｜tool_calls_begin｜>",
                         .call_close = "<｜tool_calls_end｜>",
                         .function_open = "<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name=",
                         .function_close = "</steptml:invoke><｜tool_call_end｜>",
                         .parameter_open = "<steptml:parameter name=",
                         .parameter_close = "</steptml:parameter>",
                         .quoted = true,
                         .trimmed = true};
constexpr XmlForm kKimiK3{.call_open = "<|open|>tools<|sep|>",
                          .call_close = "<|close|>tools<|sep|>",
                          .function_open = "<|open|>call tool=",
                          .function_close = "<|close|>call<|sep|>",
                          .parameter_open = "<|open|>argument key=",
                          .parameter_close = "<|close|>argument<|sep|>",
                          .head_end = "<|sep|>",
                          .says_string = "type=\"string\"",
                          .quoted = true};
constexpr XmlForm kSeedOss{.call_open = "<seed:tool_call>",
                           .call_close = "</seed:tool_call>",
                           .function_open = "<function=",
                           .function_close = "</function>",
                           .parameter_open = "<parameter=",
                           .parameter_close = "</parameter>",
                           .own_lines = true};
constexpr XmlForm kMimo{.call_open = "<tool_call>",
                        .call_close = "</tool_call>",
                        .function_open = "<function=",
                        .function_close = "</function>",
                        .parameter_open = "<parameter=",
                        .parameter_close = "</parameter>"};
constexpr XmlForm kDeepseekV32{.call_open = "<｜DSML｜function_calls>",
                               .call_close = "</｜DSML｜function_calls>",
                               .function_open = "<｜DSML｜invoke name=",
                               .function_close = "</｜DSML｜invoke>",
                               .parameter_open = "<｜DSML｜parameter name=",
                               .parameter_close = "</｜DSML｜parameter>",
                               .says_string = "string=\"true\"",
                               .quoted = true};
constexpr XmlForm deepseek_v4() {
  XmlForm form = kDeepseekV32;
  form.call_open = "<｜DSML｜tool_calls>";
  form.call_close = "</｜DSML｜tool_calls>";
  return form;
}
constexpr XmlForm kDeepseekV4 = deepseek_v4();
constexpr XmlForm kDeepseekV41{.call_open = "<｜DSML｜ calls>",
                               .call_close = "</｜DSML｜ calls>",
                               .function_open = "<｜DSML｜ invoke name=",
                               .function_close = "</｜DSML｜ invoke>",
                               .parameter_open = "<｜DSML｜ parameter name=",
                               .parameter_close = "</｜DSML｜ parameter>",
                               .says_string = "string=\"true\"",
                               .quoted = true};

// What stands behind the name's quote is cut off the name: true if that is `mark`, perhaps among others.
bool cut_attribute(std::string& name, std::string_view mark) {
  const size_t end = name.starts_with('"') ? name.find('"', 1) : std::string::npos;
  if (end == std::string::npos) return false;
  const bool marked = name.find(mark, end) != std::string::npos;
  name.resize(end + 1);
  return marked;
}

void unquote(std::string& name) {
  while (!name.empty() && is_space(name.back())) name.pop_back();
  const bool both = name.size() > 1 && (name.front() == '"' || name.front() == '\'') && name.back() == name.front();
  if (both) name = name.substr(1, name.size() - 2);
}

std::string_view without_cdata(std::string_view value) {
  constexpr std::string_view kOpen = "<![CDATA[", kClose = "]]>";
  const std::string_view inside = trimmed(value);
  if (!inside.starts_with(kOpen) || !inside.ends_with(kClose)) return value;
  return inside.substr(kOpen.size(), inside.size() - kOpen.size() - kClose.size());
}

class Qwen3Coder final : public ToolParser {
 public:
  Qwen3Coder(const XmlForm& form, const Json& tools)
      : form_(form),
        tools_(tools),
        text_{form.function_open},
        open_{form.function_open},
        head_{form.head_end},
        body_{form.parameter_open, form.function_close, form.parameter_close},
        value_scan_{form.parameter_close, form.parameter_open, form.function_close},
        end_{form.function_open} {
    if (form.call_open.empty()) return;
    text_.add_tag(form.call_open);
    end_.add_tag(form.call_close);
  }
  void finish(Events& out) override {
    if (state_ == State::kText) return content(text_.take(), out);
    if (state_ == State::kEnd) {
      const std::string held = end_.take();
      broken_ = broken_ || !is_blank(held);
      return content(held, out);
    }
    broken_ = true;
    if (!called_) return content(raw_, out);
    // Cut off inside a value: what there is of it goes out as it is, the string not closed.
    if (state_ != State::kValue) return;
    value_ += value_scan_.take();
    std::string json = cat(parameters_ > 0 ? ", " : "", json_string(parameter_), ": ", json_string(value_));
    json.pop_back();
    append(out, Event::Kind::kArguments, json);
  }

 private:
  enum class State : uint8_t { kText, kOpen, kName, kBody, kParameter, kValue, kEnd };

  void step(char c, Events& out) override {
    if (state_ != State::kText && !called_) raw_ += c;
    std::string plain;
    switch (state_) {
      case State::kText: {
        const int tag = text_.feed(c, plain);
        content(plain, out);
        if (tag >= 0) begin(tag == 1);
        return;
      }
      case State::kOpen:
        if (open_.feed(c, plain) >= 0)
          begin_function();
        else if (!is_blank(plain))
          wrong(plain, out);
        return;
      case State::kName:
      case State::kParameter:
        return name_byte(c, out);
      case State::kBody:
        return body(c, out);
      case State::kValue:
        return value_byte(c, out);
      case State::kEnd: {
        const int tag = end_.feed(c, plain);
        if (tag == 1) {
          state_ = State::kText;
          after_call();
        } else if (tag == 0) {
          raw_ = form_.function_open;
          begin_function();
        } else if (!is_blank(plain)) {
          wrong(plain, out);
        }
        return;
      }
    }
  }

  void begin(bool in_call) {
    in_call_ = in_call;
    called_ = false;
    raw_ = in_call ? form_.call_open : form_.function_open;
    if (in_call)
      state_ = State::kOpen;
    else
      begin_function();
  }
  void begin_function() {
    state_ = State::kName;
    called_ = false;
    name_.clear();
    parameters_ = 0;
  }
  void wrong(std::string_view rest, Events& out) {
    state_ = State::kText;
    if (!called_) return give_up(out);
    broken_ = true;
    append(out, Event::Kind::kContent, rest);
  }
  void name_byte(char c, Events& out) {
    std::string& name = state_ == State::kName ? name_ : parameter_;
    if (head_.feed(c, name) < 0) {
      if (name.size() > kNameBytesMax || name.find_first_of("<\n") != std::string::npos) wrong(name + head_.take(), out);
      return;
    }
    if (!form_.says_string.empty()) is_text_ = cut_attribute(name, form_.says_string);
    if (form_.quoted) unquote(name);
    if (state_ == State::kParameter) {
      state_ = State::kValue;
      value_.clear();
      return;
    }
    if (name_.empty()) return wrong("", out);
    append(out, Event::Kind::kCall, name_);
    append(out, Event::Kind::kArguments, "{");
    called_ = true;
    raw_.clear();
    state_ = State::kBody;
  }
  void body(char c, Events& out) {
    std::string plain;
    const int tag = body_.feed(c, plain);  // a </parameter> too many, behind a value that has one, is none
    if (!is_blank(plain)) return wrong(plain, out);
    if (tag == 0) begin_parameter();
    if (tag == 1) end_function(out);
  }
  void begin_parameter() {
    parameter_.clear();
    state_ = State::kParameter;
  }
  void value_byte(char c, Events& out) {
    const int tag = value_scan_.feed(c, value_);
    if (value_.size() > kCallBytesMax) return wrong(value_, out);
    if (tag < 0) return;
    std::string_view value = value_;
    if (form_.own_lines && value.starts_with('\n')) value.remove_prefix(1);
    if (form_.own_lines && value.ends_with('\n')) value.remove_suffix(1);
    if (form_.trimmed) value = trimmed(value);
    if (form_.cdata) value = without_cdata(value);
    append(out, Event::Kind::kArguments, cat(parameters_++ > 0 ? ", " : "", json_string(parameter_), ": ", json_of(value)));
    state_ = State::kBody;
    if (tag == 1) begin_parameter();
    if (tag == 2) end_function(out);
  }
  std::string json_of(std::string_view value) const {
    const bool json = !form_.says_string.empty() && !is_text_ && parse_json(value, {.depth_max = static_cast<int>(kNestingMax)});
    return json ? std::string(value) : parameter_json(tools_, name_, parameter_, value);
  }
  void end_function(Events& out) {
    append(out, Event::Kind::kArguments, "}");
    state_ = in_call_ ? State::kEnd : State::kText;
    after_call();
  }

  const XmlForm& form_;
  const Json& tools_;
  State state_ = State::kText;
  TagScanner text_, open_, head_, body_, value_scan_, end_;
  bool in_call_ = false, called_ = false, is_text_ = false;
  std::string name_, parameter_, value_;
  int parameters_ = 0;
};

}  // namespace

std::unique_ptr<ToolParser> make_qwen3_coder(const Json& tools) { return std::make_unique<Qwen3Coder>(kQwen3Coder, tools); }
std::unique_ptr<ToolParser> make_minimax_m2(const Json& tools) { return std::make_unique<Qwen3Coder>(kMinimaxM2, tools); }
std::unique_ptr<ToolParser> make_seed_oss(const Json& tools) { return std::make_unique<Qwen3Coder>(kSeedOss, tools); }
std::unique_ptr<ToolParser> make_mimo(const Json& tools) { return std::make_unique<Qwen3Coder>(kMimo, tools); }
std::unique_ptr<ToolParser> make_deepseek_v32(const Json& tools) { return std::make_unique<Qwen3Coder>(kDeepseekV32, tools); }
std::unique_ptr<ToolParser> make_deepseek_v4(const Json& tools) { return std::make_unique<Qwen3Coder>(kDeepseekV4, tools); }
std::unique_ptr<ToolParser> make_deepseek_v41(const Json& tools) { return std::make_unique<Qwen3Coder>(kDeepseekV41, tools); }
std::unique_ptr<ToolParser> make_dots(const Json& tools) { return std::make_unique<Qwen3Coder>(kDots, tools); }
std::unique_ptr<ToolParser> make_kimi_k3(const Json&) {
  static const Json kNoTools;  // an argument says its type itself
  return std::make_unique<Qwen3Coder>(kKimiK3, kNoTools);
}
std::unique_ptr<ToolParser> make_minicpm5(const Json& tools) { return std::make_unique<Qwen3Coder>(kMinicpm5, tools); }
std::unique_ptr<ToolParser> make_step3(const Json& tools) { return std::make_unique<Qwen3Coder>(kStep3, tools); }

}  // namespace baton::parse
