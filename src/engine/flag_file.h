#pragma once
// --config FILE, as vLLM has it: a YAML map of flags to values. A truth is a switch, a list several values, a map one value in
// JSON, null the flag's default; of a key given twice the last counts. Words are read as YAML 1.1 has them, as PyYAML does: yes
// and off are truths, 131_072 and 0x20000 numbers. Guarantees: errors name the file, the line and, where there is one, the key.
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"

namespace baton::engine {

Result<std::vector<FlagInFile>> read_flag_file(const std::string& path);  // *.yaml or *.yml
Result<std::vector<FlagInFile>> parse_flag_file(std::string_view text, std::string_view name);

}  // namespace baton::engine
