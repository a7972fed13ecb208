#include "base/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>

#include "base/json.h"

namespace baton {
namespace {

// '-' and '_' and case compare alike: --max_num_seqs, --max-num-seqs; --vllmPort and --vllm-port are given as aliases where both
// exist.
std::string normal(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '_', '-');
  return out;
}

Result<bool> parse_bool(std::string_view text) {
  for (auto word : {"true", "1", "yes", "on", "True"}) {
    if (text == word) return true;
  }
  for (auto word : {"false", "0", "no", "off", "False"}) {
    if (text == word) return false;
  }
  return fail(Code::kInvalidArgument, "wants true or false, not '", text, "'");
}

// "4k" and "2G" style suffixes are vLLM's: lower case is decimal, upper case binary.
int64_t suffix_scale(std::string_view& text) {
  if (text.empty()) return 1;
  static constexpr std::pair<char, int64_t> kScales[] = {{'k', 1000},    {'m', 1000'000}, {'g', 1000'000'000},
                                                         {'K', 1 << 10}, {'M', 1 << 20},  {'G', 1 << 30}};
  for (auto [c, scale] : kScales) {
    if (text.back() == c) return text.remove_suffix(1), scale;
  }
  return 1;
}

Result<int64_t> parse_integer(std::string_view text, int64_t min, int64_t max) {
  std::string_view digits = text;
  int64_t scale = suffix_scale(digits);
  int64_t v = 0;
  auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), v);
  if (digits.empty() || ec != std::errc() || end != digits.data() + digits.size() || __builtin_mul_overflow(v, scale, &v)) {
    return fail(Code::kInvalidArgument, "wants a whole number, not '", text, "'");
  }
  if (v < min || v > max) return fail(Code::kInvalidArgument, "wants a number from ", min, " to ", max, ", not ", v);
  return v;
}

Result<double> parse_number(std::string_view text, double min, double max) {
  double v = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (text == "inf") v = std::numeric_limits<double>::infinity(), ec = {}, end = text.data() + text.size();
  if (text.empty() || ec != std::errc() || end != text.data() + text.size() || std::isnan(v)) {
    return fail(Code::kInvalidArgument, "wants a number, not '", text, "'");
  }
  if (v < min || v > max) return fail(Code::kInvalidArgument, "wants a number from ", min, " to ", max, ", not ", v);
  return v;
}

Result<int64_t> parse_duration_ms(std::string_view text) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {{"ms", 1}, {"s", 1'000}, {"m", 60'000}, {"h", 3'600'000}};
  double total = 0;
  bool bare = true;  // nothing but a number so far
  for (std::string_view rest = text; !rest.empty();) {
    double v = 0;
    auto [end, ec] = std::from_chars(rest.data(), rest.data() + rest.size(), v, std::chars_format::fixed);
    if (ec != std::errc() || v < 0) break;
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    double scale = rest.empty() && bare ? 1 : 0;
    for (auto [unit, ms] : kUnits) {
      if (scale != 0 || !rest.starts_with(unit)) continue;
      scale = ms;
      rest.remove_prefix(unit.size());
    }
    if (scale == 0) break;
    bare = false;
    total += v * scale;
    if (rest.empty() && total <= 1e15) return std::llround(total);
  }
  return fail(Code::kInvalidArgument, "wants a duration such as 200ms, 2s or 1m30s, not '", text, "'");
}

std::string join(const std::vector<std::string>& parts, std::string_view with) {
  std::string out;
  for (const auto& part : parts) {
    if (!out.empty()) out += with;
    out += part;
  }
  return out;
}

template <class N>
Option integer_option(std::string name, N* target, std::string unit, std::string help, int64_t min, int64_t max) {
  Option o;
  o.name = std::move(name), o.unit = std::move(unit), o.help = std::move(help);
  o.get = [target] { return std::to_string(*target); };
  o.default_text = o.get();
  o.set = [target, min, max](std::string_view text) -> Result<> {
    BATON_TRY(int64_t v, parse_integer(text, min, max));
    *target = static_cast<N>(v);
    return {};
  };
  return o;
}

