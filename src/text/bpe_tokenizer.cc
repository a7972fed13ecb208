#include "text/bpe_tokenizer.h"

#include <algorithm>
#include <array>

#include "base/json.h"
#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text {
namespace {

// GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the 68 others for U+0100 onward, in order.
constexpr bool stands_for_itself(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

constexpr std::array<int16_t, 0x144> kByteOfCharacter = [] {
  std::array<int16_t, 0x144> t{};
  t.fill(-1);
  size_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) t[stands_for_itself(b) ? b : next++] = static_cast<int16_t>(b);
  return t;
}();

}  // namespace

std::string bytes_of_alphabet(std::string_view s, bool* in_alphabet) {
  std::string out;
  out.reserve(s.size());
  bool all = true;
  for (size_t i = 0; i < s.size() && all;) {
    CodePoint c = code_point_at(s, i);
    i += c.length;
    all = c.value < kByteOfCharacter.size() && kByteOfCharacter[c.value] >= 0;
    if (all) out += static_cast<char>(kByteOfCharacter[c.value]);
  }
  if (in_alphabet != nullptr) *in_alphabet = all;
  return all ? out : std::string(s);
}

std::string bytes_of_piece(std::string_view token) {
  if (token.size() == 6 && token.starts_with("<0x") && token.ends_with('>')) {
    auto digit = [&](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
    if (int hi = digit(token[3]), lo = digit(token[4]); hi >= 0 && lo >= 0)
      return std::string(1, static_cast<char>(hi * 16 + lo));
  }
  static constexpr std::string_view kMark = "▁";
  std::string out;
  for (size_t i = 0; i < token.size();) {
    bool mark = token.substr(i).starts_with(kMark);
    out += mark ? ' ' : token[i];
    i += mark ? kMark.size() : 1;
  }
  return out;
}

bool ends_turn(std::string_view token) {
  static constexpr std::string_view kNames[] = {
      "<|im_end|>", "<|eot_id|>", "<|eom_id|>",    "<|end_of_text|>", "<|endoftext|>",
      "<|end|>",    "</s>",       "<end_of_turn>", "<|EOT|>",         "<｜end▁of▁sentence｜>"};
  return std::ranges::find(kNames, token) != std::end(kNames);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string bytes;
  bool first = strips_first_space();
  for (TokenId id : ids) {
    if (skip_special && is_special(id)) continue;
    std::string_view piece = token_bytes(id);
    if (first && piece.starts_with(' ')) piece.remove_prefix(1);
    first = false;
    bytes += piece;
  }
  return replace_invalid_utf8(bytes);
}

Result<std::unique_ptr<Tokenizer>> BpeTokenizer::build(BpeParts parts) {
  std::unique_ptr<BpeTokenizer> t(new BpeTokenizer(std::move(parts)));
  BATON_TRY(t->bpe_, Bpe::build(std::move(t->parts_.bpe)));
  auto& entries = t->parts_.entries;
  for (size_t id = 0; id < entries.size(); ++id) {
    if (!entries[id].text.empty()) t->ids_.emplace(entries[id].text, static_cast<TokenId>(id));
  }
  for (const AddedToken& token : t->parts_.added) {
    if (!token.normalized) {
      t->raw_tokens_.add(token, token.content);
      continue;
    }
    BATON_TRY(std::string content, t->parts_.normalizer.apply(token.content));
    t->normalized_tokens_.add(token, content);
  }
  return t;
}

const BpeParts::Entry* BpeTokenizer::entry(TokenId id) const {
  return id >= 0 && id < vocab_size() ? &parts_.entries[static_cast<size_t>(id)] : nullptr;
}

std::string_view BpeTokenizer::token_bytes(TokenId id) const {
  const BpeParts::Entry* e = entry(id);
  return e == nullptr ? std::string_view() : std::string_view(e->bytes);
}

bool BpeTokenizer::is_special(TokenId id) const {
  const BpeParts::Entry* e = entry(id);
  return e != nullptr && e->special;
}

std::string BpeTokenizer::token_text(TokenId id) const {
  const BpeParts::Entry* e = entry(id);
  return e == nullptr ? std::string() : e->text;
}

TokenId BpeTokenizer::id_of(std::string_view vocabulary_form) const {
  auto it = ids_.find(vocabulary_form);
  return it == ids_.end() ? -1 : it->second;
}

Result<> BpeTokenizer::encode_plain(std::string_view text, bool first, PreTokenizer::Words& words,
                                    std::vector<TokenId>& out) const {
  BATON_OK(parts_.pre_tokenizer.split(text, first, words));
  for (std::string_view word : words.words) bpe_->encode(word, out);
  return {};
}

Result<std::vector<TokenId>> BpeTokenizer::encode(std::string_view text, bool add_special, bool parse_special) const {
  if (text.size() > kEncodeBytesMax) {
    return fail(Code::kResourceExhausted, "text of ", text.size(), " bytes is over the limit of ", kEncodeBytesMax);
  }
  if (size_t bad = first_invalid_utf8(text); bad < text.size()) {
    return fail(Code::kInvalidArgument, "text is not valid UTF-8 at byte ", bad);
  }
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + 4);
  if (add_special) ids = parts_.prefix;
  PreTokenizer::Words words;
  std::vector<AddedTokens::Part> parts, inner;
  raw_tokens_.split(text, parse_special, parts);
  for (const AddedTokens::Part& part : parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    std::string normalised;
    std::string_view plain = part.text;
    bool first = plain.data() == text.data();
    if (!parts_.normalizer.changes_nothing()) {
      BATON_TRY(normalised, parts_.normalizer.apply(plain));
      plain = normalised;
    }
    if (normalized_tokens_.empty()) {
      BATON_OK(encode_plain(plain, first, words, ids));
      continue;
    }
    inner.clear();
    normalized_tokens_.split(plain, parse_special, inner);
    for (const AddedTokens::Part& p : inner) {
      if (p.id >= 0) {
        ids.push_back(p.id);
      } else {
        BATON_OK(encode_plain(p.text, first && p.text.data() == plain.data(), words, ids));
      }
    }
  }
  if (add_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

}  // namespace baton::text
