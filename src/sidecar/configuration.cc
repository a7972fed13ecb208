#include "sidecar/configuration.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "base/file.h"
#include "sidecar/limits.h"

namespace baton::sidecar {
namespace {

std::string normal(std::string_view name) {
  std::string out(name);
  std::ranges::replace(out, '_', '-');
  return out;
}

// "--port=1", "-port", "--no-x": the name that was meant.
std::string name_of(std::string_view arg) {
  if (!arg.starts_with('-') || arg.size() < 2) return "";
  arg.remove_prefix(arg.starts_with("--") ? 2 : 1);
  return normal(arg.substr(0, arg.find('=')));
}

const Option* find_row(const Options& options, const std::string& name) {
  for (const Option& row : options.rows()) {
    if (normal(row.name) == name || std::ranges::any_of(row.aliases, [&](const auto& a) { return normal(a) == name; }))
      return &row;
  }
  return nullptr;
}

const Option* row_of(const Options& options, std::string_view arg) {
  std::string name = name_of(arg);
  const Option* row = find_row(options, name);
  if (!row && name.starts_with("no-")) row = find_row(options, name.substr(3));
  return row;
}

// Takes --name VALUE or --name=VALUE out of args.
std::optional<std::string> take(std::vector<std::string>& args, std::string_view name) {
  for (size_t i = 0; i < args.size() && args[i] != "--"; ++i) {
    if (name_of(args[i]) != name) continue;
    size_t eq = args[i].find('=');
    bool apart = eq == std::string::npos && i + 1 < args.size();
    std::string value = eq != std::string::npos ? args[i].substr(eq + 1) : apart ? args[i + 1] : "";
    args.erase(args.begin() + static_cast<ptrdiff_t>(i), args.begin() + static_cast<ptrdiff_t>(i + (apart ? 2 : 1)));
    return value;
  }
  return std::nullopt;
}

struct Line {
  std::vector<std::string> args;
  std::vector<std::string> errors;
  void wrong(const Error& error) { errors.push_back(error.message); }
};

// The command line with the YAML's flags before its own.
Line expand(std::vector<std::string> args, const Options& options) {
  Line line;
  auto inline_text = take(args, "configuration"), path = take(args, "configuration-file");
  if (inline_text && path) line.errors.emplace_back("--configuration and --configuration-file exclude each other");
  std::string text = inline_text.value_or("");
  if (path && !path->empty()) {
    auto read = read_file(*path, kConfigurationBytesMax);
    if (read) text = std::move(*read);
    if (!read) line.errors.push_back(cat("--configuration-file: ", read.error().message));
  }
  auto flags = flags_of_yaml(text);
  if (!flags) line.wrong(flags.error());
  for (std::string& flag : flags.value_or(std::vector<std::string>())) {
    const Option* row = find_row(options, name_of(flag));
    if (!row) {
      line.errors.push_back(cat("configuration: unknown key ", name_of(flag)));
    } else if (std::ranges::none_of(args, [&](const auto& arg) { return row_of(options, arg) == row; })) {
      line.args.push_back(std::move(flag));
    }
  }
  line.args.insert(line.args.end(), args.begin(), args.end());
  return line;
}

}  // namespace

Result<std::vector<std::string>> flags_of_yaml(std::string_view text) {
  std::vector<std::string> flags;
  try {
    YAML::Node root = YAML::Load(std::string(text));
    if (root.IsNull() || !root.IsDefined()) return flags;
    if (!root.IsMap()) return fail(Code::kInvalidArgument, "configuration: wants a map of flag names");
    for (const auto& item : root) {
      if (!item.first.IsScalar()) return fail(Code::kInvalidArgument, "configuration: a key is no name");
      std::string name = item.first.Scalar();
      bool plain = !name.empty() && name.find_first_of("= \n") == std::string::npos;
      if (!plain) return fail(Code::kInvalidArgument, "configuration: unknown key ", name);
      if (item.second.IsNull()) continue;  // "key:" says nothing
      if (item.second.IsScalar()) flags.push_back(cat("--", name, '=', item.second.Scalar()));
      for (size_t i = 0; item.second.IsSequence() && i < item.second.size(); ++i) {
        if (!item.second[i].IsScalar()) return fail(Code::kInvalidArgument, "configuration: ", name, " wants a list of texts");
        flags.push_back(cat("--", name, '=', item.second[i].Scalar()));
      }
      if (item.second.IsMap()) return fail(Code::kInvalidArgument, "configuration: ", name, " wants a value, not a map");
    }
  } catch (const YAML::Exception& error) {
    return fail(Code::kInvalidArgument, "configuration: ", error.what());
  }
  return flags;
}

Result<ParsedArgs> parse_command_line(const std::vector<std::string>& args, Options& options, const SidecarConfig& config) {
  Line line = expand(args, options);
  auto parsed = options.parse(line.args);
  if (!parsed) line.wrong(parsed.error());
  bool only_asks = parsed && (parsed->help || parsed->version);
  if (auto fits = config.check(); !fits && !only_asks) line.wrong(fits.error());
  std::string all;
  for (const auto& error : line.errors) all += cat(all.empty() ? "" : "\n", error);
  if (!all.empty() && !only_asks) return fail(Code::kInvalidArgument, all);
  return parsed;
}

}  // namespace baton::sidecar
