#include "gateway/resume.h"

#include <cstring>
#include <utility>

#include "gateway/limits.h"
#include "wire/errors.h"
#include "wire/splice.h"

namespace baton::gateway {
namespace {

constexpr JsonLimits kEventJson{.bytes_max = kResumeEventBytesMax, .nodes_max = 1 << 16, .depth_max = 16};

// Behind the blank line that ends the event at `from`; npos if it is not all there.
size_t event_end(std::string_view bytes, size_t from) {
  for (size_t at = from; (at = bytes.find('\n', at)) != std::string_view::npos; ++at) {
    if (at + 1 < bytes.size() && bytes[at + 1] == '\n') return at + 2;
    if (at + 2 < bytes.size() && bytes[at + 1] == '\r' && bytes[at + 2] == '\n') return at + 3;
  }
  return std::string_view::npos;
}

size_t find(std::string_view in, std::string_view what) {
  const void* at = ::memmem(in.data(), in.size(), what.data(), what.size());
  return at == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(at) - in.data());
}

// The closing quote of the JSON string whose contents begin at `from`.
size_t closing_quote(std::string_view s, size_t from) {
  for (size_t at = from; (at = s.find('"', at)) != std::string_view::npos; ++at) {
    size_t slashes = 0;
    while (slashes < at - from && s[at - 1 - slashes] == '\\') ++slashes;
    if (slashes % 2 == 0) return at;
  }
  return std::string_view::npos;
}

bool said(const Json* value) {
  return value != nullptr && !value->is_null() && !(value->is_string() && value->text.empty()) &&
         !((value->is_array() || value->is_object()) && value->items.empty());
}

}  // namespace

struct Resume::Chunk {
  Json root;
  const Json* choice = nullptr;
  const Json* text = nullptr;  // a string
  bool role = false, finish = false, usage = false;
};

std::string_view Resume::pass(std::string_view bytes) {
  const bool untouched = leg_ == 0 && !asked_ids_;
  if (!unfit_.empty() && untouched) return bytes;
  std::string_view all = bytes;
  if (!held_.empty()) {
    joined_ = std::move(held_);
    joined_ += bytes;
    held_.clear();
    all = joined_;
  }
  out_.clear();
  size_t done = 0;
  while (!failed()) {
    const size_t end = event_end(all, done);
    if (end == std::string_view::npos || event(all.substr(done, end - done)) == Seen::kHold) break;
    done = end;
  }
  if (all.size() - done > kResumeEventBytesMax) {
    give_up("an event is too long");
    if (leg_ > 0) failure_ = cat("data: ", wire::error_json(502, "an event of the worker is too long"), "\n\n");
    if (leg_ == 0 && asked_ids_) out_ += all.substr(std::exchange(done, all.size()));
  }
  // From here on nothing is held back but to take ids out; later legs keep being rewritten, but not continued again.
  if (!unfit_.empty() && untouched) return all;
  if (!failed()) held_ = all.substr(done);
  return untouched ? all.substr(0, done) : std::string_view(out_);
}

std::string_view Resume::flush() {
  joined_ = std::move(held_);
  held_.clear();
  return joined_;
}

void Resume::give_up(std::string_view why) {
  if (unfit_.empty()) unfit_ = why;
  text_ = {}, prompt_ids_ = {}, ids_ = {}, spoken_ids_ = {};
  ids_good_ = false;
}

void Resume::note_text(std::string_view escaped) {
  if (escaped.empty() || !unfit_.empty()) return;
  // U+FFFD stands for bytes that are no text: from the text alone another worker could not tell which.
  if (escaped.find("\xEF\xBF\xBD") != escaped.npos || escaped.find("\\ufffd") != escaped.npos)
    return give_up("the answer has bytes that are no text");
  if (text_.size() + escaped.size() > kResumeTextBytesMax) return give_up("the answer is too long to be asked for again");
  text_ += escaped;
  ++text_events_;
}

