#pragma once
// CheckResult: one line of a verdict, as `baton verify` and `baton deploy verify` print them: what was looked at, what was seen,
// and what to do if it is not right. Pure.
#include <string>
#include <string_view>
#include <vector>

namespace baton {

struct CheckResult {
  enum class Verdict : unsigned char { kOk, kNote, kFailed } verdict{};  // kNote: nothing wrong, but not what this is for
  std::string name, detail, advice;                                      // advice: what to do; "" for kOk
};

// The title, a line a check, the verdict.
std::string checks_screen(std::string_view title, const std::vector<CheckResult>& results, bool color);
std::string checks_json(const std::vector<CheckResult>& results);
const CheckResult* first_failure(const std::vector<CheckResult>& results);  // nullptr: there is none

}  // namespace baton
