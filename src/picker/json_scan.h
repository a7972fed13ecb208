#pragma once
// JsonScan<Handler>: the grammar of JSON as a machine that can stop at any byte and go on with the next piece. It accepts exactly
// what base/json.h's parse_json accepts (depth and value limits aside) and calls, for each value in document order:
//   handler.key(name)                 before a member's value; unescaped, cut after kKeyBytesMax + 1 bytes
//   handler.begin(kind, p)            p: its first byte
//   handler.text(piece)               unescaped pieces of a string value
//   handler.number(text)              a number's source text, "" if it is longer than kNumberBytesMax
//   handler.boolean(value)
//   handler.end(p)                    p: behind its last byte; containers after their members
//   handler.wants_ids()               true: integers come as handler.id(v) instead of begin, number, end
// Pointers are into the piece being fed; offset_of(p) is their place in the whole text. Threads: one at a time.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "picker/body_limits.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace baton::picker {

// First byte that is not plain ASCII text inside a JSON string: quote, backslash, control character, or part of UTF-8.
inline const char* find_special(const char* p, const char* end) {
#ifdef __SSE2__
  const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
  for (; end - p >= 16; p += 16) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    // signed: bytes from 0x80 on are below 0x20 too
    const __m128i hit =
        _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)), _mm_cmplt_epi8(v, space));
    if (const int mask = _mm_movemask_epi8(hit); mask != 0) return p + __builtin_ctz(static_cast<unsigned>(mask));
  }
#endif
  while (p < end && *p != '"' && *p != '\\' && static_cast<signed char>(*p) >= 0x20) ++p;
  return p;
}

template <class Handler>
class JsonScan {
 public:
  explicit JsonScan(Handler& handler) : handler_(handler) {}

  Result<> feed(std::string_view bytes) {
    chunk_ = bytes.data();
    const char* p = bytes.data();
    const char* const end = p + bytes.size();
    while (p < end && error_ == nullptr) p = step(p, end);
    if (error_ != nullptr) return fail(Code::kInvalidArgument, "invalid JSON: ", error_, " at byte ", error_at_);
    offset_ += bytes.size();
    return {};
  }

  Result<> finish() {
    if (state_ == State::kDone) return {};
    const bool string = state_ == State::kString;
    const bool cut = string || state_ == State::kNumber || state_ == State::kWord;
    return fail(Code::kInvalidArgument, "invalid JSON: ", string ? "string is not closed" : cut ? "text ends within a value" : "text ends where more should be",
                " at byte ", offset_);
  }

  size_t offset_of(const char* p) const { return offset_ + static_cast<size_t>(p - chunk_); }
  int depth() const { return depth_; }  // containers open
  size_t key_offset() const { return key_begin_; }  // of the quote that opens the last member's name
  void refuse(const char* what, const char* p) {
    if (error_ != nullptr) return;
    error_ = what;
    error_at_ = offset_of(p);
  }

 private:
  enum class State : uint8_t { kValue, kFirstItem, kFirstKey, kKey, kColon, kAfter, kString, kNumber, kWord, kDone };

  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  const char* step(const char* p, const char* end) {
    switch (state_) {
      case State::kString: return string_bytes(p, end);
      case State::kNumber: return number_bytes(p, end);
      case State::kWord: return word_bytes(p, end);
      default: break;
    }
    if (is_space(*p)) return p + 1;
    switch (state_) {
      case State::kFirstItem:
        if (*p == ']') return close(p);
        [[fallthrough]];
      case State::kValue: return begin_value(p, end);
      case State::kFirstKey:
        if (*p == '}') return close(p);
        [[fallthrough]];
      case State::kKey: return begin_key(p);
      case State::kColon:
        if (*p != ':') return refuse_at("expected ':' after a key", p);
        state_ = State::kValue;
        return p + 1;
      case State::kAfter: return separator(p);
      default: return refuse_at("unexpected text after the JSON value", p);
    }
  }

  const char* refuse_at(const char* what, const char* p) {
    refuse(what, p);
    return p;
  }

  const char* begin_key(const char* p) {
    if (*p != '"') return refuse_at("expected a key in quotes", p);
    is_key_ = true;
    key_.clear();
    key_begin_ = offset_of(p);
    state_ = State::kString;
    return p + 1;
  }

  const char* separator(const char* p) {
    const bool object = objects_[static_cast<size_t>(depth_ - 1)];
    if (*p == ',') {
      state_ = object ? State::kKey : State::kValue;
      return p + 1;
    }
    if (*p == (object ? '}' : ']')) return close(p);
    return refuse_at(object ? "expected ',' or '}' in an object" : "expected ',' or ']' in an array", p);
  }

