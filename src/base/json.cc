#include "base/json.h"

#include "base/json_outline.h"

#include <charconv>
#include <cmath>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace baton {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Length of the valid UTF-8 sequence at s[i] (RFC 3629: no overlongs, no surrogates, at most U+10FFFF), 0 if there is none.
size_t utf8_sequence(std::string_view s, size_t i) {
  auto at = [&](size_t k) { return i + k < s.size() ? static_cast<unsigned char>(s[i + k]) : 0u; };
  auto cont = [&](size_t k) { return (at(k) & 0xc0) == 0x80; };
  unsigned b = at(0);
  if (b < 0x80) return 1;
  if (b >= 0xc2 && b <= 0xdf) return cont(1) ? 2 : 0;
  if (b >= 0xe0 && b <= 0xef) {
    unsigned lo = b == 0xe0 ? 0xa0 : 0x80, hi = b == 0xed ? 0x9f : 0xbf;
    return at(1) >= lo && at(1) <= hi && cont(2) ? 3 : 0;
  }
  if (b >= 0xf0 && b <= 0xf4) {
    unsigned lo = b == 0xf0 ? 0x90 : 0x80, hi = b == 0xf4 ? 0x8f : 0xbf;
    return at(1) >= lo && at(1) <= hi && cont(2) && cont(3) ? 4 : 0;
  }
  return 0;
}

// How many bytes from s[i] on stand for themselves in a JSON string: no quote, backslash, control character, or byte over 0x7f.
// Long prompts are most of what a proxy reads, so 16 bytes are looked at together.
size_t plain_bytes(std::string_view s, size_t i) {
  const size_t from = i;
#if defined(__SSE2__)
  const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
  for (; i + 16 <= s.size(); i += 16) {
    __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(s.data() + i));
    // signed: bytes over 0x7f are below 0x20 too
    __m128i special =
        _mm_or_si128(_mm_cmplt_epi8(b, space), _mm_or_si128(_mm_cmpeq_epi8(b, quote), _mm_cmpeq_epi8(b, backslash)));
    int mask = _mm_movemask_epi8(special);
    if (mask != 0) return i + static_cast<size_t>(__builtin_ctz(static_cast<unsigned>(mask))) - from;
  }
#endif
  for (; i < s.size(); ++i) {
    auto c = static_cast<unsigned char>(s[i]);
    if (c == '"' || c == '\\' || c < 0x20 || c >= 0x80) break;
  }
  return i - from;
}

class Parser {
 public:
  Parser(std::string_view text, const JsonLimits& limits, const JsonOutline& outline)
      : s_(text), limits_(limits), outline_(outline) {}

  Result<Json> run() {
    if (s_.size() > limits_.bytes_max) {
      return fail(Code::kResourceExhausted, "JSON of ", s_.size(), " bytes is over the limit of ", limits_.bytes_max);
    }
    Json root;
    skip_space();
    BATON_OK(value(root, 0));
    skip_space();
    if (i_ != s_.size()) return error("unexpected text after the JSON value");
    return root;
  }

 private:
  std::unexpected<Error> error(std::string_view what) const {
    return fail(Code::kInvalidArgument, "invalid JSON: ", what, " at byte ", i_);
  }
  void skip_space() {
    while (i_ < s_.size() && is_space(s_[i_])) ++i_;
  }
  bool take(char c) {
    if (i_ >= s_.size() || s_[i_] != c) return false;
    ++i_;
    return true;
  }
  Result<> word(std::string_view w) {
    if (s_.substr(i_, w.size()) != w) return error("unexpected character");
    i_ += w.size();
    return {};
  }

  Result<> value(Json& out, int depth) {
    if (depth > limits_.depth_max) return error(cat("nested deeper than ", limits_.depth_max));
    if (++nodes_ > limits_.nodes_max) return error(cat("more than ", limits_.nodes_max, " values"));
    if (i_ >= s_.size()) return error("text ends where a value should be");
    out.begin = i_;
    switch (s_[i_]) {
      case '{':
        BATON_OK(object(out, depth));
        break;
      case '[':
        BATON_OK(array(out, depth));
        break;
      case '"':
        out.kind = Json::Kind::kString;
        if (outline_.string_bytes_max < SIZE_MAX) {  // how long it is shows at its end
          BATON_OK(string(nullptr));
          if (i_ - out.begin - 2 > outline_.string_bytes_max) break;
          i_ = out.begin;
        }
        BATON_OK(string(&out.text));
        break;
      case 't':
        BATON_OK(word("true"));
        out.kind = Json::Kind::kBool;
        out.boolean = true;
        break;
      case 'f':
        BATON_OK(word("false"));
        out.kind = Json::Kind::kBool;
        break;
      case 'n':
        BATON_OK(word("null"));
        break;
      default:
        BATON_OK(number(out));
        break;
    }
    out.end = i_;
    return {};
  }

