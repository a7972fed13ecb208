#pragma once
// A program of several commands: rows of name, what it does, and the function behind it; run_command() finds the row.
#include <span>

#include "apps/main.h"

namespace baton {

struct Command {
  const char *name, *what;
  int (*run)(const std::vector<std::string>&);
};

template <class Config, Options (*table)(Config&), auto go>
int command(const std::vector<std::string>& args) {
  Config config;
  Options options = table(config);
  ParsedArgs parsed;
  int code = 0;
  if (!parse_or_exit(options, args, parsed, &code)) return code;
  auto done = go(config, parsed);
  return done ? 0 : report(options.program(), done.error());
}

// args: without the program's name.
inline int run_command(std::span<const Command> rows, const std::vector<std::string>& args, const char* program,
                       const char* summary, const char* footer) {
  const std::string name = args.empty() ? "--help" : args[0];
  for (const Command& row : rows) {
    if (name == row.name) return row.run({args.begin() + 1, args.end()});
  }
  if (name == "--version") return std::printf("baton %s\n", BATON_VERSION), 0;
  const bool help = name == "--help" || name == "-h" || name == "help";
  std::FILE* out = help ? stdout : stderr;
  std::fprintf(out, "%s\n\nusage: %s COMMAND [flags]      (%s COMMAND --help)\n\n", summary, program, program);
  for (const Command& row : rows) std::fprintf(out, "  %-7s %s\n", row.name, row.what);
  std::fprintf(out, "\n%s\n", footer);
  if (!help) std::fprintf(stderr, "\n%s: no command '%s'\n", program, name.c_str());
  return help ? 0 : 2;
}

}  // namespace baton
