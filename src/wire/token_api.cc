#include "wire/token_api.h"

#include <algorithm>

#include "wire/chat_body.h"
#include "wire/fields.h"
#include "wire/limits.h"

namespace baton::wire {
namespace {

// What SamplingParams has beyond a completion request's fields, and what belongs to the request and not to them.
constexpr std::string_view kNotSampling[] = {"prompt",
                                             "model",
                                             "stream",
                                             "stream_options",
                                             "cache_salt",
                                             "priority",
                                             "request_id",
                                             "kv_transfer_params",
                                             "echo",
                                             "suffix",
                                             "add_special_tokens",
                                             "return_token_ids"};

class GenerateShape : public Shape {
 public:
  GenerateShape(const GenerateFields& fields, const GenerateStyle& style)
      : include_usage_(fields.include_usage), continuous_(fields.continuous_usage), style_(style) {}
  std::string whole(const Head& head, std::span<const Choice> choices, const Usage& usage, std::string_view kv) override {
    return generate_response(head, choices, usage, kv, style_);
  }
  std::string chunk(const Head& head, const Choice& part, const Usage& so_far) override {
    return sse_event(generate_chunk(head, part, continuous_ ? &so_far : nullptr, style_));
  }
  std::string end(const Head& head, const Usage& usage) override {
    return cat(include_usage_ ? sse_event(generate_usage_chunk(head, usage, style_)) : "", kSseDone);
  }

 private:
  const bool include_usage_, continuous_;
  const GenerateStyle style_;
};

}  // namespace

Result<std::string> completion_body_of_generate(const Json& body, std::string_view source) {
  if (!body.is_object()) return refuse(At{}, "Input should be a valid dictionary, got ", body.kind_name());
  Fields f(body);
  const Json* ids = f.get("token_ids");
  f.require(ids && ids->is_array(), At{"token_ids"}, "Field required");
  const Json* sampling = f.get("sampling_params");
  f.require(sampling && sampling->is_object(), At{"sampling_params"}, "Field required");
  const Json* features = f.get("features");
  std::string mode = "tokens";
  f.text("output_mode", mode, 16);
  f.require(mode == "tokens" || mode == "text", At{"output_mode"}, "Input should be 'tokens' or 'text'");
  if (features) f.reject(Code::kInvalidArgument, "At most 0 image(s) may be provided in one prompt: the model takes text only.");
  if (f.error()) return std::unexpected(*f.error());
  f.require(!ids->items.empty(), At{"token_ids"}, "List should have at least 1 item after validation, not 0");
  f.require(std::all_of(ids->items.begin(), ids->items.end(), [](const Json& id) { return id.is_number(); }), At{"token_ids"},
            "Input should be a valid integer");
  JsonWriter w;
  w.object().key("prompt").raw(ids->raw(source)).field("return_token_ids", true);
  copy_members(w, body, source,
               {{"model", "model"},
                {"stream", "stream"},
                {"stream_options", "stream_options"},
                {"cache_salt", "cache_salt"},
                {"priority", "priority"},
                {"request_id", "request_id"},
                {"kv_transfer_params", "kv_transfer_params"}});
  // Here `logprobs` may be left out beside them, or counts them.
  const Json *tokens = sampling->find("logprob_token_ids"), *logprobs = sampling->find("logprobs");
  if (const size_t n = tokens && tokens->is_array() ? tokens->items.size() : 0; n > 0) {
    const bool counted = logprobs && !logprobs->is_null();
    f.require(!counted || logprobs->as_int() == static_cast<int64_t>(n), About{"logprob_token_ids"},
              "When both logprobs and logprob_token_ids are set, logprobs must equal len(logprob_token_ids). Got logprobs=",
              counted ? logprobs->raw(source) : "", ", len(logprob_token_ids)=", n, ".");
    if (!counted) w.field("logprobs", n);
  }
  for (size_t i = 0; i < sampling->keys.size(); ++i) {
    const std::string& key = sampling->keys[i];
    if (std::find(std::begin(kNotSampling), std::end(kNotSampling), key) == std::end(kNotSampling))
      w.key(key).raw(sampling->items[i].raw(source));
  }
  w.end();
  if (f.error()) return std::unexpected(*f.error());
  return w.take();
}

std::unique_ptr<Shape> generate_shape(const GenerateFields& fields, const Json& body) {
  const Json *mode = body.find("output_mode"), *ids = body.find("return_token_ids");
  return std::make_unique<GenerateShape>(
      fields, GenerateStyle{.text = mode && mode->as_string() == "text", .prompt_ids = ids && ids->as_bool() == true});
}

}  // namespace baton::wire