  Result<> object(Json& out, int depth) {
    out.kind = Json::Kind::kObject;
    ++i_;
    skip_space();
    if (take('}')) return {};
    const bool keep = depth < outline_.depth;
    do {
      skip_space();
      if (i_ >= s_.size() || s_[i_] != '"') return error("expected a key in quotes");
      BATON_OK(string(keep ? &out.keys.emplace_back() : nullptr));
      skip_space();
      if (!take(':')) return error("expected ':' after a key");
      skip_space();
      BATON_OK(member(out, keep, depth));
      skip_space();
    } while (take(','));
    if (!take('}')) return error("expected ',' or '}' in an object");
    return {};
  }

  Result<> array(Json& out, int depth) {
    out.kind = Json::Kind::kArray;
    ++i_;
    skip_space();
    if (take(']')) return {};
    const bool keep = depth < outline_.depth;
    do {
      skip_space();
      BATON_OK(member(out, keep, depth));
      skip_space();
    } while (take(','));
    if (!take(']')) return error("expected ',' or ']' in an array");
    return {};
  }

  Result<> member(Json& of, bool keep, int depth) {
    if (keep) return value(of.items.emplace_back(), depth + 1);
    Json passing;
    return value(passing, depth + 1);
  }

  // out: nullptr = only check it.
  Result<> string(std::string* out) {
    ++i_;
    for (;;) {
      size_t from = i_;
      i_ += plain_bytes(s_, i_);
      if (out) out->append(s_, from, i_ - from);
      if (i_ >= s_.size()) return error("string is not closed");
      auto c = static_cast<unsigned char>(s_[i_]);
      if (c == '"') {
        ++i_;
        return {};
      }
      if (c < 0x20) return error("control character in a string");
      if (c == '\\') {
        BATON_OK(escape(out));
        continue;
      }
      size_t n = utf8_sequence(s_, i_);
      if (n == 0) return error("invalid UTF-8");
      if (out) out->append(s_, i_, n);
      i_ += n;
    }
  }

  Result<> escape(std::string* out) {
    if (++i_ >= s_.size()) return error("string is not closed");
    char c = s_[i_++];
    static constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (size_t k = kFrom.find(c); k != std::string_view::npos) {
      if (out) *out += kTo[k];
      return {};
    }
    if (c != 'u') return error("unknown escape");
    BATON_TRY(uint32_t cp, hex4());
    if (cp >= 0xdc00 && cp <= 0xdfff) return error("lone surrogate");
    if (cp >= 0xd800 && cp <= 0xdbff) {
      if (s_.substr(i_, 2) != "\\u") return error("lone surrogate");
      i_ += 2;
      BATON_TRY(uint32_t low, hex4());
      if (low < 0xdc00 || low > 0xdfff) return error("lone surrogate");
      cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    }
    if (out) append_utf8(*out, cp);
    return {};
  }

  Result<uint32_t> hex4() {
    uint32_t v = 0;
    if (i_ + 4 > s_.size()) return error("\\u needs four hex digits");
    auto [end, ec] = std::from_chars(s_.data() + i_, s_.data() + i_ + 4, v, 16);
    if (ec != std::errc() || end != s_.data() + i_ + 4) return error("\\u needs four hex digits");
    i_ += 4;
    return v;
  }

  Result<> number(Json& out) {
    size_t from = i_;
    take('-');
    auto digits = [&] {
      size_t start = i_;
      while (i_ < s_.size() && is_digit(s_[i_])) ++i_;
      return i_ - start;
    };
    bool zero = i_ < s_.size() && s_[i_] == '0';
    size_t n = digits();
    if (n == 0 || (zero && n > 1)) return i_ = from, error(n == 0 ? "unexpected character" : "number with a leading zero");
    if (take('.') && digits() == 0) return error("digit expected after '.'");
    if (i_ < s_.size() && (s_[i_] == 'e' || s_[i_] == 'E')) {
      ++i_;
      if (!take('+')) take('-');
      if (digits() == 0) return error("digit expected in the exponent");
    }
    out.kind = Json::Kind::kNumber;
    out.text.assign(s_, from, i_ - from);
    return {};
  }

  std::string_view s_;
  const JsonLimits& limits_;
  const JsonOutline& outline_;
  size_t i_ = 0;
  size_t nodes_ = 0;
};