bool looks_like_flag(std::string_view arg) {
  if (arg.size() < 2 || arg[0] != '-') return false;
  char c = arg[1] == '-' && arg.size() > 2 ? arg[2] : arg[1];
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace

Options::Options(std::string program, std::string summary, std::string usage)
    : program_(std::move(program)), summary_(std::move(summary)), usage_(std::move(usage)) {}

Options& Options::group(std::string heading) {
  group_ = std::move(heading);
  return *this;
}

Options& Options::add(Option option) {
  BATON_CHECK(find(option.name) == nullptr);
  option.group = group_;
  rows_.push_back(std::move(option));
  return *this;
}

Options& Options::add(std::string name, bool* target, std::string help) {
  Option o;
  o.name = std::move(name), o.help = std::move(help), o.is_bool = true;
  o.get = [target] { return *target ? "true" : "false"; };
  o.default_text = o.get();
  o.set = [target](std::string_view text) -> Result<> {
    BATON_TRY(*target, parse_bool(text));
    return {};
  };
  return add(std::move(o));
}

Options& Options::add(std::string name, int* target, std::string unit, std::string help, int64_t min, int64_t max) {
  return add(integer_option(std::move(name), target, std::move(unit), std::move(help), min, max));
}

Options& Options::add(std::string name, int64_t* target, std::string unit, std::string help, int64_t min, int64_t max) {
  return add(integer_option(std::move(name), target, std::move(unit), std::move(help), min, max));
}

Options& Options::add(std::string name, double* target, std::string unit, std::string help, double min, double max) {
  Option o;
  o.name = std::move(name), o.unit = std::move(unit), o.help = std::move(help);
  o.get = [target] { return cat(*target); };
  o.default_text = o.get();
  o.set = [target, min, max](std::string_view text) -> Result<> {
    BATON_TRY(*target, parse_number(text, min, max));
    return {};
  };
  return add(std::move(o));
}

Options& Options::add(std::string name, std::string* target, std::string help, std::vector<std::string> choices) {
  Option o;
  o.name = std::move(name), o.help = std::move(help);
  o.get = [target] { return *target; };
  o.default_text = o.get();
  if (!choices.empty()) o.help += cat(" (", join(choices, ", "), ")");
  o.set = [target, choices](std::string_view text) -> Result<> {
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
      return fail(Code::kInvalidArgument, "wants one of ", join(choices, ", "), ", not '", text, "'");
    }
    *target = text;
    return {};
  };
  return add(std::move(o));
}

Options& Options::add(std::string name, std::vector<std::string>* target, std::string help) {
  Option o;
  o.name = std::move(name), o.help = std::move(help), o.is_list = true;
  o.get = [target] { return join(*target, ","); };
  o.default_text = o.get();
  o.set = [target, first = true](std::string_view text) mutable -> Result<> {
    if (first) target->clear();  // what the user says replaces the default
    first = false;
    target->emplace_back(text);
    return {};
  };
  return add(std::move(o));
}

Options& Options::add_duration(std::string name, int64_t* target_ms, std::string help) {
  Option o;
  o.name = std::move(name), o.unit = "duration", o.help = std::move(help);
  o.get = [target_ms] { return cat(*target_ms, "ms"); };
  o.default_text = o.get();
  o.set = [target_ms](std::string_view text) -> Result<> {
    BATON_TRY(*target_ms, parse_duration_ms(text));
    return {};
  };
  return add(std::move(o));
}

Options& Options::add_file(std::string name, std::string help,
                           std::function<Result<std::vector<FlagInFile>>(const std::string&)> read) {
  Option o;
  o.name = file_flag_ = std::move(name), o.help = std::move(help);
  auto path = std::make_shared<std::string>();
  o.get = [path] { return *path; };
  o.set = [path](std::string_view text) -> Result<> {
    *path = text;
    return {};
  };
  read_file_ = std::move(read);
  return add(std::move(o));
}

Options& Options::alias(std::string name) {
  rows_.back().aliases.push_back(std::move(name));
  return *this;
}

Options& Options::env(std::string variable) {
  rows_.back().env = std::move(variable);
  return *this;
}

Options& Options::ignore(std::vector<std::string> names) {
  for (auto& name : names) ignored_.push_back(normal(name));
  return *this;
}

