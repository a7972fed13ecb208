// What another worker is asked when a stream has lost its own.
#include <algorithm>
#include <span>

#include "gateway/limits.h"
#include "gateway/resume.h"
#include "wire/limits.h"
#include "wire/openai_response.h"
#include "wire/splice.h"

namespace baton::gateway {
namespace {

bool given(const Json& body, std::string_view key) {
  const Json* value = body.find(key);
  if (value == nullptr || value->is_null()) return false;
  if (value->is_bool()) return value->boolean;
  if (value->is_number()) return value->as_double() != 0.0;
  if (value->is_string()) return !value->text.empty();
  return !value->items.empty();
}

int64_t integer(const Json& body, std::string_view key, int64_t otherwise) {
  const Json* value = body.find(key);
  return value == nullptr ? otherwise : value->as_int().value_or(otherwise);
}

// Why a request cannot be continued from its text alone; "" = it can.
std::string_view unfit(const Json& body, bool chat) {
  if (!body.is_object()) return "the request is no object";
  if (integer(body, "n", 1) != 1 || integer(body, "best_of", 1) != 1 || given(body, "use_beam_search")) return "several choices";
  for (std::string_view key : {"logprobs", "top_logprobs", "prompt_logprobs"}) {
    if (given(body, key) || (key == "logprobs" && body.find(key) && body.find(key)->is_number())) return "log probabilities";
  }
  for (std::string_view key : {"echo", "suffix", "prompt_embeds", "truncate_prompt_tokens", "return_token_ids"}) {
    if (given(body, key)) return "a prompt that cannot be made longer";
  }
  const Json* choice = body.find("tool_choice");
  const bool no_tools = choice != nullptr && choice->is_string() && choice->text == "none";
  if ((given(body, "tools") && !no_tools) || given(body, "functions")) return "tools";
  if (const Json* format = body.find("response_format"); format != nullptr && format->is_object()) {
    const Json* type = format->find("type");
    if (type == nullptr || !type->is_string() || type->text != "text") return "structured output";
  }
  for (std::string_view key : {"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}) {
    if (given(body, key)) return "structured output";
  }
  for (std::string_view key : {"frequency_penalty", "presence_penalty", "bad_words", "logits_processors", "repetition_detection"}) {
    if (given(body, key)) return "sampling that looks at the answer so far";
  }
  const Json* temperature = body.find("temperature");
  const bool greedy = temperature != nullptr && temperature->is_number() && temperature->as_double() == 0.0;
  const Json* seed = body.find("seed");
  if (seed != nullptr && !seed->is_null() && !greedy) return "a seeded sample";
  if (chat) {
    const Json* generate = body.find("add_generation_prompt");
    const bool without = generate != nullptr && generate->is_bool() && !generate->boolean;
    if (without && !given(body, "continue_final_message")) return "a chat without a generation prompt";
    const Json* messages = body.find("messages");
    if (messages == nullptr || !messages->is_array() || messages->items.empty()) return "no messages";
    if (given(body, "continue_final_message")) {
      const Json* content = messages->items.back().find("content");
      if (content == nullptr || !content->is_string()) return "a final message in parts";
    }
    return "";
  }
  const Json* prompt = body.find("prompt");
  const bool one = prompt != nullptr && (prompt->is_string() || (prompt->items.size() == 1 && prompt->items[0].is_string()));
  return one ? "" : "a prompt that is not one text";
}

std::string prompt_with(const Json& body, std::string_view text) {
  const Json& prompt = *body.find("prompt");
  return json_string(cat(prompt.is_string() ? prompt.text : prompt.items[0].text, text));
}

// The messages with `text` as, or at the end of, the final one.
std::string messages_with(std::string_view source, const Json& body, std::string_view text) {
  const Json& messages = *body.find("messages");
  const Json& last = messages.items.back();
  if (!given(body, "continue_final_message")) {
    return cat(source.substr(messages.begin, last.end - messages.begin), R"(,{"role":"assistant","content":)", json_string(text),
               "}]");
  }
  const std::string raw(last.raw(source));
  const auto root = parse_json(raw, wire::kRequestJson);
  wire::Splice edit(raw, *root);
  edit.set({"content"}, json_string(cat(last.find("content")->text, text)));
  return cat(source.substr(messages.begin, last.begin - messages.begin), edit.text(), "]");
}

struct Sent {
  std::string text, overlap;
};

// The text so far; a chat's without the white space at its end, which templates may cut off: it is said again and swallowed.
Sent sent_text(std::string_view escaped, bool chat) {
  Sent out;
  if (auto parsed = parse_json(cat("\"", escaped, "\""))) out.text = std::move(parsed->text);
  if (!chat) return out;
  const size_t end = out.text.find_last_not_of(" \t\r\n\v\f");
  const size_t keep = end == std::string::npos ? 0 : end + 1;
  out.overlap = out.text.substr(keep);
  out.text.resize(keep);
  return out;
}

// /tokenize's body: what decides about the prompt's tokens, taken over from the request.
std::string tokenize_body(std::string_view source, const Json& body, bool chat, std::string_view messages_or_prompt, bool go_on) {
  JsonWriter w;
  w.object();
  auto copy = [&](std::initializer_list<std::string_view> keys) {
    for (std::string_view key : keys) {
      const Json* value = body.find(key);
      if (value != nullptr && !value->is_null()) w.key(key).raw(value->raw(source));
    }
  };
  copy({"model", "add_special_tokens"});
  if (!chat) {
    w.key("prompt").raw(messages_or_prompt);
    return w.end().take();
  }
  w.key("messages").raw(messages_or_prompt);
  copy({"tools", "chat_template", "chat_template_kwargs", "documents"});
  if (go_on)
    w.field("add_generation_prompt", false).field("continue_final_message", true);
  else
    copy({"add_generation_prompt", "continue_final_message"});
  return w.end().take();
}

bool wants_usage(const Json& body) {
  const Json* include = body.find_path({"stream_options", "include_usage"});
  return include != nullptr && include->as_bool().value_or(false);
}

std::string ids_json(std::initializer_list<std::span<const int32_t>> parts) {
  JsonWriter w;
  w.array();
  for (const auto part : parts) {
    for (const int32_t id : part) w.value(id);
  }
  return w.end().take();
}

}  // namespace

std::string Resume::asking_ids(Api api, std::string_view body) {
  if (body.size() > kResumeIdsBodyBytesMax) return "";
  const auto root = parse_json(body, wire::kRequestJson);
  if (!root || !unfit(*root, api == Api::kChat).empty()) return "";
  return wire::Splice(body, *root).set({"return_token_ids"}, "true").text();
}

Resume::Question Resume::ask_ids(std::string_view body, bool spoken) const {
  if (!ids_good_ || prompt_ids_.empty() || settled_ == 0 || (spoken && spoken_ids_.size() == settled_)) return {};
  const std::span<const int32_t> sent = spoken ? spoken_ids_ : std::span(ids_).first(settled_);
  const bool chat = api_ == Api::kChat;
  if (!sent_text(text_, chat).overlap.empty()) return {};  // that is sampled again
  const auto root = parse_json(body, wire::kRequestJson);
  if (!root) return {};
  const auto last = std::span(prompt_ids_).last(std::min(prompt_ids_.size(), kResumeContextIds));
  const auto detokenize_body = [&](std::string tokens) {
    JsonWriter w;
    w.object();
    if (const Json* model = root->find("model")) w.key("model").raw(model->raw(body));
    w.key("tokens").raw(tokens);
    return w.end().take();
  };
  return {.with = detokenize_body(ids_json({last, sent})), .without = detokenize_body(ids_json({last}))};
}

std::optional<Resume::Count> Resume::count_ids(std::string_view with, std::string_view without) const {
  const std::string text = sent_text(text_, false).text;
  if (!with.starts_with(without) || with.substr(without.size()) != text) return std::nullopt;
  return Count{.prompt = std::ssize(prompt_ids_), .sent = static_cast<int64_t>(settled_), .by_ids = true};
}

Result<Resume::Question> Resume::ask(std::string_view body) const {
  if (!unfit_.empty()) return fail(Code::kFailedPrecondition, unfit_);
  if (leg_ >= kResumeLegsMax) return fail(Code::kFailedPrecondition, "too many workers were lost");
  BATON_TRY(const Json root, parse_json(body, wire::kRequestJson));
  const bool chat = api_ == Api::kChat;
  if (const std::string_view why = unfit(root, chat); !why.empty()) return fail(Code::kFailedPrecondition, why);
  const Sent sent = sent_text(text_, chat);
  if (sent.text.empty()) return Question{};
  Question question;
  if (chat) {
    question.with = tokenize_body(body, root, true, messages_with(body, root, sent.text), true);
    question.without = tokenize_body(body, root, true, root.find("messages")->raw(body), false);
  } else {
    question.with = tokenize_body(body, root, false, prompt_with(root, sent.text), true);
    question.without = tokenize_body(body, root, false, prompt_with(root, ""), false);
  }
  return question;
}

Resume::Next Resume::next(std::string_view body, std::optional<Count> count) {
  const Json root = *parse_json(body, wire::kRequestJson);  // ask() has read it
  const bool chat = api_ == Api::kChat;
  const Sent sent = sent_text(text_, chat);
  held_.clear(), failure_.clear();
  ++leg_;
  overlap_ = sent.overlap;
  const bool by_ids = count && count->by_ids;
  ids_good_ &= by_ids || sent.text.empty();
  ids_.resize(ids_good_ && by_ids ? settled_ : 0);  // what was not yet text is sampled again
  settled_ = ids_.size();
  if (ids_.empty()) spoken_ids_.clear();
  // The text may read back as fewer tokens than were sampled, where its beginning joins the prompt's end; never fewer than events.
  const int64_t events = sent.text.empty() ? 0 : text_events_;
  read_back_ = sent.text.empty() ? 0 : count ? std::max<int64_t>(0, count->sent) : events;
  sent_ = sent.overlap.empty() && !by_ids ? std::max(read_back_, events) : read_back_;
  prompt_tokens_ = count ? std::optional(count->prompt) : std::nullopt;
  const std::string usage = wants_usage(root) && !usage_sent_ && count ? usage_event(count->prompt) : "";
  if (complete_) return {};
  if (finished_) return {.body = "", .tail = cat(usage, wire::kSseDone)};
  wire::Splice edit(body, root);
  if (ids_good_) edit.set({"return_token_ids"}, "true");
  if (sent.text.empty()) return {.body = edit.text(), .tail = ""};
  // What the endpoint takes when the client says nothing: 16 tokens for a completion, all that fit for a chat.
  const bool limited = !chat || given(root, "max_tokens") || given(root, "max_completion_tokens");
  if (limited) {
    const int64_t most = integer(root, "max_completion_tokens", integer(root, "max_tokens", 16));
    if (most - sent_ <= 0) return {.body = "", .tail = cat(finish_event(), usage, wire::kSseDone)};
    const bool newer = chat && given(root, "max_completion_tokens");
    edit.set({newer ? "max_completion_tokens" : "max_tokens"}, std::to_string(most - sent_));
  }
  if (given(root, "min_tokens"))
    edit.set({"min_tokens"}, std::to_string(std::max<int64_t>(0, integer(root, "min_tokens", 0) - sent_)));
  if (chat) {
    edit.set({"messages"}, messages_with(body, root, sent.text));
    edit.set({"continue_final_message"}, "true").set({"add_generation_prompt"}, "false");
  } else {
    edit.set({"prompt"}, by_ids ? ids_json({prompt_ids_, ids_}) : prompt_with(root, sent.text));
  }
  return {.body = edit.text(), .tail = ""};
}

}  // namespace baton::gateway
