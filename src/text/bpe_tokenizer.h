#pragma once
// BpeTokenizer: added tokens -> normalizer -> pre-tokenizer -> BPE -> BOS/EOS, the one Tokenizer of this folder.
// Built from a tokenizer.json (hf_tokenizer.cc) or from GGUF metadata (gguf_tokenizer.cc). Immutable: any thread.
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace baton::text {

struct BpeParts {
  struct Entry {
    std::string text;   // vocabulary form, "Ġhello"; "" if the id is unused
    std::string bytes;  // as it appears in output
    bool special = false;
  };
  std::vector<Entry> entries;  // by id
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  BpeConfig bpe;
  std::vector<TokenId> prefix, suffix;  // what add_special puts around the ids
  TokenId bos = -1, eos = -1;
  std::vector<TokenId> stop_ids;
  bool strip_first_space = false;  // SentencePiece style: output starts with a space that the input did not have
};

class BpeTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> build(BpeParts parts);

  Result<std::vector<TokenId>> encode(std::string_view text, bool add_special, bool parse_special) const override;
  std::string_view token_bytes(TokenId id) const override;
  bool is_special(TokenId id) const override;
  std::string token_text(TokenId id) const override;
  TokenId id_of(std::string_view vocabulary_form) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(parts_.entries.size()); }
  TokenId bos() const override { return parts_.bos; }
  TokenId eos() const override { return parts_.eos; }
  const std::vector<TokenId>& stop_ids() const override { return parts_.stop_ids; }
  std::string bos_text() const override { return token_text(parts_.bos); }
  std::string eos_text() const override { return token_text(parts_.eos); }
  bool strips_first_space() const override { return parts_.strip_first_space; }

 private:
  explicit BpeTokenizer(BpeParts parts) : parts_(std::move(parts)) {}
  const BpeParts::Entry* entry(TokenId id) const;
  Result<> encode_plain(std::string_view normalised, bool first, PreTokenizer::Words& words, std::vector<TokenId>& out) const;

  BpeParts parts_;
  std::unique_ptr<Bpe> bpe_;
  AddedTokens raw_tokens_;                             // matched in the text as given
  AddedTokens normalized_tokens_;                      // matched after normalisation
  std::unordered_map<std::string_view, TokenId> ids_;  // by vocabulary form; keys lie in parts_.entries
};

// The byte behind each character of the byte-level alphabet: "Ġhello" -> " hello"; the text itself if a character is not of it.
std::string bytes_of_alphabet(std::string_view vocabulary_form, bool* in_alphabet = nullptr);
// The output of a SentencePiece-style token: "▁hello" -> " hello", "<0xC3>" -> that byte.
std::string bytes_of_piece(std::string_view vocabulary_form);
// End-of-turn tokens that generation must stop at although they are not the EOS, by the names the supported families give them.
bool ends_turn(std::string_view token);

}  // namespace baton::text
