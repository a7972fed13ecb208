#include "text/harmony_messages.h"

#include <algorithm>
#include <string>
#include <utility>

namespace baton::text {
namespace {

std::string text_of(const Json& message, std::string_view key) {
  const Json* value = message.find(key);
  return value && value->is_string() ? value->text : std::string();
}

void erase(Json& object, std::string_view key) {
  for (size_t i = 0; i < object.keys.size(); ++i) {
    if (object.keys[i] != key) continue;
    object.keys.erase(object.keys.begin() + static_cast<std::ptrdiff_t>(i));
    object.items.erase(object.items.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

void set_text(Json& object, std::string_view key, std::string text) {
  Json value;
  value.kind = Json::Kind::kString;
  value.text = std::move(text);
  object.set(key, std::move(value));
}

bool has_role(const Json& message, std::string_view role) { return text_of(message, "role") == role; }

// What it thought has three names.
void settle_thinking(Json& message) {
  std::string thinking = text_of(message, "thinking");
  for (const std::string_view key : {"reasoning", "reasoning_content"}) {
    if (thinking.empty()) thinking = text_of(message, key);
  }
  erase(message, "thinking");
  if (!thinking.empty()) set_text(message, "thinking", std::move(thinking));
}

// The message with one of its calls; the first keeps what else it has.
Json with_call(const Json& message, const Json& call, bool first) {
  Json out = message;
  Json calls;
  calls.kind = Json::Kind::kArray;
  calls.items = {call};
  out.set("tool_calls", std::move(calls));
  if (first) return out;
  set_text(out, "content", "");
  erase(out, "thinking");
  return out;
}

}  // namespace

std::vector<Json> harmony_messages(std::vector<Json> messages) {
  std::vector<Json> out;
  for (size_t i = 0; i < messages.size(); ++i) {
    Json& message = messages[i];
    if (!message.is_object() || !has_role(message, "assistant")) {
      out.push_back(std::move(message));
      continue;
    }
    settle_thinking(message);
    const Json* found = message.find("tool_calls");
    if (!found || !found->is_array() || found->items.empty()) {
      erase(message, "tool_calls");
      out.push_back(std::move(message));
      continue;
    }
    const std::string thinking = text_of(message, "thinking"), content = text_of(message, "content");
    if (!thinking.empty() && !content.empty()) {
      set_text(message, "thinking", thinking + "\n" + content);
      set_text(message, "content", "");
    }
    const std::vector<Json> calls = message.find("tool_calls")->items;
    // The results that follow, each behind its call; those that name none of the calls behind the last.
    const size_t behind = i + 1;
    size_t end = behind;
    while (end < messages.size() && messages[end].is_object() && has_role(messages[end], "tool")) ++end;
    std::vector<bool> placed(end - behind);
    for (size_t k = 0; k < calls.size(); ++k) {
      out.push_back(with_call(message, calls[k], k == 0));
      const std::string id = text_of(calls[k], "id");
      for (size_t t = behind; t < end; ++t) {
        const bool mine =
            !placed[t - behind] && (k + 1 == calls.size() || (!id.empty() && text_of(messages[t], "tool_call_id") == id));
        if (!mine) continue;
        placed[t - behind] = true;
        out.push_back(messages[t]);
      }
    }
    i = end - 1;
  }
  return out;
}

}  // namespace baton::text
