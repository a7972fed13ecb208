#pragma once
// Log lines: lower-case message, key=value fields.  log_info("worker ready", "port={} model={}", port, model)
// error = a person acts; warn = degraded; info = life cycle and one line a request; debug = proportional to objects.
// Any thread may log. The first detector of an error logs it; callers only add context. Goes to stderr through spdlog.
#include <fmt/format.h>

#include <string_view>

namespace baton {

enum class LogLevel { kDebug, kInfo, kWarn, kError, kOff };

void log_setup(std::string_view program, LogLevel level);
bool log_level_from(std::string_view name, LogLevel& out);  // debug, info, warn(ing), error, off; any case
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view message, std::string_view fields);

namespace detail {
template <class... Args>
void log(LogLevel level, std::string_view message, fmt::format_string<Args...> fields, Args&&... args) {
  if (log_enabled(level)) log_line(level, message, fmt::format(fields, std::forward<Args>(args)...));
}
}  // namespace detail

#define BATON_LOG_FUNCTION_(name, level)                                                    \
  inline void name(std::string_view message) { log_line(level, message, {}); }              \
  template <class... Args>                                                                  \
  void name(std::string_view message, fmt::format_string<Args...> fields, Args&&... args) { \
    detail::log(level, message, fields, std::forward<Args>(args)...);                       \
  }
BATON_LOG_FUNCTION_(log_debug, LogLevel::kDebug)
BATON_LOG_FUNCTION_(log_info, LogLevel::kInfo)
BATON_LOG_FUNCTION_(log_warn, LogLevel::kWarn)
BATON_LOG_FUNCTION_(log_error, LogLevel::kError)
#undef BATON_LOG_FUNCTION_

}  // namespace baton
