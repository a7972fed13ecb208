#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>

namespace baton {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};  // the one switch that must be readable from everywhere

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

}  // namespace

void log_setup(std::string_view program, LogLevel level) {
  auto logger = std::make_shared<spdlog::logger>(std::string(program), std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%-5l%$ %n %v");
  logger->set_level(to_spdlog(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
  g_level = level;
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
  if (fields.empty()) {
    spdlog::log(to_spdlog(level), "{}", message);
  } else {
    spdlog::log(to_spdlog(level), "{} {}", message, fields);
  }
}

}  // namespace baton
