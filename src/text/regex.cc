#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include "base/json.h"
#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text {

struct Regex::Code {
  pcre2_code* pattern = nullptr;
  explicit Code(pcre2_code* p) : pattern(p) {}
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(pattern); }
};

namespace {

// The state of one call: match data is not shareable between threads, the compiled pattern is.
class Match {
 public:
  explicit Match(const pcre2_code* code)
      : context_(pcre2_match_context_create(nullptr)), data_(pcre2_match_data_create_from_pattern(code, nullptr)) {
    BATON_CHECK(context_ != nullptr && data_ != nullptr);
    pcre2_set_match_limit(context_, kRegexStepsMax);
  }
  Match(const Match&) = delete;
  Match& operator=(const Match&) = delete;
  ~Match() {
    pcre2_match_data_free(data_);
    pcre2_match_context_free(context_);
  }
  int find(const pcre2_code* code, std::string_view text, size_t from) {
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, PCRE2_NO_UTF_CHECK, data_, context_);
  }
  Span span() const {
    const PCRE2_SIZE* v = pcre2_get_ovector_pointer(data_);
    return {v[0], v[1]};
  }

 private:
  pcre2_match_context* context_;
  pcre2_match_data* data_;
};

std::string pcre_error(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// text with code points that PCRE2 is too old for replaced, byte offsets unchanged; empty if there are none (nearly always).
std::string with_stand_ins(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0xe0) {  // nothing below U+0800 is that new
      ++i;
      continue;
    }
    CodePoint c = code_point_at(text, i);
    if (char32_t other = older_stand_in(c.value)) {
      if (out.empty()) out = text;
      std::string utf8;
      append_utf8(utf8, other);
      out.replace(i, c.length, utf8);
    }
    i += c.length;
  }
  return out;
}

}  // namespace

Result<Regex> Regex::compile(std::string_view pattern) { return compile(pattern, 0); }
Result<Regex> Regex::literal(std::string_view text) { return compile(text, PCRE2_LITERAL); }

Result<Regex> Regex::compile(std::string_view pattern, uint32_t options) {
  if (pattern.empty()) return fail(baton::Code::kInvalidArgument, "empty pattern");
  if (pattern.size() > kRegexBytesMax) {
    return fail(baton::Code::kResourceExhausted, "pattern of ", pattern.size(), " bytes is over the limit of ", kRegexBytesMax);
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  options |= options & PCRE2_LITERAL ? PCRE2_UTF : PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error, &offset, nullptr);
  if (code == nullptr) {
    return fail(baton::Code::kInvalidArgument, "regular expression ", json_string(pattern), ": ", pcre_error(error), " at byte ",
                offset);
  }
  // Without JIT (refused by the kernel or the CPU) matching is slower, not different.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return Regex(std::make_shared<const Code>(code));
}

Result<std::vector<Span>> Regex::find_all(std::string_view text) const {
  std::string replaced = with_stand_ins(text);
  if (!replaced.empty()) text = replaced;
  std::vector<Span> spans;
  Match match(code_->pattern);
  for (size_t from = 0; from <= text.size();) {
    int rc = match.find(code_->pattern, text, from);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) return fail(baton::Code::kResourceExhausted, "regular expression gave up: ", pcre_error(rc));
    Span span = match.span();
    if (span.end > span.begin) {
      spans.push_back(span);
      from = span.end;
    } else {
      if (span.end >= text.size()) break;
      from = span.end + code_point_at(text, span.end).length;
    }
  }
  return spans;
}

}  // namespace baton::text
