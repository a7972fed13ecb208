#pragma once
// `baton verify`: is this stack, ours or another's behind the same interfaces, right? A few requests, one line a check, what to
// do for each that failed, and a verdict. It asks for greedy answers to a prompt nobody has asked before, so that a hand-over has
// to happen.
#include <string>
#include <vector>

#include "base/checks.h"
#include "base/config.h"
#include "base/result.h"

namespace baton::stack {

struct VerifyConfig {
  std::string url = "http://127.0.0.1:8000";
  std::string model;  // "" = the server's first
  std::string api_key;
  int prompt_words = 400;
  int timeout_s = 120;  // of one request
  int faults_s = 0;     // strike the workers of `baton up`'s stack here for so long; 0 = do not
  std::string state_dir = {};  // of `baton up`; "" = its default
};
Options verify_options(VerifyConfig& config);

std::vector<CheckResult> run_checks(const VerifyConfig& config);  // none if the URL is no URL
std::string verify_screen(const VerifyConfig& config, const std::vector<CheckResult>& results, bool color);
Result<> verify(const VerifyConfig& config);  // prints the screen; an error if a check failed

}  // namespace baton::stack
