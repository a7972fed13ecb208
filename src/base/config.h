#pragma once
// Options: the one configuration table of a program. A row gives name, where the value lives, unit and help; from the rows come
// flags, environment, --help, --print-config and docs/config.md (tools/config-docs). Validated once, all errors together.
// Spelling: --name value, --name=value, -name value (Go style); names compare with '-' and '_' alike; a bool takes --name,
// --no-name or --name=true|false. Precedence: flag > file of flags > environment > default. An unknown flag is an error, or, with
// unknown_is_warning (vLLM's and llm-d's flags we do not implement), a line in `warnings`. Owner: the caller keeps the targets
// alive; single threaded, at start-up.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace baton {

struct Option {
  std::string name;                  // "max-num-seqs"
  std::vector<std::string> aliases;  // other spellings, of other generations
  std::string unit;                  // "tokens", "ms", "" if none
  std::string help;
  std::string env;           // environment variable, "" if none
  std::string group;         // heading in --help and docs/config.md
  std::string default_text;  // as shown
  bool is_bool = false;
  bool is_list = false;  // repeatable, values appended
  std::function<Result<>(std::string_view)> set;
  std::function<std::string()> get;  // current value as text, for --print-config
};

// A flag as a file of flags gives it.
struct FlagInFile {
  std::string name;
  std::vector<std::string> values;  // none: the flag's default
  std::string where;                // "engine.yaml line 3: port", for errors
};

struct ParsedArgs {
  std::vector<std::string> positional;
  std::vector<std::string> warnings;
  bool help = false;
  bool version = false;
  bool print_config = false;
};

class Options {
 public:
  Options(std::string program, std::string summary, std::string usage);
  Options& group(std::string heading);
  // The target's present value is the default. Ranges are inclusive.
  Options& add(std::string name, bool* target, std::string help);
  Options& add(std::string name, int* target, std::string unit, std::string help, int64_t min = 0, int64_t max = INT32_MAX);
  Options& add(std::string name, int64_t* target, std::string unit, std::string help, int64_t min = 0, int64_t max = INT64_MAX);
  Options& add(std::string name, double* target, std::string unit, std::string help, double min, double max);
  Options& add(std::string name, std::string* target, std::string help, std::vector<std::string> choices = {});
  Options& add(std::string name, std::vector<std::string>* target,
               std::string help);  // repeatable, or several values after one flag
  // Go's durations, as charts write them: "200ms", "1m30s"; a bare number is milliseconds.
  Options& add_duration(std::string name, int64_t* target_ms, std::string help);
  Options& add(Option option);
  // Refine the row added last.
  Options& alias(std::string name);
  Options& env(std::string variable);
  // Flags accepted and ignored without a warning (they ask for what we always do), and ones that take no value.
  Options& ignore(std::vector<std::string> names);
  // A flag whose value names a file of more flags. One that the command line has too is not taken from the file.
  Options& add_file(std::string name, std::string help, std::function<Result<std::vector<FlagInFile>>(const std::string&)> read);
  Options& unknown_is_warning(std::string whose);  // "vLLM": "warning: vLLM flag --x is not implemented, ignored"

  Result<ParsedArgs> parse(int argc, char** argv);
  Result<ParsedArgs> parse(const std::vector<std::string>& args);  // args without the program name
  std::string help_text() const;
  std::string config_text() const;  // "name: value  # unit" lines, for --print-config
  std::string markdown() const;     // this program's section of docs/config.md
  const std::vector<Option>& rows() const { return rows_; }
  const std::string& program() const { return program_; }

 private:
  struct Parsing;
  Option* find(std::string_view name);
  void from_environment(Parsing& p);
  void from_file(Parsing& p);
  void from_command_line(Parsing& p, const std::vector<std::string>& args);
  void unknown(Parsing& p, std::string_view name, std::string_view where);
  std::string program_, summary_, usage_, group_, unknown_whose_;
  std::vector<Option> rows_;
  std::vector<std::string> ignored_;
  std::string file_flag_;  // "" = there is none
  std::function<Result<std::vector<FlagInFile>>(const std::string&)> read_file_;
};

}  // namespace baton