Options& Options::unknown_is_warning(std::string whose) {
  unknown_whose_ = std::move(whose);
  return *this;
}

Option* Options::find(std::string_view name) {
  std::string wanted = normal(name);
  for (auto& row : rows_) {
    if (normal(row.name) == wanted) return &row;
    for (const auto& alias : row.aliases) {
      if (normal(alias) == wanted) return &row;
    }
  }
  return nullptr;
}

Result<ParsedArgs> Options::parse(int argc, char** argv) { return parse(std::vector<std::string>(argv + 1, argv + argc)); }

// What the command line says is found first, because it decides what counts of a file, and set last.
struct Options::Parsing {
  struct Given {
    Option* row;
    std::string value, where;
  };
  ParsedArgs out;
  std::vector<std::string> errors;
  std::vector<Given> given;
  std::vector<std::string> files;

  void set(Option& row, std::string_view value, std::string_view where) {
    if (auto r = row.set(value); !r) errors.push_back(cat(where, " ", r.error().message));
  }
  bool has(const Option* row) const {
    return std::any_of(given.begin(), given.end(), [row](const Given& g) { return g.row == row; });
  }
};

Result<ParsedArgs> Options::parse(const std::vector<std::string>& args) {
  Parsing p;
  from_command_line(p, args);
  from_environment(p);
  from_file(p);
  for (const Parsing::Given& g : p.given) p.set(*g.row, g.value, g.where);
  if (!p.errors.empty() && !p.out.help) return fail(Code::kInvalidArgument, join(p.errors, "\n"));
  return std::move(p.out);
}

void Options::from_environment(Parsing& p) {
  for (auto& row : rows_) {
    const char* value = row.env.empty() ? nullptr : std::getenv(row.env.c_str());
    if (value != nullptr && *value != '\0') p.set(row, value, cat("environment variable ", row.env));
  }
}

void Options::from_file(Parsing& p) {
  if (p.files.size() > 1) p.errors.push_back(cat("--", file_flag_, " is given more than once"));
  if (p.files.size() != 1) return;
  auto read = read_file_(p.files[0]);
  if (!read) return p.errors.push_back(cat("--", file_flag_, " ", read.error().message));
  for (const FlagInFile& flag : *read) {
    Option* row = find(flag.name);
    if (row == nullptr) {
      unknown(p, flag.name, cat(flag.where, ": "));
    } else if (normal(row->name) == normal(file_flag_)) {
      p.errors.push_back(cat(flag.where, " has no place in such a file"));
    } else if (p.has(row) || flag.values.empty()) {
      // the command line's word, or the default
    } else if (flag.values.size() > 1 && !row->is_list) {
      p.errors.push_back(cat(flag.where, " wants one value, not ", flag.values.size()));
    } else {
      for (const std::string& value : flag.values) p.set(*row, value, flag.where);
    }
  }
}

void Options::unknown(Parsing& p, std::string_view name, std::string_view where) {
  if (std::find(ignored_.begin(), ignored_.end(), normal(name)) != ignored_.end()) return;
  if (unknown_whose_.empty())
    p.errors.push_back(cat(where, "unknown flag --", name, " (", program_, " --help lists them)"));
  else
    p.out.warnings.push_back(cat(where, unknown_whose_, " flag --", name, " is not implemented here and is ignored"));
}

