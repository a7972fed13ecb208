#pragma once
// The command line, with --configuration (YAML text) or --configuration-file (its path) put into it: a map whose keys are names
// of flags. A flag on the command line, under any of its names, beats the YAML; the YAML beats environment and defaults. Keys
// that are no flag are errors. parse_command_line() reports what is wrong with YAML, flags and their combination all together.
// Source: facts sheet "kv_transfer" 1.2.
#include <string>
#include <vector>

#include "sidecar/config.h"

namespace baton::sidecar {

// args without the program's name; `options` are those of `config`.
Result<ParsedArgs> parse_command_line(const std::vector<std::string>& args, Options& options, const SidecarConfig& config);

// One map of YAML as flags: {"--port=8000"}; a list gives one flag an element. Names are not checked here.
Result<std::vector<std::string>> flags_of_yaml(std::string_view text);

}  // namespace baton::sidecar
