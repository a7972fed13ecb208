#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>

#include "base/json.h"
#include "base/log_json.h"

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

// The message as a JSON string.
class JsonMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    std::string text = json_string({message.payload.data(), message.payload.size()});
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override { return std::make_unique<JsonMessage>(); }
};

void set_up(std::string_view program, LogLevel level, std::unique_ptr<spdlog::formatter> formatter) {
  auto logger = std::make_shared<spdlog::logger>(std::string(program), std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_formatter(std::move(formatter));
  logger->set_level(to_spdlog(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
  g_level = level;
}

}  // namespace

void log_setup(std::string_view program, LogLevel level) {
  set_up(program, level, std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%e %^%-5l%$ %n %v"));
}

void log_setup_json(std::string_view program, LogLevel level) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<JsonMessage>('*').set_pattern(R"({"level":"%l","ts":"%Y-%m-%dT%H:%M:%S.%eZ","logger":"%n","msg":%*})");
  set_up(program, level, std::move(formatter));
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
