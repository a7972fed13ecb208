#pragma once
// run_tool(): another program (helm), its standard output, and an end to waiting for it: at most `timeout_ms`, then it is killed.
// Errors: kNotFound no such program; kFailedPrecondition it failed, the message is what it said; kDeadlineExceeded. Blocks.
#include <string>
#include <vector>

#include "base/result.h"

namespace baton::deploy {

Result<std::string> run_tool(const std::vector<std::string>& argv, int timeout_ms, size_t bytes_max);
std::string find_tool(const std::string& name);  // in PATH, or a path; "" = not there

}  // namespace baton::deploy
