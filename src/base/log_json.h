#pragma once
// log_setup_json(): log_setup() whose lines are JSON objects, {"level","ts","logger","msg"}, as log collectors of llm-d's charts
// (--zap-encoder=json) expect them; msg is the message with its fields.
#include "base/log.h"

namespace baton {

void log_setup_json(std::string_view program, LogLevel level);

}  // namespace baton
