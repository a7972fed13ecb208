#pragma once
// LocalTokenizer: a model's own tokenizer and chat template, so that the picker knows a text prompt as the engine will: the body
// is read as the engine reads it (wire/openai.h), messages are rendered (text/chat_prompt.h), and the text is encoded. Needs no
// weights. Prompts with media are kUnimplemented: only the engine knows what stands for them. Cost: some 10 ms for 450 KB, so
// never on an I/O thread. Immutable; any thread.
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "picker/body_reader.h"
#include "picker/prompt_tokens.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace baton::picker {

class LocalTokenizer {
 public:
  // A tokenizer.json, a GGUF file, or a directory with either (model/config.h: read_tokenizer_files).
  static Result<std::unique_ptr<const LocalTokenizer>> load(const std::string& path);
  // tokens_max: no more of the prompt is wanted; of a much longer one only the front is encoded.
  Result<PromptTokens> tokens(Shape shape, std::string_view body, size_t tokens_max) const;

 private:
  LocalTokenizer(std::unique_ptr<text::Tokenizer> tokenizer, std::optional<text::ChatTemplate> chat_template)
      : tokenizer_(std::move(tokenizer)), template_(std::move(chat_template)) {}
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::optional<text::ChatTemplate> template_;
};

}  // namespace baton::picker
