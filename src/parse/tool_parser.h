#pragma once
// ToolParser: finds the calls in a model's answer while it is written. One a format, each in a file of its own; tool_parsers() is
// the table behind --tool-call-parser. An incremental machine that reads byte by byte, so where the text is cut into pieces
// changes no event. One per output sequence; not thread safe. Formats are those of vLLM's parsers of the same names.
//
// Malformed text is never lost. Before a call's name went out it is content, tags included. After that a stream cannot take it
// back, so the rest goes out as arguments, or as content where it stands outside them, and broken() says that the whole text must
// be taken as content where nothing was sent yet: a call that was cut off or is no JSON is none.
#include <memory>
#include <span>
#include <string_view>

#include "base/json.h"
#include "parse/event.h"

namespace baton::parse {

class ToolParser {
 public:
  virtual ~ToolParser() = default;
  void add(std::string_view piece, Events& out) {
    for (const char c : piece) step(c, out);
  }
  virtual void finish(Events& out) = 0;  // the text is complete; once
  bool broken() const { return broken_; }

 protected:
  virtual void step(char c, Events& out) = 0;
  // Text outside of calls. White space between two calls, and after the last, is none.
  void content(std::string_view text, Events& out);
  void after_call() { after_call_ = true; }
  // The section held in raw_ is no call.
  void give_up(Events& out);

  bool broken_ = false;
  std::string raw_;  // the call being read, as the model wrote it, while it may prove to be none

 private:
  bool after_call_ = false;
  std::string space_;
};

struct ToolParserRow {
  std::string_view name;
  std::unique_ptr<ToolParser> (*make)(const Json& tools);  // the request's; must outlive the parser
  bool special_tokens = false;                             // its tags are special tokens: they must not be skipped
  bool short_ids = false;     // ids of nine letters and digits, which the family's templates insist on
  bool forced = false;        // the request left the model no choice: beside its calls the message's content is "", not null
  bool ends_as_text = false;  // finish_reason stays "stop"
  bool harmony = false;       // harmony.h reads the whole answer, reasoning too
};
std::span<const ToolParserRow> tool_parsers();
const ToolParserRow* find_tool_parser(std::string_view name);  // nullptr if there is none

// Not in the table: tool_choice "required"; and a named tool, with that tool alone in `tools`. The same where the model writes
// the call in its own format, harmony.h.
extern const ToolParserRow kRequiredCalls, kNamedCall, kRequiredHarmony, kNamedHarmony;

std::unique_ptr<ToolParser> make_apertus(const Json& tools);
std::unique_ptr<ToolParser> make_cohere_command(const Json& tools);
std::unique_ptr<ToolParser> make_deepseek_v3(const Json& tools);
std::unique_ptr<ToolParser> make_deepseek_v31(const Json& tools);
std::unique_ptr<ToolParser> make_deepseek_v32(const Json& tools);
std::unique_ptr<ToolParser> make_deepseek_v4(const Json& tools);
std::unique_ptr<ToolParser> make_deepseek_v41(const Json& tools);
std::unique_ptr<ToolParser> make_dots(const Json& tools);
std::unique_ptr<ToolParser> make_functiongemma(const Json& tools);
std::unique_ptr<ToolParser> make_gemma4(const Json& tools);
std::unique_ptr<ToolParser> make_gigachat3(const Json& tools);
std::unique_ptr<ToolParser> make_glm45(const Json& tools);
std::unique_ptr<ToolParser> make_granite(const Json& tools);
std::unique_ptr<ToolParser> make_granite_20b_fc(const Json& tools);
std::unique_ptr<ToolParser> make_hermes(const Json& tools);
std::unique_ptr<ToolParser> make_hy_v3(const Json& tools);
std::unique_ptr<ToolParser> make_hy_v4(const Json& tools);
std::unique_ptr<ToolParser> make_internlm(const Json& tools);
std::unique_ptr<ToolParser> make_jamba(const Json& tools);
std::unique_ptr<ToolParser> make_k2_horizon(const Json& tools);
std::unique_ptr<ToolParser> make_kimi_k2(const Json& tools);
std::unique_ptr<ToolParser> make_kimi_k3(const Json& tools);
std::unique_ptr<ToolParser> make_lfm2(const Json& tools);
std::unique_ptr<ToolParser> make_llama3_json(const Json& tools);
std::unique_ptr<ToolParser> make_llama4_pythonic(const Json& tools);
std::unique_ptr<ToolParser> make_longcat(const Json& tools);
std::unique_ptr<ToolParser> make_mimo(const Json& tools);
std::unique_ptr<ToolParser> make_minicpm5(const Json& tools);
std::unique_ptr<ToolParser> make_minimax_m2(const Json& tools);
std::unique_ptr<ToolParser> make_minimax_m3(const Json& tools);
std::unique_ptr<ToolParser> make_mistral(const Json& tools);
std::unique_ptr<ToolParser> make_olmo3(const Json& tools);
std::unique_ptr<ToolParser> make_openai(const Json& tools);
std::unique_ptr<ToolParser> make_phi4_mini_json(const Json& tools);
std::unique_ptr<ToolParser> make_plamo3(const Json& tools);
std::unique_ptr<ToolParser> make_poolside_v1(const Json& tools);
std::unique_ptr<ToolParser> make_pythonic(const Json& tools);
std::unique_ptr<ToolParser> make_qwen3_coder(const Json& tools);
std::unique_ptr<ToolParser> make_seed_oss(const Json& tools);
std::unique_ptr<ToolParser> make_step3(const Json& tools);
std::unique_ptr<ToolParser> make_xlam(const Json& tools);

}  // namespace baton::parse