  bool count_value(const char* p) {
    if (depth_ > kBodyDepthMax) refuse("nested too deep", p);
    if (++values_ > kBodyValuesMax) refuse("too many values", p);
    return error_ == nullptr;
  }

  const char* begin_value(const char* p, const char* end) {
    if (is_digit(*p) && handler_.wants_ids()) {
      if (const char* after = ids(p, end); after != p || error_ != nullptr) return after;
    }
    if (!count_value(p)) return p;
    switch (*p) {
      case '{':
      case '[': return open(p);
      case '"':
        is_key_ = false;
        state_ = State::kString;
        handler_.begin(Json::Kind::kString, p);
        return p + 1;
      case 't': return begin_word("true", Json::Kind::kBool, p);
      case 'f': return begin_word("false", Json::Kind::kBool, p);
      case 'n': return begin_word("null", Json::Kind::kNull, p);
      default:
        if (*p != '-' && !is_digit(*p)) return refuse_at("unexpected character", p);
        number_.clear();
        number_state_ = N::kStart;
        state_ = State::kNumber;
        handler_.begin(Json::Kind::kNumber, p);
        return p;
    }
  }

  const char* open(const char* p) {
    const bool object = *p == '{';
    handler_.begin(object ? Json::Kind::kObject : Json::Kind::kArray, p);
    objects_[static_cast<size_t>(depth_++)] = object;
    state_ = object ? State::kFirstKey : State::kFirstItem;
    return p + 1;
  }

  const char* close(const char* p) {
    --depth_;
    return ended(p + 1);
  }

  const char* ended(const char* p) {
    state_ = depth_ == 0 ? State::kDone : State::kAfter;
    handler_.end(p);
    return p;
  }

  // "17, 4, 9": as many plain integers as lie whole in this piece with what follows them; the rest goes the long way.
  const char* ids(const char* p, const char* end) {
    for (;;) {
      const char* q = p;
      uint64_t v = 0;
      while (q < end && q - p < 10 && is_digit(*q)) v = v * 10 + static_cast<uint64_t>(*q++ - '0');
      if (q == end || (*q != ',' && *q != ']') || (*p == '0' && q - p > 1)) return p;
      if (!count_value(p)) return p;
      handler_.id(static_cast<int64_t>(v));
      p = q;
      state_ = State::kAfter;
      if (*p == ']') return p;
      const char* next = p + 1;
      while (next < end && *next == ' ') ++next;
      if (next == end || !is_digit(*next)) return p;
      state_ = State::kValue;
      p = next;
    }
  }

  const char* begin_word(std::string_view word, Json::Kind kind, const char* p) {
    word_ = word;
    word_at_ = 0;
    state_ = State::kWord;
    handler_.begin(kind, p);
    return p;
  }
  const char* word_bytes(const char* p, const char* end) {
    while (p < end && word_at_ < word_.size()) {
      if (*p != word_[word_at_]) return refuse_at("unexpected character", p);
      ++p;
      ++word_at_;
    }
    if (word_at_ < word_.size()) return p;
    if (word_[0] != 'n') handler_.boolean(word_[0] == 't');
    return ended(p);
  }

  // ---- numbers
  enum class N : uint8_t { kStart, kMinus, kZero, kInt, kDot, kFraction, kE, kSign, kExponent };
  bool number_takes(char c) {
    const bool digit = is_digit(c), e = c == 'e' || c == 'E';
    switch (number_state_) {
      case N::kStart:
        if (c == '-') return number_state_ = N::kMinus, true;
        [[fallthrough]];
      case N::kMinus: return digit && (number_state_ = c == '0' ? N::kZero : N::kInt, true);
      case N::kInt:
        if (digit) return true;
        [[fallthrough]];
      case N::kZero: return c == '.' ? (number_state_ = N::kDot, true) : e && (number_state_ = N::kE, true);
      case N::kDot: return digit && (number_state_ = N::kFraction, true);
      case N::kFraction: return digit || (e && (number_state_ = N::kE, true));
      case N::kE:
        if (c == '+' || c == '-') return number_state_ = N::kSign, true;
        [[fallthrough]];
      case N::kSign:
      case N::kExponent: return digit && (number_state_ = N::kExponent, true);
    }
    return false;
  }
  const char* number_bytes(const char* p, const char* end) {
    for (; p < end; ++p) {
      if (number_takes(*p)) {
        if (number_.size() <= kNumberBytesMax) number_ += *p;
        continue;
      }
      const bool whole = number_state_ == N::kZero || number_state_ == N::kInt || number_state_ == N::kFraction ||
                         number_state_ == N::kExponent;
      if (!whole) return refuse_at("digit expected", p);
      if (is_digit(*p)) return refuse_at("number with a leading zero", p);
      handler_.number(number_.size() > kNumberBytesMax ? std::string_view() : std::string_view(number_));
      return ended(p);
    }
    return p;
  }

