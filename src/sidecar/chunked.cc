#include "sidecar/chunked.h"

#include <algorithm>

#include "sidecar/legs.h"
#include "sidecar/limits.h"

namespace baton::sidecar {
namespace {

std::optional<int64_t> int_at(const Json& root, std::string_view key) {
  const Json* at = root.find(key);
  return at ? at->as_int() : std::nullopt;
}

std::string raw_or_null(const Json* at, std::string_view text) { return at ? std::string(at->raw(text)) : "null"; }

}  // namespace

std::optional<ChunkedAnswer> ChunkedAnswer::plan(std::string_view body, const Json& root, int chunk_tokens) {
  ChunkedAnswer out(body, root, chunk_tokens);
  const Json* messages = root.find("messages");
  if (chunk_tokens <= 0 || !messages || !messages->is_array()) return std::nullopt;
  if (int_at(root, "n").value_or(1) != 1) return std::nullopt;
  for (std::string_view key : {"tools", "functions", "response_format", "structured_outputs", "continue_final_message"}) {
    if (const Json* at = root.find(key); at && !at->is_null() && at->as_bool() != false) return std::nullopt;
  }
  for (std::string_view key : {"max_completion_tokens", "max_tokens"}) {
    if (auto n = int_at(root, key); n && *n > 0 && out.limit_ < 0) out.limit_ = *n;
  }
  if (out.limit_ > 0 && out.limit_ <= chunk_tokens) return std::nullopt;
  out.min_tokens_ = int_at(root, "min_tokens").value_or(0);
  const Json* stream = root.find("stream");
  out.stream_ = stream && stream->as_bool() == true;
  const Json* usage = root.find_path({"stream_options", "include_usage"});
  out.wants_usage_ = usage && usage->as_bool() == true;
  return out;
}

std::string ChunkedAnswer::next_body() const {
  int64_t budget = limit_ < 0 ? chunk_ : std::min<int64_t>(chunk_, limit_ - tokens_);
  std::string tokens = std::to_string(budget);
  wire::Splice edit(body_, *root_);
  edit.set({"max_tokens"}, tokens).set({"max_completion_tokens"}, tokens);
  ask_for_no_stream(edit);
  if (root_->find("min_tokens")) edit.set({"min_tokens"}, std::to_string(std::clamp<int64_t>(min_tokens_ - tokens_, 0, budget)));
  if (calls_ > 0) {
    std::string messages(root_->find("messages")->raw(body_));
    messages.pop_back();
    if (!root_->find("messages")->items.empty()) messages += ',';
    messages += cat(R"({"role":"assistant","content":)", json_string(text_), "}]");
    edit.set({"messages"}, std::move(messages)).erase({kKvParams});
    edit.set({"continue_final_message"}, "true").set({"add_generation_prompt"}, "false");
  }
  return edit.text();
}

Result<> ChunkedAnswer::take(std::string_view answer) {
  BATON_TRY(Json root, parse_json(answer));
  const Json* choices = root.find("choices");
  if (!choices || !choices->is_array() || choices->items.empty()) {
    return fail(Code::kInternal, "the engine's answer has no choices");
  }
  const Json& choice = choices->items[0];
  const Json* content = choice.find_path({"message", "content"});
  new_text_ = content && content->is_string() ? content->text : "";
  text_ += new_text_;
  const Json* used = root.find_path({"usage", "completion_tokens"});
  int64_t tokens = used ? used->as_int().value_or(0) : 0;
  tokens_ += tokens;
  const Json* reason = choice.find("finish_reason");
  finish_reason_ = raw_or_null(reason, answer);
  logprobs_ = raw_or_null(choice.find("logprobs"), answer);
  if (calls_++ == 0) first_ = answer;
  last_ = answer;
  bool said_more = reason && reason->as_string() == "length";
  bool empty = tokens == 0 && new_text_.empty();  // nothing to go on from
  done_ = !said_more || empty || (limit_ >= 0 && tokens_ >= limit_) || calls_ >= kChunkedCallsMax;
  return {};
}

std::string ChunkedAnswer::event() {
  auto first = parse_json(first_);  // id, time and model are those of the first call
  JsonWriter w;
  w.object();
  for (std::string_view key : {"id", "created", "model"}) {
    if (const Json* at = first ? first->find(key) : nullptr) w.key(key).raw(at->raw(first_));
  }
  w.field("object", "chat.completion.chunk").key("choices").array().object().field("index", 0).key("delta").object();
  if (calls_ == 1) w.field("role", "assistant");
  w.field("content", new_text_).end().key("logprobs").raw(logprobs_).key("finish_reason");
  w.raw(done_ ? finish_reason_ : "null");
  return cat("data: ", w.end().end().end().text(), "\n\n");
}

std::string ChunkedAnswer::usage() const {
  auto first = parse_json(first_);
  const Json* usage = first ? first->find("usage") : nullptr;
  const Json* prompt = usage ? usage->find("prompt_tokens") : nullptr;
  int64_t total = tokens_ + (prompt ? prompt->as_int().value_or(0) : 0);
  if (!usage || !usage->is_object()) return "null";
  std::string out = wire::Splice(first_, *usage)
                        .set({"completion_tokens"}, std::to_string(tokens_))
                        .set({"total_tokens"}, std::to_string(total))
                        .text();
  // Splice edits an object inside its whole text; only the object is wanted.
  return out.substr(usage->begin, out.size() - usage->begin - (first_.size() - usage->end));
}

std::string ChunkedAnswer::last_events() const {
  if (!wants_usage_) return "data: [DONE]\n\n";
  auto first = parse_json(first_);
  JsonWriter w;
  w.object();
  for (std::string_view key : {"id", "created", "model"}) {
    if (const Json* at = first ? first->find(key) : nullptr) w.key(key).raw(at->raw(first_));
  }
  w.field("object", "chat.completion.chunk").key("choices").array().end().key("usage").raw(usage());
  return cat("data: ", w.end().text(), "\n\ndata: [DONE]\n\n");
}

std::string ChunkedAnswer::whole() const {
  auto last = parse_json(last_), first = parse_json(first_);
  const Json& choice = last->find("choices")->items[0];
  std::string choice_text(choice.raw(last_));
  auto own = parse_json(choice_text);
  choice_text = wire::Splice(choice_text, *own).set({"message", "content"}, json_string(text_)).text();
  wire::Splice edit(last_, *last);
  edit.set({"choices"}, cat('[', choice_text, ']')).set({"usage"}, usage());
  if (const Json* id = first->find("id")) edit.set({"id"}, std::string(id->raw(first_)));
  if (const Json* params = first->find(kKvParams)) edit.set({kKvParams}, std::string(params->raw(first_)));
  return edit.text();
}

}  // namespace baton::sidecar
