#pragma once
// read_file(): the whole of a file that must not be larger than we want it. Errors: kNotFound, kPermissionDenied, kUnavailable
// from the system, kInvalidArgument what is no regular file (pipes and devices excepted if they end within the limit),
// kResourceExhausted over bytes_max. Any thread.
#include <cstddef>
#include <string>

#include "base/result.h"

namespace baton {

Result<std::string> read_file(const std::string& path, size_t bytes_max);

}  // namespace baton
