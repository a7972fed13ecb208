// Tokenizer::from_gguf: the metadata's token list and merges, with the rules its `pre` name stands for.
#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "text/bpe_tokenizer.h"
#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text {
namespace {

enum TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

Result<> check(const GgufVocab& v) {
  if (v.model != "gpt2" && v.model != "llama") {
    return fail(Code::kUnimplemented, "tokenizer.ggml.model is ", json_string(v.model),
                "; only \"gpt2\" (byte-level BPE) and \"llama\" (SentencePiece BPE) are supported: use the model's Hugging Face "
                "directory with tokenizer.json instead");
  }
  if (v.tokens.empty()) return fail(Code::kInvalidArgument, "tokenizer.ggml.tokens is empty or missing");
  if (v.tokens.size() > static_cast<size_t>(kVocabMax)) {
    return fail(Code::kResourceExhausted, "tokenizer.ggml.tokens has ", v.tokens.size(), " entries, over the limit of ",
                kVocabMax);
  }
  if (!v.token_type.empty() && v.token_type.size() != v.tokens.size()) {
    return fail(Code::kInvalidArgument, "tokenizer.ggml.token_type has ", v.token_type.size(), " entries for ", v.tokens.size(),
                " tokens");
  }
  if (v.model == "llama" && v.scores.size() != v.tokens.size()) {
    return fail(Code::kInvalidArgument, "tokenizer.ggml.scores has ", v.scores.size(), " entries for ", v.tokens.size(),
                " tokens");
  }
  if (!std::ranges::all_of(v.scores, [](float s) { return std::isfinite(s); })) {
    return fail(Code::kInvalidArgument, "tokenizer.ggml.scores has a value that is not finite");
  }
  auto n = static_cast<TokenId>(v.tokens.size());
  for (auto [name, id] :
       {std::pair{"bos", v.bos}, {"eos", v.eos}, {"eot", v.eot}, {"unknown", v.unknown}, {"padding", v.padding}}) {
    if (id < -1 || id >= n)
      return fail(Code::kInvalidArgument, "tokenizer.ggml.", name, "_token_id ", id, " is outside the vocabulary of ", n);
  }
  if (v.add_bos && v.bos < 0)
    return fail(Code::kInvalidArgument, "tokenizer.ggml.add_bos_token is set but there is no BOS token");
  if (v.add_eos && v.eos < 0)
    return fail(Code::kInvalidArgument, "tokenizer.ggml.add_eos_token is set but there is no EOS token");
  return {};
}

Result<> add_tokens(GgufVocab& v, BpeParts& parts) {
  parts.entries.resize(v.tokens.size());
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    std::string& text = v.tokens[id];
    if (text.size() > kTokenBytesMax || first_invalid_utf8(text) < text.size()) {
      return fail(Code::kInvalidArgument, "tokenizer.ggml.tokens[", id, "] is too long or not valid UTF-8");
    }
    int32_t type = v.token_type.empty() ? int32_t{kNormal} : v.token_type[id];
    auto& e = parts.entries[id];
    e.special = type == kControl || type == kUnknown;
    bool in_alphabet = true;
    e.bytes = parts.bpe.byte_level ? bytes_of_alphabet(text, &in_alphabet) : bytes_of_piece(text);
    if (in_alphabet && type != kUnused && !text.empty()) {
      parts.bpe.vocabulary.emplace(parts.bpe.byte_level ? e.bytes : text, static_cast<TokenId>(id));
    }
    if (e.special || type == kUserDefined) {  // these are written as they are, not in the alphabet
      parts.added.push_back({.id = static_cast<TokenId>(id), .content = text, .special = e.special});
      e.bytes = text;
    }
    if (e.special && ends_turn(text)) parts.stop_ids.push_back(static_cast<TokenId>(id));
    e.text = std::move(text);
  }
  return {};
}