  // ---- strings
  void emit(const char* p, const char* end) {
    if (p == end) return;
    const std::string_view piece(p, static_cast<size_t>(end - p));
    if (!is_key_) return handler_.text(piece);
    if (key_.size() <= kKeyBytesMax) key_.append(piece.substr(0, kKeyBytesMax + 1 - key_.size()));
  }

  // Gathers the short pieces between escapes, so that the handler sees long ones.
  struct Stage {
    JsonScan& scan;
    char* const base;
    char* at;
    explicit Stage(JsonScan& s) : scan(s), base(s.stage_.data()), at(base) {}
    ~Stage() { flush(); }
    void flush() {
      scan.emit(base, at);
      at = base;
    }
    void run(const char* p, const char* end) {
      const auto n = static_cast<size_t>(end - p);
      if (n >= kStageBytes / 4) {
        flush();
        return scan.emit(p, end);
      }
      if (at - base > static_cast<ptrdiff_t>(kStageBytes - n)) flush();
      std::memcpy(at, p, n);
      at += n;
    }
    void code_point(uint32_t cp) {
      if (at - base > static_cast<ptrdiff_t>(kStageBytes - 4)) flush();
      at = put_utf8(at, cp);
    }
  };
  static char* put_utf8(char* out, uint32_t cp) {
    const auto put = [&out](uint32_t byte) { *out++ = static_cast<char>(byte); };
    if (cp < 0x80) {
      put(cp);
    } else if (cp < 0x800) {
      put(0xc0 | cp >> 6);
      put(0x80 | (cp & 0x3f));
    } else if (cp < 0x10000) {
      put(0xe0 | cp >> 12);
      put(0x80 | (cp >> 6 & 0x3f));
      put(0x80 | (cp & 0x3f));
    } else {
      put(0xf0 | cp >> 18);
      put(0x80 | (cp >> 12 & 0x3f));
      put(0x80 | (cp >> 6 & 0x3f));
      put(0x80 | (cp & 0x3f));
    }
    return out;
  }

  const char* string_bytes(const char* p, const char* end) {
    if (escape_ != 0 || high_ != 0) return escape_byte(p);
    Stage stage(*this);
    const char* from = p;
    for (;;) {
      if (utf8_need_ == 0) p = find_special(p, end);
      if (p == end) return stage.run(from, p), p;
      const auto c = static_cast<unsigned char>(*p);
      if (utf8_need_ > 0 || c >= 0x80) {
        if ((p = utf8(p, end)) == nullptr) return end;
        continue;
      }
      stage.run(from, p);
      if (c == '\\') {
        if (const char* after = whole_escape(p, end, stage); after != nullptr) {
          do {
            from = p = after;
          } while (p < end && *p == '\\' && (after = whole_escape(p, end, stage)) != nullptr);
          continue;
        }
        return escape_ = 1, p + 1;
      }
      if (c != '"') return refuse_at("control character in a string", p);
      stage.flush();
      if (!is_key_) return ended(p + 1);
      state_ = State::kColon;
      handler_.key(key_);
      return p + 1;
    }
  }

  static constexpr std::array<int8_t, 256> kHex = [] {
    std::array<int8_t, 256> t{};
    t.fill(-1);
    for (int i = 0; i < 10; ++i) t[static_cast<size_t>('0' + i)] = static_cast<int8_t>(i);
    for (int i = 0; i < 6; ++i) t[static_cast<size_t>('a' + i)] = t[static_cast<size_t>('A' + i)] = static_cast<int8_t>(10 + i);
    return t;
  }();
  static constexpr std::array<char, 256> kSimple = [] {  // 0 = none
    std::array<char, 256> t{};
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    for (size_t i = 0; i < kFrom.size(); ++i) t[static_cast<unsigned char>(kFrom[i])] = kTo[i];
    return t;
  }();
  // An escape that lies whole in this piece and is no surrogate; nullptr: byte by byte, then.
  static const char* whole_escape(const char* p, const char* end, Stage& stage) {
    if (end - p < 6) return nullptr;
    if (const char simple = kSimple[static_cast<unsigned char>(p[1])]; simple != 0) {
      stage.code_point(static_cast<unsigned char>(simple));
      return p + 2;
    }
    if (p[1] != 'u') return nullptr;
    const auto hex = [p](int i) { return static_cast<int>(kHex[static_cast<unsigned char>(p[i])]); };
    const int v = hex(2) * 4096 | hex(3) * 256 | hex(4) * 16 | hex(5);  // negative if any is
    if (v < 0 || (v >= 0xd800 && v <= 0xdfff)) return nullptr;
    stage.code_point(static_cast<uint32_t>(v));
    return p + 6;
  }

