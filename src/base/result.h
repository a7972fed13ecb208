#pragma once
// Result<T>: a value, or an Error a caller can act on. Errors are values; exceptions stop at the library call that throws.
// Requires: the standard library alone. Guarantees: Code has gRPC's canonical codes, so HTTP and gRPC statuses are one table.
// BATON_TRY(decl, expr)     in a function that returns Result: unwrap or return the error
// BATON_CO_TRY(decl, expr)  the same in a coroutine (co_return)
// BATON_CHECK(cond)         our own bug: prints file, line and aborts; always on, never reachable by user input
#include <cstdio>
#include <cstdlib>
#include <expected>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace baton {

enum class Code {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

std::string_view code_name(Code code);  // "INVALID_ARGUMENT"
int http_status(Code code);             // 400 for kInvalidArgument, 503 for kUnavailable, ...

struct [[nodiscard]] Error {
  Code code = Code::kUnknown;
  std::string message;
  // Of a request that was refused, where an answer says it beside the message: the parameter that is meant ("" = none), and
  // whether the form of the body was wrong. Made by wire/errors.h: refuse().
  std::string param{};
  bool form = false;
};

template <class T = void>
using Result = std::expected<T, Error>;

// cat("tensor ", name, " has ", n, " bytes"): strings and numbers joined; no locale, no format string.
namespace detail {
inline void append(std::string& out, std::string_view s) { out += s; }
inline void append(std::string& out, const char* s) { out += s; }
inline void append(std::string& out, char c) { out += c; }
inline void append(std::string& out, bool b) { out += b ? "true" : "false"; }
template <class N>
  requires(std::is_integral_v<N> && !std::is_same_v<N, bool> && !std::is_same_v<N, char>)
void append(std::string& out, N n) {
  out += std::to_string(n);
}
void append(std::string& out, double d);  // shortest text that reads back equal
inline void append(std::string& out, float f) { append(out, static_cast<double>(f)); }
}  // namespace detail

template <class... Args>
std::string cat(const Args&... args) {
  std::string out;
  (detail::append(out, args), ...);
  return out;
}

template <class... Args>
std::unexpected<Error> fail(Code code, const Args&... args) {
  return std::unexpected<Error>(Error{code, cat(args...)});
}

// The same error with "where: " put before its message.
std::unexpected<Error> within(std::string_view where, Error error);

[[noreturn]] void check_failed(const char* cond, const char* file, int line);

}  // namespace baton

#define BATON_CONCAT_(a, b) a##b
#define BATON_CONCAT(a, b) BATON_CONCAT_(a, b)
#define BATON_TRY_(tmp, decl, expr, ret)                         \
  auto tmp = (expr);                                             \
  if (!tmp) [[unlikely]]                                         \
    ret std::unexpected<::baton::Error>(std::move(tmp).error()); \
  decl = *std::move(tmp)
#define BATON_TRY(decl, expr) BATON_TRY_(BATON_CONCAT(baton_try_, __LINE__), decl, expr, return)
#define BATON_CO_TRY(decl, expr) BATON_TRY_(BATON_CONCAT(baton_try_, __LINE__), decl, expr, co_return)
// For Result<void>: BATON_OK(check(x));
#define BATON_OK_(tmp, expr, ret)           \
  if (auto tmp = (expr); !tmp) [[unlikely]] \
  ret std::unexpected<::baton::Error>(std::move(tmp).error())
#define BATON_OK(expr) BATON_OK_(BATON_CONCAT(baton_ok_, __LINE__), expr, return)
#define BATON_CO_OK(expr) BATON_OK_(BATON_CONCAT(baton_ok_, __LINE__), expr, co_return)
#define BATON_CHECK(cond)   \
  if (!(cond)) [[unlikely]] \
  ::baton::check_failed(#cond, __FILE__, __LINE__)
