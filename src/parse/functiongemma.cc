// functiongemma: <start_function_call>call:f{a:<escape>text<escape>,n:1,o:{k:[true]}}<end_function_call>, any number of them.
// FunctionGemma. A text between <escape>s that is JSON is taken for that, as vLLM does; arguments go out when all are there.
// gemma4: <|tool_call>call:f{a:<|"|>text<|"|>,n:1}<tool_call|>. Every value is text there, and its type the one that the tool
// declares; "call" may be missing.
#include <algorithm>
#include <utility>

#include "base/json.h"
#include "parse/json_call.h"
#include "parse/limits.h"
#include "parse/parameter_value.h"
#include "parse/tag_scanner.h"
#include "parse/tool_parser.h"

namespace baton::parse {
namespace {

struct GemmaForm {
  std::string_view open, close, escape;
  bool by_schema = false;  // values are of the types that the tool declares; else what reads like JSON is JSON
};
constexpr GemmaForm kFunctionGemma{.open = "<start_function_call>", .close = "<end_function_call>", .escape = "<escape>"},
    kGemma4{.open = "<|tool_call>", .close = "<tool_call|>", .escape = "<|\"|>", .by_schema = true};

// The arguments, braces and all, as JSON; nullopt if they are not of this form. schema: of the arguments; nullptr: none.
class Reader {
 public:
  Reader(const GemmaForm& form, std::string_view text, const Json* schema) : form_(form), text_(text), schema_(schema) {}
  std::optional<std::string> read() {
    std::string out;
    if (!value(out, 0, schema_)) return std::nullopt;
    space();
    return at_ == text_.size() ? std::optional(std::move(out)) : std::nullopt;
  }

 private:
  bool take(std::string_view s) {
    if (!text_.substr(at_).starts_with(s)) return false;
    at_ += s.size();
    return true;
  }
  void space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  bool value(std::string& out, size_t depth, const Json* schema) {
    space();
    if (depth > kNestingMax) return false;
    if (take(form_.escape)) return escaped(out, schema);
    if (take("{")) return members(out, depth, '}', schema);
    if (take("[")) return members(out, depth, ']', schema);
    const size_t from = at_;
    at_ = std::min(text_.find_first_of(",]}", at_), text_.size());
    return bare(trimmed(text_.substr(from, at_ - from)), out, schema);
  }
  // JSON as it is, anything else as a string; or what the schema says.
  bool put(std::string_view text, bool is_json, std::string& out, const Json* schema) {
    if (!valid_utf8(text)) return false;
    if (form_.by_schema)
      out += value_json(schema, text);
    else if (is_json)
      out += text;
    else
      append_json_string(out, text);
    return true;
  }
  bool bare(std::string_view word, std::string& out, const Json* schema) {
    const auto json = parse_json(word);
    return put(word, json && !json->is_object() && !json->is_array(), out, schema);
  }
  bool escaped(std::string& out, const Json* schema) {
    const size_t end = text_.find(form_.escape, at_);
    if (end == std::string_view::npos) return false;
    const std::string_view inside = text_.substr(at_, end - at_);
    at_ = end + form_.escape.size();
    return put(inside, parse_json(inside, {.depth_max = static_cast<int>(kNestingMax)}).has_value(), out, schema);
  }
  bool members(std::string& out, size_t depth, char close, const Json* schema) {
    out += close == '}' ? '{' : '[';
    for (bool first = true;; first = false) {
      space();
      if (take({&close, 1})) break;
      if (!first) {
        if (!take(",")) return false;
        out += ", ";
      }
      const Json* of_value = close == ']' && schema ? schema->find("items") : nullptr;
      if (close == '}' && !key(out, schema, of_value)) return false;
      if (!value(out, depth + 1, of_value)) return false;
    }
    out += close;
    return true;
  }
  bool key(std::string& out, const Json* schema, const Json*& of_value) {
    space();
    const bool quoted = take(form_.escape);
    const size_t end = text_.find(quoted ? form_.escape : std::string_view(":"), at_);
    if (end == std::string_view::npos || end == at_ || !valid_utf8(text_.substr(at_, end - at_))) return false;
    const std::string_view name = text_.substr(at_, end - at_);
    of_value = member_schema(schema, name);
    append_json_string(out, name);
    at_ = end + (quoted ? form_.escape.size() : 0);
    out += ": ";
    return take(":");
  }

  const GemmaForm& form_;
  std::string_view text_;
  const Json* schema_;
  size_t at_ = 0;
};

class FunctionGemma final : public ToolParser {
 public:
  FunctionGemma(const GemmaForm& form, const Json& tools) : form_(form), tools_(tools), open_{form.open}, close_{form.close} {}
  void finish(Events& out) override {
    if (!in_call_) return content(open_.take(), out);
    broken_ = true;
    content(raw_, out);
  }

 private:
  void step(char c, Events& out) override {
    std::string plain;
    if (!in_call_) {
      in_call_ = open_.feed(c, plain) >= 0;
      if (in_call_) raw_ = form_.open;
      return content(plain, out);
    }
    raw_ += c;
    const bool closed = close_.feed(c, plain) >= 0;
    if (raw_.size() > kCallBytesMax) {
      in_call_ = false;
      return give_up(out);
    }
    if (!closed) return;
    in_call_ = false;
    const std::string_view inside = std::string_view(raw_).substr(form_.open.size());
    if (!call(trimmed(inside.substr(0, inside.size() - form_.close.size())), out)) return give_up(out);
    raw_.clear();
    after_call();
  }
  bool call(std::string_view text, Events& out) {
    if (form_.by_schema && text.starts_with("call")) text.remove_prefix(4);
    const std::string_view begin = form_.by_schema ? ":" : "call:";
    const size_t brace = text.find('{');
    if (!text.starts_with(begin) || brace == std::string_view::npos) return false;
    const std::string_view name = trimmed(text.substr(begin.size(), brace - begin.size()));
    if (!is_function_name(name)) return false;
    const auto arguments = Reader(form_, text.substr(brace), parameters_schema(tools_, name)).read();
    if (!arguments) return false;
    append(out, Event::Kind::kCall, name);
    append(out, Event::Kind::kArguments, *arguments);
    return true;
  }

  const GemmaForm& form_;
  const Json& tools_;
  bool in_call_ = false;
  TagScanner open_, close_;
};

}  // namespace

std::unique_ptr<ToolParser> make_functiongemma(const Json& tools) {
  return std::make_unique<FunctionGemma>(kFunctionGemma, tools);
}
std::unique_ptr<ToolParser> make_gemma4(const Json& tools) { return std::make_unique<FunctionGemma>(kGemma4, tools); }

}  // namespace baton::parse
