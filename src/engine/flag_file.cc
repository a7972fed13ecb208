#include "engine/flag_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/file.h"
#include "base/json.h"
#include "engine/limits.h"

namespace baton::engine {
namespace {

// "true", "True" and "TRUE" are one word to YAML, "tRUE" is none.
bool is_word(std::string_view text, std::initializer_list<std::string_view> words) {
  std::string lower(text.substr(0, 8));
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const bool capital = !text.empty() && std::isupper(static_cast<unsigned char>(text[0]));
  const auto upper = [](char c) { return std::isupper(static_cast<unsigned char>(c)) != 0; };
  const bool rest_upper = text.size() > 1 && std::all_of(text.begin() + 1, text.end(), upper);
  const bool rest_lower = text.empty() || std::none_of(text.begin() + 1, text.end(), upper);
  if (!rest_lower && !(capital && rest_upper)) return false;
  return std::find(words.begin(), words.end(), std::string_view(lower)) != words.end() && lower.size() == text.size();
}

// A plain word's whole number in decimal; nullopt if it is none. Beyond 64 bits it stays the text it is.
std::optional<std::string> whole_number(std::string_view text) {
  std::string digits;
  const bool minus = text.starts_with('-');
  if (minus || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || !std::isdigit(static_cast<unsigned char>(text[0]))) return std::nullopt;
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0b")) {
    base = text[1] == 'x' ? 16 : 2;
    text.remove_prefix(2);
  } else if (text.size() > 1 && text[0] == '0') {
    base = 8;
  }
  for (const char c : text) {
    if (c != '_') digits += c;
  }
  uint64_t value = 0;
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (problem != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return cat(minus ? "-" : "", value);
}

// A plain word's fraction, which to YAML has a point: "1.5", ".5", "1.e+3"; not "1e3".
std::optional<std::string> fraction(std::string_view text) {
  if (text.find('.') == std::string_view::npos || text.size() > 64) return std::nullopt;
  std::string digits;
  for (const char c : text.substr(text.starts_with('+') ? 1 : 0)) {
    if (c != '_') digits += c;
  }
  double value = 0;
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool number = problem == std::errc{} && end == digits.data() + digits.size() && std::isfinite(value);
  return number ? std::optional(cat(value)) : std::nullopt;
}

class FlagReader {
 public:
  explicit FlagReader(std::string_view name) : name_(name) {}

  Result<std::vector<FlagInFile>> flags(const YAML::Node& root) {
    std::vector<FlagInFile> out;
    if (root.IsNull()) return out;  // an empty file
    if (!root.IsMap()) return wrong(root, "", "wants a map of flags to values");
    for (const auto& entry : root) {
      if (!entry.first.IsScalar()) return wrong(entry.first, "", "a flag's name must be a text");
      FlagInFile flag{.name = entry.first.Scalar(), .values = {}, .where = at(entry.first, entry.first.Scalar())};
      if (flag.name.empty() || flag.name.starts_with('-'))
        return wrong(entry.first, flag.name, "is no flag's name: write it without dashes");
      BATON_TRY(flag.values, values(entry.second, flag.name));
      std::erase_if(out, [&](const FlagInFile& earlier) { return earlier.name == flag.name; });
      out.push_back(std::move(flag));
    }
    return out;
  }

 private:
  std::string at(const YAML::Node& node, std::string_view key) const {
    return cat(name_, " line ", node.Mark().line + 1, key.empty() ? "" : ": ", key);
  }
  std::unexpected<Error> wrong(const YAML::Node& node, std::string_view key, std::string_view what) const {
    return fail(Code::kInvalidArgument, at(node, key), key.empty() ? ": " : " ", what);
  }

  Result<std::vector<std::string>> values(const YAML::Node& node, std::string_view key) {
    std::vector<std::string> out;
    if (!node.IsSequence()) {
      BATON_TRY(std::optional<std::string> one, value(node, key));
      if (one) out.push_back(*std::move(one));
      return out;
    }
    for (const YAML::Node& item : node) {
      BATON_TRY(std::optional<std::string> one, value(item, key));
      if (!one) return wrong(item, key, "has a value that is null");
      out.push_back(*std::move(one));
    }
    return out;
  }

  // A value as the command line has it; nullopt for null.
  Result<std::optional<std::string>> value(const YAML::Node& node, std::string_view key) {
    if (node.IsScalar() && !plain(node)) return node.Scalar();
    JsonWriter w;
    BATON_OK(write(w, node, key, 0));
    std::string json = w.take();
    if (json == "null") return std::nullopt;
    return node.IsScalar() && json.starts_with('"') ? node.Scalar() : json;
  }

  static bool plain(const YAML::Node& node) { return node.Tag() == "?" || node.Tag().empty(); }

  Result<> write(JsonWriter& w, const YAML::Node& node, std::string_view key, int depth) {
    if (++nodes_ > kFlagFileNodesMax) return wrong(node, key, cat("has more than ", kFlagFileNodesMax, " values before it"));
    if (depth > kFlagFileDepthMax) return wrong(node, key, cat("is nested deeper than ", kFlagFileDepthMax));
    if (node.IsMap()) {
      w.object();
      for (const auto& entry : node) {
        if (!entry.first.IsScalar()) return wrong(entry.first, key, "has a name in it that is no text");
        w.key(entry.first.Scalar());
        BATON_OK(write(w, entry.second, key, depth + 1));
      }
      w.end();
    } else if (node.IsSequence()) {
      w.array();
      for (const YAML::Node& item : node) BATON_OK(write(w, item, key, depth + 1));
      w.end();
    } else {
      write_word(w, node);
    }
    return {};
  }

  static void write_word(JsonWriter& w, const YAML::Node& node) {
    const std::string text = node.IsScalar() ? node.Scalar() : std::string();
    if (node.IsScalar() && !plain(node))
      w.value(text);
    else if (text.empty() || text == "~" || is_word(text, {"null"}))
      w.null();
    else if (is_word(text, {"true", "yes", "on"}))
      w.value(true);
    else if (is_word(text, {"false", "no", "off"}))
      w.value(false);
    else if (const auto whole = whole_number(text))
      w.raw(*whole);
    else if (const auto broken = fraction(text))
      w.raw(*broken);
    else
      w.value(text);
  }

  std::string_view name_;
  size_t nodes_ = 0;
};

}  // namespace

Result<std::vector<FlagInFile>> parse_flag_file(std::string_view text, std::string_view name) {
  if (!valid_utf8(text)) return fail(Code::kInvalidArgument, name, " is not UTF-8");
  if (text.find('\0') != std::string_view::npos) return fail(Code::kInvalidArgument, name, " has a zero byte in it");
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1)
      return fail(Code::kInvalidArgument, name, " line ", documents[1].Mark().line + 1, ": a second document");
    return documents.empty() ? std::vector<FlagInFile>() : FlagReader(name).flags(documents[0]);
  } catch (const YAML::Exception& e) {
    return fail(Code::kInvalidArgument, name, " line ", e.mark.line + 1, ": ", e.msg);
  } catch (const std::exception& e) {
    return fail(Code::kInvalidArgument, name, " is not YAML: ", e.what());
  }
}

Result<std::vector<FlagInFile>> read_flag_file(const std::string& path) {
  const std::string_view kind = std::string_view(path).substr(path.rfind('.') + 1);
  if (kind != "yaml" && kind != "yml") return fail(Code::kInvalidArgument, "wants a file of yaml/yml type, not ", path);
  BATON_TRY(const std::string text, read_file(path, kFlagFileBytesMax));
  return parse_flag_file(text, path);
}

}  // namespace baton::engine
