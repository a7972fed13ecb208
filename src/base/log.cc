#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <charconv>

#include "base/json.h"
#include "base/log_json.h"

namespace baton {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};  // the one switch that must be readable from everywhere
std::atomic<bool> g_json{false};
constexpr const char* kTextPattern = "%Y-%m-%dT%H:%M:%S.%e %^%-5l%$ %n %v";
constexpr const char* kJsonPattern = R"({"ts":"%Y-%m-%dT%H:%M:%S.%eZ","logger":"%n",%v})";
constexpr std::string_view kZapNames[] = {"debug", "info", "warn", "error", ""};

// What is no UTF-8 is no JSON; a client may have sent it.
std::string json_text(std::string_view text) {
  if (valid_utf8(text)) return json_string(text);
  std::string ascii(text);
  for (char& c : ascii) c = static_cast<unsigned char>(c) < 0x80 ? c : '?';
  return json_string(ascii);
}

bool is_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  const char first = text[0] == '-' && text.size() > 1 ? text[1] : text[0];
  // JSON has no leading zeros, no ".5" and no "nan"; an id of digits alone is text to whoever reads it.
  const bool leading_zero = first == '0' && text.size() > (text[0] == '-' ? 2u : 1u) && text[text[0] == '-' ? 2 : 1] != '.';
  const size_t dot = text.find('.');
  const bool bare_dot = dot != std::string_view::npos && (dot + 1 == text.size() || text[dot + 1] < '0' || text[dot + 1] > '9');
  return first >= '0' && first <= '9' && !leading_zero && !bare_dot && text.size() < 16;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

void set_up(std::string_view program, LogLevel level) {
  auto logger = std::make_shared<spdlog::logger>(std::string(program), std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(to_spdlog(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
  g_level = level;
}

}  // namespace

void log_setup(std::string_view program, LogLevel level) {
  set_up(program, level);
  spdlog::default_logger()->set_pattern(kTextPattern);
  g_json = false;
}

void log_setup_json(std::string_view program, LogLevel level) {
  set_up(program, level);
  spdlog::default_logger()->set_pattern(kJsonPattern, spdlog::pattern_time_type::utc);
  g_json = true;
}

std::string json_fields(std::string_view fields) {
  std::string out;
  for (size_t at = 0; at < fields.size();) {
    if (fields[at] == ' ') {
      ++at;
      continue;
    }
    const size_t equals = fields.find_first_of("= ", at);
    if (equals == std::string_view::npos || fields[equals] == ' ') {  // no key: words of a sentence
      const size_t end = std::min(fields.find('=', at), fields.size());
      const size_t blank = end == fields.size() ? end : fields.rfind(' ', end);
      const size_t stop = blank == std::string_view::npos || blank <= at ? fields.size() : blank;
      out += cat(",\"detail\":", json_text(fields.substr(at, stop - at)));
      at = stop;
      continue;
    }
    const std::string_view key = fields.substr(at, equals - at);
    at = equals + 1;
    std::string_view value;
    std::string unquoted;
    if (at < fields.size() && fields[at] == '"') {
      size_t end = at + 1;
      for (; end < fields.size() && fields[end] != '"'; ++end) {
        if (fields[end] == '\\' && end + 1 < fields.size()) ++end;
        unquoted += fields[end];
      }
      value = unquoted;
      at = std::min(end + 1, fields.size());
      out += cat(",", json_text(key), ":", json_text(value));
      continue;
    }
    const size_t end = std::min(fields.find(' ', at), fields.size());
    value = fields.substr(at, end - at);
    at = end;
    const bool plain = value == "true" || value == "false" || (!value.empty() && !key.ends_with("id") && is_number(value));
    out += cat(",", json_text(key), ":", plain ? std::string(value) : json_text(value));
  }
  return out;
}

bool log_level_from(std::string_view name, LogLevel& out) {
  std::string low;
  for (char c : name) low += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  if (low == "debug" || low == "trace") return out = LogLevel::kDebug, true;
  if (low == "info") return out = LogLevel::kInfo, true;
  if (low == "warn" || low == "warning") return out = LogLevel::kWarn, true;
  if (low == "error" || low == "critical") return out = LogLevel::kError, true;
  if (low == "off") return out = LogLevel::kOff, true;
  return false;
}

bool log_enabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view message, std::string_view fields) {
  if (!log_enabled(level)) return;
  if (g_json.load(std::memory_order_relaxed)) {
    spdlog::log(to_spdlog(level), "\"level\":\"{}\",\"msg\":{}{}", kZapNames[static_cast<size_t>(level)], json_text(message),
                json_fields(fields));
  } else if (fields.empty()) {
    spdlog::log(to_spdlog(level), "{}", message);
  } else {
    spdlog::log(to_spdlog(level), "{} {}", message, fields);
  }
}

}  // namespace baton
