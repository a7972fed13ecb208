#include "base/result.h"

#include <charconv>
#include <cmath>

namespace baton {

std::string_view code_name(Code code) {
  static constexpr std::string_view kNames[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  auto i = static_cast<size_t>(code);
  return i < std::size(kNames) ? kNames[i] : "UNKNOWN";
}

int http_status(Code code) {
  switch (code) {
    case Code::kOk:
      return 200;
    case Code::kCancelled:
      return 499;
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
      return 400;
    case Code::kFailedPrecondition:
      return 412;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
    case Code::kAborted:
      return 409;
    case Code::kPermissionDenied:
      return 403;
    case Code::kResourceExhausted:
      return 429;
    case Code::kUnimplemented:
      return 501;
    case Code::kUnavailable:
      return 503;
    case Code::kUnauthenticated:
      return 401;
    default:
      return 500;
  }
}

void detail::append(std::string& out, double d) {
  if (!std::isfinite(d)) {
    out += std::isnan(d) ? "nan" : d > 0 ? "inf" : "-inf";
    return;
  }
  char buf[32];
  auto [end, ec] = std::to_chars(buf, buf + sizeof buf, d);
  out.append(buf, end);
}

std::unexpected<Error> within(std::string_view where, Error error) {
  error.message = cat(where, ": ", error.message);
  return std::unexpected<Error>(std::move(error));
}

void check_failed(const char* cond, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: BATON_CHECK failed: %s\n", file, line, cond);
  std::abort();
}

}  // namespace baton
