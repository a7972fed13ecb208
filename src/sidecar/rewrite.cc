#include "sidecar/rewrite.h"

#include <cstring>
#include <utility>

#include "base/json_outline.h"
#include "sidecar/limits.h"
#include "wire/splice.h"

namespace baton::sidecar {

namespace {

// The objects of an answer that may hold usage and kv_transfer_params: the answer, or inside of a stream's event.
std::vector<wire::Splice::Path> containers(Api api) {
  if (api == Api::kMessages) return {{}, {"message"}};
  if (api == Api::kResponses) return {{}, {"response"}};
  return {{}};
}

wire::Splice::Path cached_tokens_path(Api api) {
  if (api == Api::kMessages) return {"usage", "cache_read_input_tokens"};
  if (api == Api::kResponses) return {"usage", "input_tokens_details", "cached_tokens"};
  return {"usage", "prompt_tokens_details", "cached_tokens"};
}

}  // namespace

std::string rewrite_json(std::string body, const Rewrite& what) {
  auto root = outline_json(body, {.depth = 4});  // as deep as the longest path below
  if (!root || !root->is_object()) return body;
  wire::Splice edit(body, *root);
  bool any = false;
  for (wire::Splice::Path path : containers(what.api)) {
    const Json* at = path.empty() ? &*root : root->find(path[0]);
    if (!at || !at->is_object()) continue;
    if (const Json* usage = at->find("usage"); what.cached_tokens && usage && usage->is_object()) {
      wire::Splice::Path cached = path;
      for (std::string_view key : cached_tokens_path(what.api)) cached.push_back(key);
      edit.set(std::move(cached), std::to_string(*what.cached_tokens));
      any = true;
    }
    if (const Json* params = at->find(kKvParams); what.hide_kv_params && params && !params->is_null()) {
      path.push_back(kKvParams);
      edit.set(std::move(path), "null");
      any = true;
    }
  }
  return any ? edit.text() : body;
}

bool StreamRewriter::concerned(std::string_view lines) const {
  auto has = [&](std::string_view key) { return memmem(lines.data(), lines.size(), key.data(), key.size()) != nullptr; };
  return (what_.cached_tokens && has("\"usage\"")) || (what_.hide_kv_params && has("\"kv_transfer_params\""));
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
    if (concerned(out)) out = rewrite_lines(out);
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
      out += rewrite_json(std::string(line.substr(start)), what_);
    }
    out += '\n';
  }
  return out;
}

std::string StreamRewriter::finish() { return std::exchange(held_, {}); }

}  // namespace baton::sidecar