Result<> add_merges(GgufVocab& v, BpeParts& parts) {
  parts.bpe.merges.reserve(v.merges.size());
  for (size_t i = 0; i < v.merges.size(); ++i) {
    std::string_view m = v.merges[i];
    size_t space = m.find(' ', 1);  // the alphabet has no space, so the first one after a symbol parts the two
    bool bad = first_invalid_utf8(m) < m.size() || space == std::string_view::npos || space + 1 >= m.size();
    bool left = false, right = false;
    std::string l = bad ? std::string() : bytes_of_alphabet(m.substr(0, space), &left);
    std::string r = bad ? std::string() : bytes_of_alphabet(m.substr(space + 1), &right);
    if (bad || !left || !right)
      return fail(Code::kInvalidArgument, "tokenizer.ggml.merges[", i, "] is not two byte-level symbols");
    parts.bpe.merges.emplace_back(std::move(l), std::move(r));
  }
  return {};
}

Result<std::unique_ptr<Tokenizer>> finish(const GgufVocab& v, BpeParts parts) {
  parts.bos = v.bos;
  parts.eos = v.eos;
  if (v.add_bos) parts.prefix.push_back(v.bos);
  if (v.add_eos) parts.suffix.push_back(v.eos);
  for (TokenId id : {v.eos, v.eot}) {
    if (id >= 0 && std::ranges::find(parts.stop_ids, id) == parts.stop_ids.end()) parts.stop_ids.push_back(id);
  }
  return BpeTokenizer::build(std::move(parts));
}

// SentencePiece joins the neighbours whose concatenation scores best, so every way to cut a token in two is a merge of its
// score's rank.
void add_scored_merges(const GgufVocab& v, BpeParts& parts) {
  auto merges = [&](size_t id) {
    return v.token_type.empty() || v.token_type[id] == kNormal || v.token_type[id] == kUserDefined;
  };
  std::vector<float> order;
  for (size_t id = 0; id < v.scores.size(); ++id) {
    if (merges(id)) order.push_back(v.scores[id]);
  }
  std::ranges::sort(order, std::greater<>());
  for (size_t id = 0; id < v.scores.size(); ++id) {
    if (!merges(id)) continue;
    const std::string& text = parts.entries[id].text;
    auto rank = static_cast<uint32_t>(std::ranges::lower_bound(order, v.scores[id], std::greater<>()) - order.begin());
    for (size_t cut = code_point_at(text, 0).length; cut < text.size(); cut += code_point_at(text, cut).length) {
      std::string left = text.substr(0, cut), right = text.substr(cut);
      if (!parts.bpe.vocabulary.contains(left) || !parts.bpe.vocabulary.contains(right)) continue;
      parts.bpe.merges.emplace_back(std::move(left), std::move(right));
      parts.bpe.ranks.push_back(rank);
    }
  }
}

// The rules of a "llama" vocabulary: U+2581 for space, one put in front, no words, bytes for what the vocabulary lacks.
Result<> set_piece_rules(const GgufVocab& v, BpeParts& parts) {
  constexpr std::string_view kSpaces = R"({"type":"Replace","pattern":{"String":" "},"content":"▁"})";
  constexpr std::string_view kPrefix = R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)";
  BATON_TRY(Json spec, parse_json(v.add_space_prefix ? cat(kPrefix, kSpaces, "]}") : std::string(kSpaces)));
  BATON_TRY(parts.normalizer, Normalizer::from_json(spec));
  parts.bpe.byte_level = false;
  parts.bpe.byte_fallback = true;
  parts.bpe.fuse_unknown = true;
  parts.bpe.unknown = v.unknown;
  parts.strip_first_space = v.add_space_prefix;
  return {};
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_gguf(GgufVocab v) {
  BATON_OK(check(v));
  BpeParts parts;
  if (v.model == "llama") {
    BATON_OK(set_piece_rules(v, parts));
    BATON_OK(add_tokens(v, parts));
    add_scored_merges(v, parts);
    return finish(v, std::move(parts));
  }
  BATON_TRY(parts.pre_tokenizer, PreTokenizer::from_gguf(v.pre));
  if (v.pre == "qwen2") parts.normalizer = Normalizer::nfc();  // the model was trained on NFC text; GGUF does not record it
  parts.bpe.ignore_merges =
      v.pre == "llama-bpe" || v.pre == "llama3" || v.pre == "llama-v3" || v.pre == "falcon3" || v.pre == "tekken";
  BATON_OK(add_tokens(v, parts));
  BATON_OK(add_merges(v, parts));
  return finish(v, std::move(parts));
}

}  // namespace baton::text
