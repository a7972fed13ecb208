#pragma once
// log_setup_json(): log_setup() whose lines are JSON objects, as log collectors of llm-d's charts (--zap-encoder=json) expect them:
//   {"ts":"2026-01-31T12:00:00.123Z","logger":"baton-router","level":"info","msg":"request refused","x-request-id":"..","status":429}
// The key=value fields of log.h become members: numbers and true and false as such, quoted values unquoted, anything else as text.
// Any thread may log meanwhile.
#include <string>
#include <string_view>

#include "base/log.h"

namespace baton {

void log_setup_json(std::string_view program, LogLevel level);
// The members of a line's fields, ",\"key\":value" each.
std::string json_fields(std::string_view fields);

}  // namespace baton
