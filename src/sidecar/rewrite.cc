#include "sidecar/rewrite.h"

#include <utility>

#include "base/json.h"
#include "sidecar/limits.h"
#include "wire/splice.h"

namespace baton::sidecar {

std::string rewrite_json(std::string body, std::optional<int64_t> cached_tokens) {
  auto root = parse_json(body);
  if (!root || !root->is_object()) return body;
  wire::Splice edit(body, *root);
  bool any = false;
  if (const Json* usage = root->find("usage"); cached_tokens && usage && usage->is_object()) {
    edit.set({"usage", "prompt_tokens_details", "cached_tokens"}, std::to_string(*cached_tokens));
    any = true;
  }
  if (const Json* params = root->find("kv_transfer_params"); params && !params->is_null()) {
    edit.set({"kv_transfer_params"}, "null");
    any = true;
  }
  return any ? edit.text() : body;
}

std::string StreamRewriter::feed(std::string bytes) {
  if (passing_) {
    size_t newline = bytes.find('\n');
    if (newline == std::string::npos) return bytes;
    passing_ = false;
    return bytes.substr(0, newline + 1) + feed(bytes.substr(newline + 1));
  }
  size_t complete = bytes.rfind('\n') + 1;  // npos + 1 = 0: no line ends here
  std::string tail = bytes.substr(complete);
  bytes.resize(complete);
  std::string out;
  if (complete > 0) {
    out = held_.empty() ? std::move(bytes) : held_ + bytes;
    held_.clear();
    bool touched = out.find("\"usage\"") != std::string::npos || out.find("\"kv_transfer_params\"") != std::string::npos;
    if (touched) out = rewrite_lines(out);
  }
  held_ += tail;
  if (held_.size() > kHeldLineBytesMax) {
    passing_ = true;
    out += std::exchange(held_, {});
  }
  return out;
}

std::string StreamRewriter::rewrite_lines(std::string_view lines) const {
  std::string out;
  while (!lines.empty()) {
    std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(line.size() + 1);
    size_t start = line.starts_with("data:") ? line.find('{') : std::string_view::npos;
    if (start == std::string_view::npos) {
      out += line;
    } else {
      // A CR before the LF is space to JSON, so it stays where it is.
      out += line.substr(0, start);
      out += rewrite_json(std::string(line.substr(start)), cached_tokens_);
    }
    out += '\n';
  }
  return out;
}

std::string StreamRewriter::finish() { return std::exchange(held_, {}); }

}  // namespace baton::sidecar
