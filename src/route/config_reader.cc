// Messages, near names, and the reader of one JSON object.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "route/config_parts.h"
#include "route/limits.h"

namespace baton::route {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = row[j];
      row[j] = next;
    }
  }
  return row.back();
}

std::string located(std::string_view path, std::string_view text) {
  return path.empty() ? std::string(text) : cat(path, ": ", text);
}

void keep(std::vector<std::string>& list, size_t& left_out, std::string message) {
  if (std::ranges::find(list, message) != list.end()) return;
  if (list.size() < kConfigMessagesMax)
    list.push_back(std::move(message));
  else
    ++left_out;
}

// What a file says, cut short, for a message.
std::string quoted(const Json& value) {
  if (value.is_array()) return "a list";
  if (value.is_object()) return "a map";
  if (value.is_null()) return "nothing";
  if (value.is_bool()) return value.boolean ? "true" : "false";
  std::string text = value.text.substr(0, 60);
  while (!valid_utf8(text)) text.pop_back();
  return value.is_string() ? json_string(text) : text;
}

}  // namespace

void Messages::error(std::string_view path, std::string_view text) { keep(errors, errors_left_out, located(path, text)); }
void Messages::warn(std::string_view path, std::string_view text) { keep(warnings, warnings_left_out, located(path, text)); }

std::string near_name(std::string_view given, const std::vector<std::string_view>& known) {
  std::string_view best;
  size_t best_distance = 1 + std::min<size_t>(4, given.size() / 3);
  for (std::string_view name : known) {
    if (given.size() > 100 || name.size() > 100) continue;
    const size_t distance = edit_distance(given, name);
    if (distance < best_distance) best_distance = distance, best = name;
  }
  return best.empty() ? "" : cat(", did you mean \"", best, "\"?");
}

std::optional<int64_t> parse_duration_ms(std::string_view text) {
  if (text == "0") return 0;
  double total = 0;
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    double value = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
    if (status != std::errc() || value < 0) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    const size_t n = std::min(text.find_first_of("0123456789."), text.size());
    const std::string_view unit = text.substr(0, n);
    const double ms = unit == "h"    ? 3.6e6
                      : unit == "m"  ? 6e4
                      : unit == "s"  ? 1e3
                      : unit == "ms" ? 1
                      : unit == "us" ? 1e-3
                      : unit == "ns" ? 1e-6
                                     : -1;
    if (ms < 0) return std::nullopt;
    total += value * ms;
    text.remove_prefix(n);
  }
  if (!(total < 9e15)) return std::nullopt;
  return static_cast<int64_t>(std::llround(total));
}

std::optional<int64_t> parse_quantity(std::string_view text) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || value < 0) return std::nullopt;
  std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  if (unit.ends_with('B')) unit.remove_suffix(1);  // not Kubernetes' spelling, but what people write
  double factor = 1;
  if (!unit.empty()) {
    constexpr std::string_view kSteps = "kMGTPE";
    const char letter = unit[0] == 'K' ? 'k' : unit[0];
    const size_t step = kSteps.find(letter);
    if (step == std::string_view::npos || unit.size() > 2 || (unit.size() == 2 && unit[1] != 'i')) return std::nullopt;
    factor = std::pow(unit.size() == 2 ? 1024.0 : 1000.0, static_cast<double>(step + 1));
  }
  if (!(value * factor < 9e15)) return std::nullopt;
  return static_cast<int64_t>(std::ceil(value * factor));
}

ObjectReader::ObjectReader(const Json* object, std::string path, Messages& messages)
    : object_(object), path_(std::move(path)), messages_(messages) {
  if (object_ != nullptr && !object_->is_object() && !object_->is_null()) {
    messages_.error(path_, cat("must be a map, not ", quoted(*object_)));
    object_ = nullptr;
  }
}

const Json* ObjectReader::take(std::string_view key) {
  known_.emplace(key);
  const Json* value = object_ == nullptr ? nullptr : object_->find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::string ObjectReader::text(std::string_view key, std::string fallback) {
  const Json* value = take(key);
  if (value == nullptr) return fallback;
  if (value->is_string() || value->is_number()) return value->text;
  messages_.error(at(key), cat("must be a text, not ", quoted(*value)));
  return fallback;
}

std::optional<bool> ObjectReader::boolean(std::string_view key) {
  const Json* value = take(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_bool()) messages_.error(at(key), cat("must be true or false, not ", quoted(*value)));
  return value->as_bool();
}

std::optional<int64_t> ObjectReader::integer(std::string_view key, int64_t min, int64_t max) {
  const Json* value = take(key);
  if (value == nullptr) return std::nullopt;
  const auto n = value->as_int();
  if (n && *n >= min && *n <= max) return n;
  messages_.error(at(key), cat("must be an integer from ", min, " to ", max, ", not ", quoted(*value)));
  return std::nullopt;
}

std::optional<double> ObjectReader::number(std::string_view key, double min, double max) {
  const Json* value = take(key);
  if (value == nullptr) return std::nullopt;
  const auto n = value->as_double();
  if (n && *n >= min && *n <= max) return n;
  messages_.error(at(key), cat("must be a number from ", min, " to ", max, ", not ", quoted(*value)));
  return std::nullopt;
}

std::optional<int64_t> ObjectReader::quantity(std::string_view key) {
  const Json* value = take(key);
  if (value == nullptr) return std::nullopt;
  const auto n = value->is_string() || value->is_number() ? parse_quantity(value->text) : std::nullopt;
  if (!n) messages_.error(at(key), cat("must be a quantity such as 5000, 1G or 512Mi, not ", quoted(*value)));
  return n;
}

std::optional<int64_t> ObjectReader::duration_ms(std::string_view key) {
  const Json* value = take(key);
  if (value == nullptr) return std::nullopt;
  const auto n = value->is_string() || value->is_number() ? parse_duration_ms(value->text) : std::nullopt;
  if (!n) messages_.error(at(key), cat("must be a duration such as 200ms or 1m30s, not ", quoted(*value)));
  return n;
}

const Json* ObjectReader::list(std::string_view key) {
  const Json* value = take(key);
  if (value == nullptr || value->is_array()) return value;
  messages_.error(at(key), cat("must be a list, not ", quoted(*value)));
  return nullptr;
}

void ObjectReader::done() {
  if (object_ == nullptr) return;
  const std::vector<std::string_view> known(known_.begin(), known_.end());
  for (const std::string& key : object_->keys) {
    if (!known_.contains(key)) messages_.error(at(key.substr(0, 80)), cat("unknown field", near_name(key, known)));
  }
}

}  // namespace baton::route
