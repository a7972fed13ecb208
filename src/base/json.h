#pragma once
// Strict JSON (RFC 8259) reader and compact writer.
// Why our own: one reader must give exact 64-bit numbers (raw text is kept), key order, and the byte range of every value so that
// proxies can splice a body without rewriting it, and model/ may use the standard library alone. docs/adr/0003 has the
// comparison. Guarantees: never reads past the text; bounded depth, size and node count; invalid UTF-8, lone surrogates, control
// characters, trailing text are errors that name the byte offset. Duplicate keys are kept in order; find() returns the last, as
// Python does.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace baton {

struct JsonLimits {
  size_t bytes_max = 64u << 20;
  size_t nodes_max = 8u << 20;
  int depth_max = 64;
};

class Json {
 public:
  enum class Kind : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  size_t begin = 0, end = 0;      // [begin, end) in the parsed text, whitespace around the value excluded
  std::string text;               // kString: the unescaped UTF-8; kNumber: its source text
  std::vector<Json> items;        // kArray: elements; kObject: values, parallel to keys
  std::vector<std::string> keys;  // kObject

  bool is_null() const { return kind == Kind::kNull; }
  bool is_bool() const { return kind == Kind::kBool; }
  bool is_number() const { return kind == Kind::kNumber; }
  bool is_string() const { return kind == Kind::kString; }
  bool is_array() const { return kind == Kind::kArray; }
  bool is_object() const { return kind == Kind::kObject; }

  const Json* find(std::string_view key) const;  // nullptr if this is no object or has no such key
  Json* find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).find(key)); }
  // The member that find() finds, or a new one at the end; what is no object becomes one.
  void set(std::string_view key, Json value);
  const Json* find_path(std::initializer_list<std::string_view> keys) const;
  // Numbers that are integers in the type's range, "1.0" and "1e2" included; nothing is rounded.
  std::optional<int64_t> as_int() const;
  std::optional<uint64_t> as_uint() const;
  std::optional<double> as_double() const;  // finite only
  std::optional<std::string_view> as_string() const;
  std::optional<bool> as_bool() const;

  std::string_view raw(std::string_view source) const { return source.substr(begin, end - begin); }
  std::string_view kind_name() const;  // "null", "boolean", "number", ...
};

Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

bool valid_utf8(std::string_view s);
void append_utf8(std::string& out, char32_t code_point);

// Appends s as a JSON string, quotes included; non-ASCII passes through. s must be UTF-8.
void append_json_string(std::string& out, std::string_view s);
std::string json_string(std::string_view s);

// JsonWriter: compact JSON, commas placed for you.  w.object().key("id").value("x").key("n").value(1).end(); w.take()
class JsonWriter {
 public:
  JsonWriter& object() { return open('{', '}'); }
  JsonWriter& array() { return open('[', ']'); }
  JsonWriter& end();
  JsonWriter& key(std::string_view k);
  JsonWriter& value(std::string_view s);
  JsonWriter& value(const char* s) { return value(std::string_view(s)); }
  JsonWriter& value(const std::string& s) { return value(std::string_view(s)); }
  JsonWriter& value(bool b);
  JsonWriter& value(double d);  // not finite: null
  template <class N>
    requires(std::is_integral_v<N> && !std::is_same_v<N, bool>)
  JsonWriter& value(N n) {
    comma();
    out_ += std::to_string(n);
    return *this;
  }
  JsonWriter& null();
  JsonWriter& raw(std::string_view json);  // text that is JSON already
  template <class V>
  JsonWriter& field(std::string_view k, const V& v) {
    return key(k).value(v);
  }
  JsonWriter& field_null(std::string_view k) { return key(k).null(); }
  const std::string& text() const { return out_; }
  std::string take() { return std::move(out_); }

 private:
  JsonWriter& open(char open, char close);
  void comma();
  std::string out_;
  std::string closers_;
  bool first_ = true;
  bool after_key_ = false;
};

}  // namespace baton
