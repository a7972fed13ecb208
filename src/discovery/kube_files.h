#pragma once
// Small things the Kubernetes source reads: base64, RFC 3339 times, the payload of a service account token.
// All pure; nothing throws. Source: RFC 4648, RFC 3339, RFC 7519 section 3.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace baton::discovery {

std::string trimmed(std::string_view text);

std::optional<std::string> decode_base64(
    std::string_view text);  // standard or URL alphabet, padding optional, white space ignored

std::optional<int64_t> unix_from_rfc3339(std::string_view text);  // seconds; a fraction is dropped
std::string micro_time(int64_t unix_us);                          // "2026-11-21T14:00:00.000000Z", Kubernetes' MicroTime

// "system:serviceaccount:ns:name" of a token, for messages only: nothing is verified. "" if it is no JWT.
std::string subject_of_token(std::string_view token);

}  // namespace baton::discovery
