#include "picker/local_tokenizer.h"

#include <algorithm>

#include "model/config.h"
#include "text/chat_prompt.h"
#include "wire/openai.h"

namespace baton::picker {
namespace {

// More bytes than this a token do not occur over a whole prompt: what lies behind is not encoded.
constexpr size_t kTokenBytesMax = 16;

struct Text {
  std::string text;
  bool add_special = false;
};

bool has_media(const Json& message) {
  const Json* content = message.find("content");
  if (content == nullptr || !content->is_array()) return false;
  return std::ranges::any_of(content->items, [](const Json& part) {
    const Json* type = part.find("type");
    return type != nullptr && type->is_string() && type->text != "text" && type->text != "refusal" && type->text != "thinking";
  });
}

Result<Text> chat_text(const Json& body, const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template) {
  wire::ChatRequest request;
  if (auto parsed = wire::parse_chat_request(body)) {
    request = *std::move(parsed);
  } else {  // a field of another engine's; what makes the prompt is read all the same
    BATON_TRY(auto plain, wire::parse_tokenize_request(body));
    if (plain.prompt) return fail(Code::kInvalidArgument, "no messages");
    request = std::move(plain.chat);
    request.add_special_tokens = plain.add_special_tokens;
  }
  if (std::ranges::any_of(request.messages, has_media)) return fail(Code::kUnimplemented, "the prompt has media");
  BATON_TRY(std::string text, text::render_chat(chat_template, tokenizer,
                                                {.messages = request.messages,
                                                 .tools = request.tools,
                                                 .documents = request.documents,
                                                 .template_kwargs = request.template_kwargs,
                                                 .chat_template = request.chat_template,
                                                 .add_generation_prompt = request.add_generation_prompt,
                                                 .continue_final_message = request.continue_final_message}));
  return Text{std::move(text), request.add_special_tokens};
}

Result<Text> prompt_text(const Json& body) {
  const Json* prompt = body.find("prompt");
  if (prompt != nullptr && prompt->is_array() && !prompt->items.empty()) prompt = &prompt->items[0];
  if (prompt == nullptr || !prompt->is_string()) return fail(Code::kInvalidArgument, "no text prompt");
  const Json* special = body.find("add_special_tokens");
  return Text{prompt->text, special == nullptr || special->as_bool().value_or(true)};
}

}  // namespace

Result<std::unique_ptr<const LocalTokenizer>> LocalTokenizer::load(const std::string& path) {
  BATON_TRY(const model::TokenizerFiles files, model::read_tokenizer_files(path));
  auto tokenizer = files.vocab ? text::Tokenizer::from_gguf(text::gguf_vocab_of(*files.vocab))
                               : text::Tokenizer::from_hf(files.tokenizer_json, files.tokenizer_config_json);
  if (!tokenizer) return within(path, std::move(tokenizer).error());
  std::optional<text::ChatTemplate> chat_template;
  if (!files.chat_template.empty()) {
    BATON_TRY(chat_template, text::ChatTemplate::compile(files.chat_template));
  }
  return std::unique_ptr<const LocalTokenizer>(new LocalTokenizer(*std::move(tokenizer), std::move(chat_template)));
}

Result<PromptTokens> LocalTokenizer::tokens(Shape shape, std::string_view body, size_t tokens_max) const {
  BATON_TRY(const Json json, parse_json(body));
  BATON_TRY(const Text prompt,
            shape == Shape::kChat ? chat_text(json, *tokenizer_, template_ ? &*template_ : nullptr) : prompt_text(json));
  std::string_view front = prompt.text;
  if (front.size() / kTokenBytesMax > tokens_max) {
    front = front.substr(0, tokens_max * kTokenBytesMax);
    while (!front.empty() && (static_cast<unsigned char>(prompt.text[front.size()]) & 0xc0) == 0x80) front.remove_suffix(1);
  }
  BATON_TRY(const std::vector<text::TokenId> ids, tokenizer_->encode(front, prompt.add_special));
  PromptTokens out;
  out.ids.assign(ids.begin(), ids.end());
  out.total = static_cast<int64_t>(ids.size());
  if (front.size() < prompt.text.size() && !ids.empty()) {
    out.ids.pop_back();  // cut in the middle, perhaps
    out.total = static_cast<int64_t>(static_cast<double>(ids.size()) * static_cast<double>(prompt.text.size()) /
                                     static_cast<double>(front.size()));
  }
  return out;
}

}  // namespace baton::picker
