#pragma once
// read_file(): the whole of a file that must not be larger than we want it. Errors: kNotFound, kPermissionDenied, kUnavailable
// from the system, kInvalidArgument what is no regular file (pipes and devices excepted if they end within the limit),
// kResourceExhausted over bytes_max. write_file(): makes or replaces a file in a folder that is there; kPermissionDenied: it
// cannot be written whole. Any thread.
#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace baton {

Result<std::string> read_file(const std::string& path, size_t bytes_max);
Result<> write_file(const std::string& path, std::string_view bytes);

}  // namespace baton