template <class T>
std::optional<T> exact_integer(const Json& j) {
  if (!j.is_number()) return std::nullopt;
  T v = 0;
  const char* last = j.text.data() + j.text.size();
  auto [end, ec] = std::from_chars(j.text.data(), last, v);
  if (ec == std::errc() && end == last) return v;
  auto d = j.as_double();
  // 2^53: beyond it a double cannot say which integer was meant
  if (!d || std::trunc(*d) != *d || std::fabs(*d) > 0x1p53 || (std::is_unsigned_v<T> && *d < 0)) return std::nullopt;
  return static_cast<T>(*d);
}

}  // namespace

const Json* Json::find(std::string_view key) const {
  for (size_t i = keys.size(); i-- > 0;) {
    if (keys[i] == key) return &items[i];
  }
  return nullptr;
}

void Json::set(std::string_view key, Json value) {
  if (!is_object()) {
    *this = {};
    kind = Kind::kObject;
  }
  if (Json* there = find(key)) {
    *there = std::move(value);
    return;
  }
  keys.emplace_back(key);
  items.push_back(std::move(value));
}

const Json* Json::find_path(std::initializer_list<std::string_view> path) const {
  const Json* at = this;
  for (std::string_view key : path) {
    if ((at = at->find(key)) == nullptr) return nullptr;
  }
  return at;
}

std::optional<int64_t> Json::as_int() const { return exact_integer<int64_t>(*this); }
std::optional<uint64_t> Json::as_uint() const { return exact_integer<uint64_t>(*this); }

std::optional<double> Json::as_double() const {
  if (!is_number()) return std::nullopt;
  double d = 0;
  auto parsed = std::from_chars(text.data(), text.data() + text.size(), d);
  if (parsed.ec != std::errc() || !std::isfinite(d)) return std::nullopt;
  return d;
}

std::optional<std::string_view> Json::as_string() const {
  return is_string() ? std::optional<std::string_view>(text) : std::nullopt;
}

std::optional<bool> Json::as_bool() const { return is_bool() ? std::optional(boolean) : std::nullopt; }

std::string_view Json::kind_name() const {
  static constexpr std::string_view kNames[] = {"null", "boolean", "number", "string", "array", "object"};
  return kNames[static_cast<size_t>(kind)];
}

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  return Parser(text, limits, {.depth = limits.depth_max + 1, .string_bytes_max = SIZE_MAX}).run();
}

Result<Json> outline_json(std::string_view text, const JsonOutline& outline, const JsonLimits& limits) {
  return Parser(text, limits, outline).run();
}

bool valid_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    size_t n = utf8_sequence(s, i);
    if (n == 0) return false;
    i += n;
  }
  return true;
}

void append_utf8(std::string& out, char32_t cp) {
  auto put = [&](uint32_t b) { out += static_cast<char>(b); };
  if (cp < 0x80) {
    put(cp);
  } else if (cp < 0x800) {
    put(0xc0 | cp >> 6), put(0x80 | (cp & 0x3f));
  } else if (cp < 0x10000) {
    put(0xe0 | cp >> 12), put(0x80 | (cp >> 6 & 0x3f)), put(0x80 | (cp & 0x3f));
  } else {
    put(0xf0 | cp >> 18), put(0x80 | (cp >> 12 & 0x3f)), put(0x80 | (cp >> 6 & 0x3f)), put(0x80 | (cp & 0x3f));
  }
}

void append_json_string(std::string& out, std::string_view s) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  size_t from = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    auto c = static_cast<unsigned char>(s[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(s, from, i - from);
    from = i + 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        out += "\\u00";
        out += kHex[c >> 4];
        out += kHex[c & 15];
    }
  }
  out.append(s, from, s.size() - from);
  out += '"';
}

std::string json_string(std::string_view s) {
  std::string out;
  append_json_string(out, s);
  return out;
}

void JsonWriter::comma() {
  if (!first_ && !after_key_) out_ += ',';
  first_ = false;
  after_key_ = false;
}

JsonWriter& JsonWriter::open(char open, char close) {
  comma();
  out_ += open;
  closers_ += close;
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::end() {
  BATON_CHECK(!closers_.empty());
  out_ += closers_.back();
  closers_.pop_back();
  first_ = false;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view k) {
  comma();
  append_json_string(out_, k);
  out_ += ':';
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view s) {
  comma();
  append_json_string(out_, s);
  return *this;
}

JsonWriter& JsonWriter::value(bool b) { return raw(b ? "true" : "false"); }
JsonWriter& JsonWriter::null() { return raw("null"); }

JsonWriter& JsonWriter::value(double d) {
  if (!std::isfinite(d)) return null();
  std::string text = cat(d);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";  // as Python prints floats
  return raw(text);
}

JsonWriter& JsonWriter::raw(std::string_view json) {
  comma();
  out_ += json;
  return *this;
}

}  // namespace baton