  // RFC 3629: no overlongs, no surrogates, at most U+10FFFF. nullptr: refused.
  const char* utf8(const char* p, const char* end) {
    while (p < end) {
      const auto c = static_cast<unsigned char>(*p);
      if (utf8_need_ == 0 && c > 0xe0 && c < 0xf0 && c != 0xed && end - p >= 3 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80) {
        p += 3;  // most of what is not ASCII
        continue;
      }
      if (utf8_need_ > 0) {
        if (c < utf8_low_ || c > utf8_high_) return refuse("invalid UTF-8", p), nullptr;
        utf8_low_ = 0x80;
        utf8_high_ = 0xbf;
        --utf8_need_;
      } else if (c < 0x80) {
        return p;
      } else if (c >= 0xc2 && c <= 0xdf) {
        utf8_need_ = 1;
      } else if (c >= 0xe0 && c <= 0xef) {
        utf8_need_ = 2;
        if (c == 0xe0) utf8_low_ = 0xa0;
        if (c == 0xed) utf8_high_ = 0x9f;
      } else if (c >= 0xf0 && c <= 0xf4) {
        utf8_need_ = 3;
        if (c == 0xf0) utf8_low_ = 0x90;
        if (c == 0xf4) utf8_high_ = 0x8f;
      } else {
        return refuse("invalid UTF-8", p), nullptr;
      }
      ++p;
    }
    return p;
  }

  void code_point(uint32_t cp) {
    char text[4];
    emit(text, put_utf8(text, cp));
  }

  // escape_: 1 = behind the backslash, 2..5 = that many - 1 hex digits wanted next; high_: first half of a surrogate pair.
  const char* escape_byte(const char* p) {
    const char c = *p;
    if (escape_ == 0) {  // a second half must follow
      if (c != '\\') return refuse_at("lone surrogate", p);
      return escape_ = 1, p + 1;
    }
    if (escape_ == 1) {
      if (c == 'u') return escape_ = 2, hex_ = 0, p + 1;
      if (high_ != 0) return refuse_at("lone surrogate", p);
      const char simple = kSimple[static_cast<unsigned char>(c)];
      if (simple == 0) return refuse_at("unknown escape", p);
      escape_ = 0;
      emit(&simple, &simple + 1);
      return p + 1;
    }
    const int digit = kHex[static_cast<unsigned char>(c)];
    if (digit < 0) return refuse_at("\\u needs four hex digits", p);
    hex_ = hex_ << 4 | static_cast<uint32_t>(digit);
    if (++escape_ < 6) return p + 1;
    escape_ = 0;
    const bool low = hex_ >= 0xdc00 && hex_ <= 0xdfff;
    if (low != (high_ != 0)) return refuse_at("lone surrogate", p);
    if (low) {
      code_point(0x10000 + ((high_ - 0xd800) << 10) + (hex_ - 0xdc00));
      high_ = 0;
    } else if (hex_ >= 0xd800 && hex_ <= 0xdbff) {
      high_ = hex_;
    } else {
      code_point(hex_);
    }
    return p + 1;
  }

  Handler& handler_;
  const char* chunk_ = nullptr;  // being fed; offset_ is where it begins in the text
  size_t offset_ = 0, values_ = 0, error_at_ = 0, key_begin_ = 0;
  const char* error_ = nullptr;
  State state_ = State::kValue;
  std::array<bool, kBodyDepthMax + 1> objects_{};
  int depth_ = 0;
  bool is_key_ = false;
  uint8_t escape_ = 0, utf8_need_ = 0, utf8_low_ = 0x80, utf8_high_ = 0xbf;
  N number_state_ = N::kStart;
  uint32_t hex_ = 0, high_ = 0;
  size_t word_at_ = 0;
  std::string_view word_;
  std::string key_, number_;
  static constexpr size_t kStageBytes = 1024;
  std::array<char, kStageBytes> stage_;
};

}  // namespace baton::picker
