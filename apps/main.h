#pragma once
// What the four programs share: parsing with --help and --version, and waiting for a signal to drain.
#include <signal.h>

#include <cstdio>

#include "base/config.h"
#include "base/log.h"

namespace baton {

// True if there is something to run; false: *exit_code is final (help shown, bad flags explained).
// explains_config: the program prints its configuration by itself.
inline bool show_or_run(const Options& options, const Result<ParsedArgs>& parsed, int* exit_code, bool explains_config = false) {
  if (!parsed) {
    std::fprintf(stderr, "%s: %s\n", options.program().c_str(), parsed.error().message.c_str());
    return *exit_code = 2, false;
  }
  for (const auto& warning : parsed->warnings)
    std::fprintf(stderr, "%s: warning: %s\n", options.program().c_str(), warning.c_str());
  *exit_code = 0;
  if (parsed->help) std::fputs(options.help_text().c_str(), stdout);
  if (parsed->version) std::printf("%s %s\n", options.program().c_str(), BATON_VERSION);
  if (parsed->print_config && !explains_config) std::fputs(options.config_text().c_str(), stdout);
  return !parsed->help && !parsed->version && (explains_config || !parsed->print_config);
}

inline bool parse_or_exit(Options& options, const std::vector<std::string>& args, ParsedArgs& parsed, int* exit_code,
                          bool explains_config = false) {
  auto p = options.parse(args);
  if (p) parsed = *p;
  return show_or_run(options, p, exit_code, explains_config);
}

inline int report(std::string_view program, const Error& error) {
  std::fprintf(stderr, "%.*s: %s\n", static_cast<int>(program.size()), program.data(), error.message.c_str());
  return 1;
}

// Blocks SIGINT and SIGTERM for all threads started later; call first. wait_for_stop() returns when one comes.
inline void block_stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT), sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}
// False if alive() became false instead.
inline bool wait_for_stop(const std::function<bool()>& alive = [] { return true; }) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT), sigaddset(&set, SIGTERM);
  timespec second{1, 0};
  while (alive()) {
    if (sigtimedwait(&set, nullptr, &second) > 0) return true;
  }
  return false;
}

}  // namespace baton
