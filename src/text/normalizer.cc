#include "text/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>

#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text {
namespace {

bool is_ascii(std::string_view s) {
  for (char c : s) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

Result<std::string> map_with(std::string_view s, int options) {
  utf8proc_uint8_t* mapped = nullptr;
  utf8proc_ssize_t n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(s.data()), static_cast<utf8proc_ssize_t>(s.size()),
                                    &mapped, static_cast<utf8proc_option_t>(options));
  if (n < 0) return fail(Code::kInvalidArgument, "Unicode normalisation failed: ", utf8proc_errmsg(n));
  std::string out(reinterpret_cast<const char*>(mapped), static_cast<size_t>(n));
  std::free(mapped);
  return out;
}

// A code point the reference's data does not know is a starter that composes with nothing, so the text may be cut around it.
Result<std::string> unicode_form(std::string_view s, int options) {
  if (is_ascii(s)) return std::string(s);
  std::string out;
  size_t start = 0;
  for (size_t i = 0; i < s.size();) {
    CodePoint c = code_point_at(s, i);
    if (c.length > 1 && is_nfc_unknown(c.value)) {
      BATON_TRY(std::string part, map_with(s.substr(start, i - start), options));
      out += part;
      out += s.substr(i, c.length);
      start = i + c.length;
    }
    i += c.length;
  }
  BATON_TRY(std::string part, map_with(s.substr(start), options));
  return out + part;
}

std::string lowercase(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    CodePoint c = code_point_at(s, i);
    if (c.value == 0x130) {
      out += "i\xcc\x87";  // the one code point whose full lower case is two
    } else {
      append_utf8(out, lower_case(c.value));
    }
    i += c.length;
  }
  return out;
}

std::string_view strip(std::string_view s, bool left, bool right) {
  while (left && !s.empty()) {
    CodePoint c = code_point_at(s, 0);
    if (code_class(c.value) != kSpace) break;
    s.remove_prefix(c.length);
  }
  while (right && !s.empty()) {
    size_t i = code_point_before(s, s.size());
    if (code_class(code_point_at(s, i).value) != kSpace) break;
    s = s.substr(0, i);
  }
  return s;
}

std::string replace_all(std::string_view s, std::string_view from, std::string_view to) {
  std::string out;
  size_t start = 0;
  for (size_t at; (at = s.find(from, start)) != std::string_view::npos; start = at + from.size()) {
    out += s.substr(start, at - start);
    out += to;
  }
  return out += s.substr(start);
}

Result<std::string> string_field(const Json& spec, std::string_view key, std::string_view type) {
  const Json* v = spec.find(key);
  if (v == nullptr || !v->is_string())
    return fail(Code::kInvalidArgument, "normalizer ", type, " needs the string \"", key, "\"");
  return v->text;
}

}  // namespace

Normalizer Normalizer::nfc() {
  Normalizer n;
  n.steps_.push_back(Step{.kind = Kind::kNfc});
  return n;
}

Result<Normalizer> Normalizer::from_json(const Json& spec) {
  Normalizer n;
  if (!spec.is_null()) BATON_OK(add(spec, n.steps_));
  return n;
}

Result<> Normalizer::add(const Json& spec, std::vector<Step>& steps) {
  if (steps.size() >= kPipelineStagesMax) return fail(Code::kResourceExhausted, "more than ", kPipelineStagesMax, " normalizers");
  BATON_TRY(std::string type, string_field(spec, "type", "(each)"));
  if (type == "Sequence") {
    const Json* list = spec.find("normalizers");
    if (list == nullptr || !list->is_array()) return fail(Code::kInvalidArgument, "normalizer Sequence needs \"normalizers\"");
    for (const Json& item : list->items) BATON_OK(add(item, steps));
    return {};
  }
  static constexpr std::pair<std::string_view, Kind> kPlain[] = {
      {"NFC", Kind::kNfc}, {"NFD", Kind::kNfd}, {"NFKC", Kind::kNfkc}, {"NFKD", Kind::kNfkd}, {"Lowercase", Kind::kLowercase}};
  for (auto& [name, kind] : kPlain) {
    if (type == name) {
      steps.push_back(Step{.kind = kind});
      return {};
    }
  }
  if (type == "Strip") {
    const Json *left = spec.find("strip_left"), *right = spec.find("strip_right");
    steps.push_back(Step{.kind = Kind::kStrip,
                         .left = left == nullptr || left->as_bool().value_or(true),
                         .right = right == nullptr || right->as_bool().value_or(true)});
    return {};
  }
  if (type == "Prepend") {
    BATON_TRY(std::string text, string_field(spec, "prepend", type));
    steps.push_back(Step{.kind = Kind::kPrepend, .text = std::move(text)});
    return {};
  }
  if (type == "Replace") {
    BATON_TRY(std::string text, string_field(spec, "content", type));
    Step step{.kind = Kind::kReplace, .text = std::move(text)};
    if (const Json* p = spec.find_path({"pattern", "String"}); p != nullptr && p->is_string() && !p->text.empty()) {
      step.pattern = p->text;
    } else if (const Json* r = spec.find_path({"pattern", "Regex"}); r != nullptr && r->is_string()) {
      BATON_TRY(Regex regex, Regex::compile(r->text));
      step.regex = std::make_shared<const Regex>(std::move(regex));
    } else {
      return fail(Code::kInvalidArgument, "normalizer Replace needs a pattern {\"String\": ..} or {\"Regex\": ..}");
    }
    steps.push_back(std::move(step));
    return {};
  }
  return fail(Code::kUnimplemented, "normalizer ", json_string(type), " is not supported");
}

Result<std::string> Normalizer::apply(const Step& step, std::string_view text) {
  switch (step.kind) {
    case Kind::kNfc:
      return unicode_form(text, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    case Kind::kNfd:
      return unicode_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE);
    case Kind::kNfkc:
      return unicode_form(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_STABLE);
    case Kind::kNfkd:
      return unicode_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_STABLE);
    case Kind::kLowercase:
      return lowercase(text);
    case Kind::kStrip:
      return std::string(strip(text, step.left, step.right));
    case Kind::kPrepend:
      return text.empty() ? std::string() : step.text + std::string(text);
    case Kind::kReplace:
      break;
  }
  if (!step.regex) return replace_all(text, step.pattern, step.text);
  BATON_TRY(std::vector<Span> matches, step.regex->find_all(text));
  std::string out;
  size_t start = 0;
  for (Span m : matches) {
    out += text.substr(start, m.begin - start);
    out += step.text;
    start = m.end;
  }
  return out += text.substr(start);
}

Result<std::string> Normalizer::apply(std::string_view text) const {
  std::string current(text);
  size_t bytes_max = kEncodeBytesMax + kNormalizedGrowthMax * text.size();
  for (const Step& step : steps_) {
    BATON_TRY(current, apply(step, current));
    if (current.size() > bytes_max) return fail(Code::kResourceExhausted, "normalised text is over ", bytes_max, " bytes");
  }
  return current;
}

}  // namespace baton::text
