#include "text/chat_prompt.h"

#include <cctype>
#include <optional>
#include <utility>

#include "text/harmony_messages.h"

namespace baton::text {
namespace {

Json make_string(std::string_view s) {
  Json j;
  j.kind = Json::Kind::kString;
  j.text = s;
  return j;
}

Json make_bool(bool b) {
  Json j;
  j.kind = Json::Kind::kBool;
  j.boolean = b;
  return j;
}

Json make_list(std::vector<Json> items) {
  Json j;
  j.kind = Json::Kind::kArray;
  j.items = std::move(items);
  return j;
}

std::string part_text(const Json& part) {
  if (part.is_string()) return part.text;
  for (std::string_view key : {"text", "refusal", "thinking"}) {
    if (const Json* text = part.find(key); text && text->is_string()) return text->text;
  }
  return {};
}

std::string joined_text(const Json* content) {
  if (!content || content->is_null()) return {};
  if (content->is_string()) return content->text;
  std::string out;
  for (size_t i = 0; i < content->items.size(); ++i) out += (i ? "\n" : "") + part_text(content->items[i]);
  return out;
}

// The message as this template reads it: content as one string, or as a list of parts. Arguments of past tool calls come as JSON
// in a string; templates expect the object.
Json template_message(const Json& message, bool wants_parts) {
  Json out = message;
  const Json* content = message.find("content");
  if (!wants_parts) {
    out.set("content", make_string(joined_text(content)));
  } else {
    std::vector<Json> parts;
    const auto add = [&](const std::string& text) {
      Json part;
      part.set("type", make_string("text"));
      part.set("text", make_string(text));
      parts.push_back(std::move(part));
    };
    if (content && content->is_string()) add(content->text);
    for (size_t i = 0; content && content->is_array() && i < content->items.size(); ++i) add(part_text(content->items[i]));
    out.set("content", make_list(std::move(parts)));
  }
  // What it thought has two names; a template reads one of them.
  for (const auto& [have, lack] : {std::pair{"reasoning", "reasoning_content"}, std::pair{"reasoning_content", "reasoning"}}) {
    if (const Json* thought = out.find(have); thought && !out.find(lack)) out.set(lack, Json(*thought));
  }
  for (size_t i = 0; i < out.keys.size(); ++i) {
    if (out.keys[i] != "tool_calls" || !out.items[i].is_array()) continue;
    for (Json& call : out.items[i].items) {
      for (size_t f = 0; f < call.keys.size(); ++f) {
        if (call.keys[f] != "function" || !call.items[f].is_object()) continue;
        const Json* arguments = call.items[f].find("arguments");
        if (!arguments || !arguments->is_string()) continue;
        if (auto parsed = parse_json(arguments->text)) call.items[f].set("arguments", std::move(*parsed));
      }
    }
  }
  return out;
}

}  // namespace

Result<std::string> render_chat(const ChatTemplate* model_template, const Tokenizer& tokenizer, const ChatPrompt& r) {
  std::optional<ChatTemplate> own;
  if (!r.chat_template.empty()) {
    BATON_TRY(own, ChatTemplate::compile(r.chat_template));
  }
  const ChatTemplate* chat_template = own ? &*own : model_template;
  if (!chat_template) {
    return fail(
        Code::kInvalidArgument,
        "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template if the "
        "tokenizer does not define one.");
  }
  std::vector<Json> messages;
  for (const Json& message : r.messages) messages.push_back(template_message(message, chat_template->wants_content_parts()));
  if (chat_template->harmony()) messages = harmony_messages(std::move(messages));
  Json variables;
  variables.set("messages", make_list(std::move(messages)));
  variables.set("tools", r.tools);
  if (!r.documents.is_null()) variables.set("documents", r.documents);
  variables.set("add_generation_prompt", make_bool(r.add_generation_prompt));
  variables.set("bos_token", make_string(tokenizer.bos_text()));
  variables.set("eos_token", make_string(tokenizer.eos_text()));
  for (size_t i = 0; i < r.template_kwargs.keys.size(); ++i)
    variables.set(r.template_kwargs.keys[i], r.template_kwargs.items[i]);
  BATON_TRY(std::string text, chat_template->render(variables));
  if (!r.continue_final_message) return text;

  // Hugging Face's rule: cut the rendered text after the last occurrence of the final message's content.
  std::string last = joined_text(r.messages.back().find("content"));
  while (!last.empty() && std::isspace(static_cast<unsigned char>(last.back()))) last.pop_back();
  const size_t at = text.rfind(last);
  if (last.empty() || at == std::string::npos) {
    return fail(Code::kInvalidArgument,
                "continue_final_message is set but the final message does not appear in the chat after applying "
                "the chat template!");
  }
  return text.substr(0, at + last.size());
}

}  // namespace baton::text
