#include "wire/chat_body.h"

#include <algorithm>

#include "wire/errors.h"

namespace baton::wire {

std::string text_member(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value ? std::string(value->as_string().value_or("")) : "";
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \n\t\r") == std::string_view::npos; }

std::string_view raw_member(const Json& object, std::string_view source, std::string_view key) {
  const Json* value = object.find(key);
  return value && !value->is_null() ? value->raw(source) : std::string_view();
}

void copy_members(JsonWriter& w, const Json& from, std::string_view source,
                  std::initializer_list<std::pair<std::string_view, std::string_view>> from_to) {
  for (const auto& [key, as] : from_to) {
    if (const std::string_view raw = raw_member(from, source, key); !raw.empty()) w.key(as).raw(raw);
  }
}

Result<std::string> content_text(const Json& content, std::string_view where) {
  if (content.is_null()) return std::string();
  if (content.is_string()) return content.text;
  if (!content.is_array()) return refuse(At{where}, "Input should be a valid string or list");
  std::string out;
  for (const Json& part : content.items) {
    if (part.is_string()) {
      out += part.text;
      continue;
    }
    const Json* type = part.find("type");
    std::string_view name = type ? type->as_string().value_or("") : "";
    if (name.empty()) return refuse(At{where}, "each part needs a 'type'");
    if (name == "refusal" || name == "text" || name == "input_text" || name == "output_text") {
      const Json* text = part.find(name == "refusal" ? "refusal" : "text");
      if (!text || !text->is_string()) return refuse(At{where}, "a part of type '", name, "' needs its text");
      out += text->text;
      continue;
    }
    if (name.starts_with("input_")) name.remove_prefix(6);
    return fail(Code::kInvalidArgument, "At most 0 ", name.substr(0, name.find('_')),
                "(s) may be provided in one prompt: the model takes text only.");
  }
  return out;
}

void AssistantMessage::call(std::string_view id, std::string_view name, std::string_view arguments) {
  JsonWriter w;
  w.object().field("id", id).field("type", "function").key("function").object();
  w.field("name", name).field("arguments", arguments).end().end();
  calls_ += cat(calls_.empty() ? "" : ",", w.text());
}

std::string AssistantMessage::take() {
  JsonWriter w;
  w.object().field("role", "assistant").key("content");
  if (has_text_)
    w.value(text_);
  else
    w.null();
  // Templates know it under one name or the other.
  if (!reasoning_.empty()) w.field("reasoning_content", reasoning_).field("reasoning", reasoning_);
  if (!calls_.empty()) w.key("tool_calls").raw(cat("[", calls_, "]"));
  w.end();
  *this = {};
  return w.take();
}

void write_function_tool(JsonWriter& w, std::string_view name, std::string_view description, std::string_view parameters) {
  w.object().field("type", "function").key("function").object().field("name", name);
  if (!description.empty()) w.key("description").raw(description);
  if (!parameters.empty()) w.key("parameters").raw(parameters);
  w.end().end();
}

void write_named_choice(JsonWriter& w, std::string_view name) {
  w.object().field("type", "function").key("function").object().field("name", name).end().end();
}

}  // namespace baton::wire
