#pragma once
// Tokenizer: text to token ids and back, identical to Hugging Face `tokenizers` for byte-level BPE models.
// Source: facts sheet "engine" 4.1-4.2. Immutable after load: any thread may call const members. Input must be UTF-8 (else an
// error).
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace baton::text {

using TokenId = int32_t;

// What GGUF metadata holds (tokenizer.ggml.*); model/ fills it, so text/ knows no file format of weights.
struct GgufVocab {
  std::string model;                // "gpt2", or "llama" for SentencePiece-style BPE
  std::string pre;                  // "llama-bpe", "qwen2", "smollm", "gpt-2", ...
  std::vector<std::string> tokens;  // byte-level alphabet form
  std::vector<int32_t> token_type;  // 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte
  std::vector<std::string> merges;  // "a b"; gpt2 only
  std::vector<float> scores = {};   // one a token; llama only
  bool add_space_prefix = true;     // llama only
  TokenId bos = -1, eos = -1, eot = -1, unknown = -1, padding = -1;
  bool add_bos = false, add_eos = false;
};

// From model/'s WeightFile::Vocab, which text/ cannot name.
template <class Vocab>
GgufVocab gguf_vocab_of(const Vocab& v) {
  return {.model = v.model,
          .pre = v.pre,
          .tokens = v.tokens,
          .token_type = v.token_type,
          .merges = v.merges,
          .scores = v.scores,
          .add_space_prefix = v.add_space_prefix,
          .bos = v.bos,
          .eos = v.eos,
          .eot = v.eot,
          .unknown = v.unknown,
          .padding = v.padding,
          .add_bos = v.add_bos,
          .add_eos = v.add_eos};
}

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // tokenizer.json (required) and tokenizer_config.json ("" if absent). Unknown components are errors that name them.
  static Result<std::unique_ptr<Tokenizer>> from_hf(std::string_view tokenizer_json, std::string_view tokenizer_config_json);
  static Result<std::unique_ptr<Tokenizer>> from_gguf(GgufVocab vocab);

  // add_special: the post-processor's BOS/EOS. parse_special: special tokens written in the text become their ids (always on for
  // Hugging Face; off lets a caller treat user text as plain).
  virtual Result<std::vector<TokenId>> encode(std::string_view text, bool add_special, bool parse_special = true) const = 0;
  // Raw bytes of one token as they appear in output ("" for specials when skip_special); may be part of a UTF-8 character.
  virtual std::string_view token_bytes(TokenId id) const = 0;
  virtual bool is_special(TokenId id) const = 0;
  // SentencePiece-style vocabularies: the first token's leading space is not part of the output (decode and Detokenizer drop it).
  virtual bool strips_first_space() const { return false; }
  // Bytes of all tokens; invalid UTF-8 replaced by U+FFFD as Python's errors="replace" does.
  std::string decode(std::span<const TokenId> ids, bool skip_special) const;
  virtual std::string token_text(TokenId id) const = 0;  // vocabulary form ("Ġhello"), for token_strs and tokenizer_info
  virtual TokenId id_of(std::string_view vocabulary_form) const = 0;  // -1 if none
  virtual int32_t vocab_size() const = 0;                             // largest id + 1
  virtual TokenId bos() const = 0;                                    // -1 if none
  virtual TokenId eos() const = 0;
  virtual const std::vector<TokenId>& stop_ids() const = 0;  // eos and end-of-turn tokens that end generation
  virtual std::string bos_text() const = 0;                  // for chat templates
  virtual std::string eos_text() const = 0;
};

}  // namespace baton::text