Resume::Seen Resume::event(std::string_view event) {
  if (!asked_ids_) return read_event(event);
  const std::string_view shown = without_ids(event);
  const int64_t before = text_events_;
  const Seen seen = read_event(shown);
  if (seen == Seen::kHold) return seen;
  note_ids(text_events_ != before);
  if (leg_ == 0 && seen == Seen::kPass) out_ += shown;
  return seen;
}

Resume::Seen Resume::read_event(std::string_view event) {
  if (leg_ == 0 && fast_event(event)) return Seen::kPass;
  std::string_view line = event;
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  if (line.starts_with(':') || line.empty()) return leg_ == 0 ? Seen::kPass : Seen::kSkip;
  const bool plain = line.starts_with("data:") && line.find('\n') == std::string_view::npos;
  std::string_view data = plain ? line.substr(5) : "";
  while (data.starts_with(' ')) data.remove_prefix(1);
  if (data == "[DONE]") {
    complete_ = true;
    out_ += leg_ == 0 ? "" : event;
    return Seen::kPass;
  }
  return slow_event(event, data);
}

// The shape almost all events have, without reading it as JSON. A key with its quotes cannot stand inside a string, whose own
// quotes are escaped, so the first hit is the member itself.
bool Resume::fast_event(std::string_view event) {
  constexpr std::string_view kStart = "data: {", kRunning = "\"finish_reason\":null";
  const std::string_view key = api_ == Api::kChat ? "\"content\":\"" : "\"text\":\"";
  if (!event.starts_with(kStart)) return false;
  const size_t at = find(event, key);
  if (at == std::string_view::npos) return false;
  const size_t begin = at + key.size(), end = closing_quote(event, begin);
  if (end == std::string_view::npos || find(event.substr(end), kRunning) == std::string_view::npos) return false;
  if (api_ == Api::kChat && (!role_sent_ || find(event.substr(0, at), "\"delta\":{") == std::string_view::npos)) return false;
  if (first_.empty()) return false;
  note_text(event.substr(begin, end - begin));
  return true;
}

Resume::Seen Resume::slow_event(std::string_view event, std::string_view data) {
  Chunk chunk;
  auto parsed = parse_json(data, kEventJson);
  bool known = parsed && parsed->is_object();
  if (known) {
    chunk.root = *std::move(parsed);
    if (const Json* error = chunk.root.find("error"); error != nullptr && error->is_object()) {
      const Json* code = error->find("code");
      const auto status = code ? code->as_int() : std::nullopt;
      if (status.value_or(500) >= 500 && unfit_.empty()) {
        failure_ = event;
        return Seen::kHold;
      }
      known = false;
    }
  }
  const Json* choices = known ? chunk.root.find("choices") : nullptr;
  known = choices != nullptr && choices->is_array() && choices->items.size() <= 1;
  if (known && !choices->items.empty()) {
    chunk.choice = &choices->items[0];
    const Json* body = api_ == Api::kChat ? chunk.choice->find("delta") : chunk.choice;
    const Json* text = body ? body->find(api_ == Api::kChat ? "content" : "text") : nullptr;
    known = body != nullptr && body->is_object() && (text == nullptr || text->is_null() || text->is_string());
    if (text != nullptr && text->is_string()) chunk.text = text;
    for (size_t i = 0; known && api_ == Api::kChat && i < body->keys.size(); ++i) {
      if (body->keys[i] == "role")
        chunk.role = true;
      else if (body->keys[i] != "content" && said(&body->items[i]))
        known = false;  // reasoning, tool calls: more than text
    }
    chunk.finish = said(chunk.choice->find("finish_reason"));
  }
  chunk.usage = known && said(chunk.root.find("usage"));
  if (!known) {
    give_up("an event has a shape that is not known");
    out_ += leg_ == 0 ? "" : event;
    return Seen::kPass;
  }
  if (leg_ > 0) return rewrite(data, chunk);
  if (chunk.text != nullptr) note_text(data.substr(chunk.text->begin + 1, chunk.text->end - chunk.text->begin - 2));
  role_sent_ |= chunk.role, finished_ |= chunk.finish, usage_sent_ |= chunk.usage && chunk.choice == nullptr;
  if (first_.empty()) first_ = data;
  last_ = data;
  return Seen::kPass;
}

