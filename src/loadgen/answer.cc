#include "loadgen/answer.h"

#include "base/json.h"
#include "loadgen/limits.h"

namespace baton::loadgen {

Result<> AnswerReader::feed(std::string_view bytes, int64_t now_ns) {
  events_.clear();
  BATON_OK(parser_.feed(bytes, events_));
  for (const net::SseEvent& e : events_) BATON_OK(event(e.data, now_ns));
  return {};
}

Result<> AnswerReader::event(const std::string& data, int64_t now_ns) {
  if (data == "[DONE]") {
    done_ = true;
    return {};
  }
  auto root = parse_json(data);
  if (!root) return fail(Code::kInternal, "event is not JSON: ", data.substr(0, kErrorTextMax));
  if (const Json* error = root->find("error"); error != nullptr && !error->is_null()) {
    const Json* message = error->find("message");
    return fail(Code::kInternal, message != nullptr && message->is_string() ? message->text : data.substr(0, kErrorTextMax));
  }
  if (const Json* choices = root->find("choices"); choices != nullptr && !choices->items.empty()) {
    if (chunks_ == 0)
      out_.first_ns = now_ns;
    else
      out_.itl_s.push_back(static_cast<double>(now_ns - out_.last_ns) * 1e-9);
    out_.last_ns = now_ns;
    ++chunks_;
    const Json& choice = choices->items[0];
    const Json* text = choice.find("text");
    if (text == nullptr) text = choice.find_path({"delta", "content"});
    if (text != nullptr && text->is_string()) out_.text += text->text;
  }
  if (const Json* usage = root->find("usage"); usage != nullptr && usage->is_object()) {
    if (const Json* n = usage->find("completion_tokens")) out_.output_tokens = static_cast<int>(n->as_int().value_or(0));
    if (const Json* n = usage->find("prompt_tokens")) out_.prompt_tokens = static_cast<int>(n->as_int().value_or(0));
  }
  return {};
}

Result<> AnswerReader::finish() {
  if (chunks_ == 0) return fail(Code::kInternal, "the answer had no token");
  if (!done_) return fail(Code::kDataLoss, "the stream ended without [DONE]");
  if (out_.output_tokens == 0) out_.output_tokens = chunks_;
  return {};
}

}  // namespace baton::loadgen