void Options::from_command_line(Parsing& p, const std::vector<std::string>& args) {
  for (size_t i = 0; i < args.size(); ++i) {
    std::string_view arg = args[i];
    if (arg == "--") {
      p.out.positional.insert(p.out.positional.end(), args.begin() + static_cast<ptrdiff_t>(i) + 1, args.end());
      break;
    }
    if (arg == "-h") arg = "--help";
    if (!looks_like_flag(arg)) {
      p.out.positional.emplace_back(arg);
      continue;
    }
    arg.remove_prefix(arg[1] == '-' ? 2 : 1);
    size_t eq = arg.find('=');
    std::string_view name = arg.substr(0, eq);
    std::optional<std::string_view> value = eq == std::string_view::npos ? std::nullopt : std::optional(arg.substr(eq + 1));
    if (name == "help" || name == "version" || normal(name) == "print-config") {
      (name == "help" ? p.out.help : name == "version" ? p.out.version : p.out.print_config) = true;
      continue;
    }
    const std::string where = cat("--", name);
    Option* row = find(name);
    if (row == nullptr && name.starts_with("no-")) {
      row = find(name.substr(3));
      if (row != nullptr && row->is_bool && !value) {
        p.given.push_back({row, "false", where});
        continue;
      }
      row = nullptr;
    }
    auto next_is_value = [&] { return i + 1 < args.size() && !looks_like_flag(args[i + 1]) && args[i + 1] != "--"; };
    if (row == nullptr) {
      unknown(p, name, "");
      // its value, if it has one, is not a positional argument; positionals come before flags
      if (!value && next_is_value()) ++i;
      continue;
    }
    if (row->is_bool && !value) {
      p.given.push_back({row, "true", where});
      continue;
    }
    if (!value && (i + 1 >= args.size() || args[i + 1] == "--")) {
      p.errors.push_back(cat(where, " wants a value"));
      continue;
    }
    const bool several = !value && row->is_list;
    p.given.push_back({row, std::string(value ? *value : args[++i]), where});
    while (several && next_is_value()) p.given.push_back({row, args[++i], where});
    if (!file_flag_.empty() && row == find(file_flag_)) p.files.push_back(p.given.back().value);
  }
}

std::string Options::help_text() const {
  std::string out = cat(program_, ": ", summary_, "\n\nusage: ", usage_, "\n");
  std::string heading = "\n";  // differs from any group
  for (const auto& row : rows_) {
    if (row.group != heading) out += cat("\n", row.group.empty() ? "options" : row.group, ":\n");
    heading = row.group;
    std::string left = cat("  --", row.name);
    if (!row.is_bool) left += cat(" <", row.unit.empty() ? "value" : row.unit, ">");
    out += left;
    if (left.size() >= 38) out += "\n", left.clear();
    out.append(38 - left.size(), ' ');
    // wrap the help at 118 columns under its own start
    std::string text = row.help;
    if (!row.default_text.empty() && !(row.is_bool && row.default_text == "false")) text += cat(" [", row.default_text, "]");
    if (!row.env.empty()) text += cat(" (env ", row.env, ")");
    size_t column = 38;
    for (size_t i = 0; i < text.size();) {
      size_t space = std::min(text.find(' ', i), text.size());
      if (column + (space - i) > 118) out += "\n" + std::string(38, ' '), column = 38;
      out.append(text, i, space - i);
      column += space - i + 1;
      if (space < text.size()) out += ' ';
      i = space + 1;
    }
    out += '\n';
  }
  out += "\n  --help, --version, --print-config     this text; the version; the configuration in force, and stop\n";
  return out;
}

std::string Options::config_text() const {
  std::string out;
  for (const auto& row : rows_) {
    std::string v = row.get ? row.get() : "";
    bool plain = !v.empty() && v.find_first_of(" :#{}[],&*!|>'\"%@`\n") == std::string::npos;
    out += cat(row.name, ": ", plain ? v : json_string(v), row.unit.empty() ? "" : cat("  # ", row.unit), "\n");
  }
  return out;
}

std::string Options::markdown() const {
  auto cell = [](std::string s) {
    for (size_t i = 0; (i = s.find('|', i)) != std::string::npos; i += 2) s.insert(i, "\\");
    return s;
  };
  std::string out = cat("## ", program_, "\n\n", summary_, ".\n\n`", usage_, "`\n");
  std::string heading = "\n";
  for (const auto& row : rows_) {
    if (row.group != heading) {
      out += cat("\n### ", row.group.empty() ? "Options" : row.group,
                 "\n\n| flag | default | unit | what it does |\n|---|---|---|---|\n");
      heading = row.group;
    }
    std::string names = cat("`--", row.name, "`");
    for (const auto& alias : row.aliases) names += cat(" `--", alias, "`");
    std::string help = row.help;
    if (!row.env.empty()) help += cat(" Environment: `", row.env, "`.");
    out += cat("| ", names, " | ", row.default_text.empty() ? "" : cell(cat("`", row.default_text, "`")), " | ",
               row.is_bool ? "bool" : row.unit, " | ", cell(help), " |\n");
  }
  return out;
}

}  // namespace baton