// Removes from the front what the client has been told already: white space that chat templates cut off the final message.
void Resume::swallow(std::string& text) {
  size_t n = 0;
  while (n < text.size() && n < overlap_.size() && text[n] == overlap_[n]) ++n;
  if (n < text.size() && n < overlap_.size()) overlap_.clear();  // the model goes on differently: nothing more is expected
  overlap_.erase(0, std::min(n, overlap_.size()));
  text.erase(0, n);
}

// A later leg's event as the client must see it, appended to out_.
Resume::Seen Resume::rewrite(std::string_view data, const Chunk& chunk) {
  std::string text = chunk.text != nullptr ? chunk.text->text : "";
  const bool said_before = !overlap_.empty() && !text.empty();
  if (said_before) swallow(text);
  // The role alone, or only what was said before: nothing for the client.
  if (chunk.choice != nullptr && text.empty() && !chunk.finish && (!chunk.role || role_sent_)) return Seen::kSkip;
  wire::Splice edit(data, chunk.root);
  if (!first_.empty()) {
    const auto first = parse_json(first_, kEventJson);
    for (std::string_view key : {"id", "created", "model"}) {
      if (const Json* value = first ? first->find(key) : nullptr) edit.set({key}, std::string(value->raw(first_)));
    }
  }
  if (said_before) {
    const std::string raw(chunk.choice->raw(data));
    if (const auto choice = parse_json(raw, kEventJson)) {
      wire::Splice inner(raw, *choice);
      if (api_ == Api::kChat)
        inner.set({"delta", "content"}, json_string(text));
      else
        inner.set({"text"}, json_string(text));
      edit.set({"choices"}, cat("[", inner.text(), "]"));
    }
  }
  if (chunk.usage) {
    const Json* usage = chunk.root.find("usage");
    auto shift = [&](std::string_view key, int64_t by) {
      const Json* value = usage->find(key);
      if (const auto n = value ? value->as_int() : std::nullopt) edit.set({"usage", key}, std::to_string(*n + by));
    };
    const Json* completion = usage->find("completion_tokens");
    const auto sampled = completion ? completion->as_int() : std::nullopt;
    shift("completion_tokens", sent_);
    if (prompt_tokens_ && sampled) {
      edit.set({"usage", "prompt_tokens"}, std::to_string(*prompt_tokens_));
      edit.set({"usage", "total_tokens"}, std::to_string(*prompt_tokens_ + *sampled + sent_));
    } else {
      shift("prompt_tokens", -read_back_);
    }
  }
  const std::string json = edit.text();
  out_ += cat("data: ", json, "\n\n");
  const std::string escaped = json_string(text);
  note_text(std::string_view(escaped).substr(1, escaped.size() - 2));
  role_sent_ |= chunk.role, finished_ |= chunk.finish, usage_sent_ |= chunk.usage && chunk.choice == nullptr;
  if (first_.empty()) first_ = json;
  last_ = json;
  return Seen::kPass;
}

// The answer had all its tokens and lost only its end.
std::string Resume::finish_event() const {
  const auto root = parse_json(last_, kEventJson);
  if (!root || !root->is_object()) return "";
  const std::string_view said = api_ == Api::kChat ? R"("delta":{"content":""})" : R"("text":"")";
  wire::Splice edit(last_, *root);
  edit.set({"choices"}, cat(R"([{"index":0,)", said, R"(,"logprobs":null,"finish_reason":"length","stop_reason":null}])"));
  return cat("data: ", edit.text(), "\n\n");
}

std::string Resume::usage_event(int64_t prompt) const {
  const auto root = parse_json(last_, kEventJson);
  if (!root || !root->is_object()) return "";
  wire::Splice edit(last_, *root);
  edit.set({"choices"}, "[]");
  edit.set({"usage"},
           cat(R"({"prompt_tokens":)", prompt, R"(,"total_tokens":)", prompt + sent_, R"(,"completion_tokens":)", sent_, "}"));
  return cat("data: ", edit.text(), "\n\n");
}

}  // namespace baton::gateway
