#include "wire/fields.h"

#include <algorithm>
#include <cctype>

namespace baton::wire {
namespace {

// vLLM reads a request as pydantic does where it is not strict: a number or a truth may be written in a string, and each as the
// other. Clients whose settings come from forms and environments send "16" and "true".
std::optional<Json> written_number(const Json& value) {
  constexpr size_t kNumberMax = 64;
  if (!value.is_string() || value.text.size() > kNumberMax) return std::nullopt;
  auto number = parse_json(value.text);
  return number && number->is_number() ? std::optional(*std::move(number)) : std::nullopt;
}

std::optional<int64_t> lax_int(const Json& value) {
  if (value.is_bool()) return value.boolean ? 1 : 0;
  const auto written = written_number(value);
  return written ? written->as_int() : value.as_int();
}

std::optional<double> lax_double(const Json& value) {
  if (value.is_bool()) return value.boolean ? 1 : 0;
  const auto written = written_number(value);
  return written ? written->as_double() : value.as_double();
}

std::optional<bool> lax_bool(const Json& value) {
  if (const auto n = value.as_double(); n && (*n == 0 || *n == 1)) return *n == 1;
  if (!value.is_string()) return value.as_bool();
  std::string word = value.text.substr(0, 8);
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (std::string_view yes : {"true", "t", "yes", "y", "on", "1"}) {
    if (word == yes) return true;
  }
  for (std::string_view no : {"false", "f", "no", "n", "off", "0"}) {
    if (word == no) return false;
  }
  return std::nullopt;
}

}  // namespace

const Json* Fields::get(std::string_view key) {
  seen_.push_back(key);
  const Json* value = error_ ? nullptr : object_.find(key);
  return value && !value->is_null() ? value : nullptr;
}

void Fields::flag(std::string_view key, bool& out) {
  const Json* value = get(key);
  if (!value) return;
  auto flag = lax_bool(*value);
  if (!flag) return reject(At{key}, "Input should be a valid boolean");
  out = *flag;
}

void Fields::integer(std::string_view key, std::optional<int64_t>& out) {
  const Json* value = get(key);
  if (!value) return;
  auto n = lax_int(*value);
  if (!n) return reject(At{key}, "Input should be a valid integer");
  out = *n;
}

void Fields::integer(std::string_view key, std::optional<int32_t>& out) {
  std::optional<int64_t> wide;
  integer(key, wide);
  if (!wide) return;
  if (*wide < INT32_MIN || *wide > INT32_MAX) return reject(At{key}, "Input should be a valid integer, got ", *wide);
  out = static_cast<int32_t>(*wide);
}

void Fields::integer(std::string_view key, int32_t& out) {
  std::optional<int32_t> n;
  integer(key, n);
  if (n) out = *n;
}

void Fields::engine_integer(std::string_view key, std::optional<int32_t>& out) {
  const bool clean = !error_;
  integer(key, out);
  if (clean && error_) error_ = refuse(About{key}, error_->message).error();
}

void Fields::number(std::string_view key, std::optional<double>& out) {
  const Json* value = get(key);
  if (!value) return;
  auto n = lax_double(*value);
  if (!n) return reject(At{key}, "Input should be a valid number");
  out = *n;
}

void Fields::text(std::string_view key, std::string& out, size_t bytes_max) {
  const Json* value = get(key);
  if (!value) return;
  if (!value->is_string()) return reject(At{key}, "Input should be a valid string");
  require(value->text.size() <= bytes_max, At{key}, "String should have at most ", bytes_max, " bytes");
  out = value->text;
}

void Fields::texts(std::string_view key, std::vector<std::string>& out, size_t count_max, size_t bytes_max) {
  const Json* value = get(key);
  if (!value) return;
  if (!value->is_string() && !value->is_array()) return reject(At{key}, "Input should be a valid string or list of strings");
  const std::span<const Json> items = value->is_string() ? std::span(value, 1) : std::span(value->items);
  require(items.size() <= count_max, At{key}, "List should have at most ", count_max, " items, not ", items.size());
  for (const Json& item : items) {
    require(item.is_string(), At{key}, "Input should be a valid string");
    require(item.text.size() <= bytes_max, At{key}, "String should have at most ", bytes_max, " bytes");
    if (error_) return;
    out.push_back(item.text);
  }
}

void Fields::integers(std::string_view key, std::vector<int32_t>& out, size_t count_max) {
  const Json* value = get(key);
  if (!value) return;
  if (!value->is_array()) return reject(At{key}, "Input should be a valid list");
  require(value->items.size() <= count_max, At{key}, "List should have at most ", count_max, " items, not ", value->items.size());
  if (error_) return;
  out.reserve(value->items.size());
  for (const Json& item : value->items) {
    auto n = lax_int(item);
    if (!n || *n < INT32_MIN || *n > INT32_MAX) return reject(At{key}, "Input should be a valid integer");
    out.push_back(static_cast<int32_t>(*n));
  }
}

void Fields::known(std::initializer_list<std::string_view> keys) { seen_.insert(seen_.end(), keys); }

std::vector<std::string> Fields::unknown() const {
  std::vector<std::string> out;
  for (const std::string& key : object_.keys) {
    if (std::find(seen_.begin(), seen_.end(), key) == seen_.end()) out.push_back(key);
  }
  return out;
}

}  // namespace baton::wire
