#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "base/json.h"
#include "base/prng.h"
#include "text/bpe.h"
#include "text/bpe_tokenizer.h"
#include "text/limits.h"
#include "text/testing/tiny_tokenizer.h"
#include "text/unicode.h"

namespace baton::text {
namespace {

using testing::alphabet;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::tiny_gguf;
using testing::tiny_json;

std::unique_ptr<Tokenizer> from_json(const std::string& json, std::string_view config = "") {
  auto t = Tokenizer::from_hf(json, config);
  EXPECT_TRUE(t) << t.error().message;
  return t ? *std::move(t) : nullptr;
}

std::string load_error(const std::string& json) {
  auto t = Tokenizer::from_hf(json, "");
  return t ? "" : t.error().message;
}

// The definition: merge the lowest-ranked neighbours, leftmost first, until none is left.
std::vector<std::string> merged_by_definition(std::string_view word,
                                              const std::vector<std::pair<std::string, std::string>>& merges) {
  std::vector<std::string> parts;
  for (char c : word) parts.emplace_back(1, c);
  for (;;) {
    size_t best = merges.size(), at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      for (size_t r = 0; r < best; ++r) {
        if (merges[r].first == parts[i] && merges[r].second == parts[i + 1]) best = r, at = i;
      }
    }
    if (best == merges.size()) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, MergesByDefinitionForShortAndLongWords) {
  const uint64_t seed = 7;
  Prng prng(seed);
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(cat("seed ", seed, " round ", round));
    BpeConfig config;
    std::vector<std::string> known;
    for (char c : std::string("abc")) {
      known.emplace_back(1, c);
      config.vocabulary.emplace(known.back(), static_cast<TokenId>(config.vocabulary.size()));
    }
    for (int i = 0; i < 25; ++i) {
      std::string l = known[prng.below(known.size())], r = known[prng.below(known.size())];
      if (l.size() + r.size() > 12) continue;
      if (config.vocabulary.emplace(l + r, static_cast<TokenId>(config.vocabulary.size())).second) known.push_back(l + r);
      if (std::ranges::find(config.merges, std::pair{l, r}) == config.merges.end()) config.merges.emplace_back(l, r);
    }
    auto merges = config.merges;
    std::map<TokenId, std::string> text;
    for (auto& [token, id] : config.vocabulary) text[id] = token;
    auto bpe = Bpe::build(std::move(config));
    ASSERT_TRUE(bpe) << bpe.error().message;
    for (size_t length : {1u, 2u, 5u, 31u, 32u, 33u, 200u}) {
      std::string word;
      for (size_t i = 0; i < length; ++i) word += static_cast<char>('a' + prng.below(3));
      for (int again = 0; again < 2; ++again) {  // the second time from the cache
        std::vector<TokenId> ids;
        (*bpe)->encode(word, ids);
        std::vector<std::string> got;
        for (TokenId id : ids) got.push_back(text[id]);
        EXPECT_EQ(got, merged_by_definition(word, merges)) << word;
      }
    }
  }
}

TEST(Bpe, WordsOfAnyLengthTakeBoundedTime) {
  auto t = from_json(tiny_json({.merges = {{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}}}));
  std::string word(1'000'000, 'a');
  EXPECT_EQ(t->encode(word, false)->size(), word.size() / 8);
}

TEST(Tokenizer, RoundTripsEveryText) {
  const uint64_t seed = 11;
  Prng prng(seed);
  for (std::string_view pre : {"llama-bpe", "smollm", "gpt-2", "tekken", "deepseek-v3"}) {
    auto t = Tokenizer::from_gguf(tiny_gguf(pre));
    ASSERT_TRUE(t) << t.error().message;
    for (int i = 0; i < 200; ++i) {
      std::string text;
      for (uint64_t n = prng.below(30); n > 0; --n) {
        char32_t c = static_cast<char32_t>(prng.chance(0.5) ? prng.below(128) : prng.below(0x110000));
        if (c < 0xd800 || c > 0xdfff) append_utf8(text, c);
      }
      auto ids = (*t)->encode(text, false);
      ASSERT_TRUE(ids) << ids.error().message;
      EXPECT_EQ((*t)->decode(*ids, false), text) << pre << " seed " << seed << " text " << i;
    }
  }
}

TEST(Tokenizer, PreTokenizersCutWhereTheirRulesSay) {
  struct Row {
    std::string pre, text;
    std::vector<std::string> words;
  };
  const Row rows[] = {
      {"gpt-2", "It's  THEY'LL a1b22", {"It", "'s", " ", " THEY", "'", "LL", " a", "1", "b", "22"}},
      {"llama-bpe", "It's  THEY'LL a1b2345\r\n x", {"It", "'s", " ", " THEY", "'LL", " a", "1", "b", "234", "5", "\r\n", " x"}},
      {"qwen2", "a12 \n\n  b", {"a", "1", "2", " \n\n", " ", " b"}},
      {"smollm", "a 12\n", {"a", " ", "1", "2", "\n"}},
      {"llama-bpe",
       "'\xc5\xbf"
       "a !?\n\n(b",
       {"'\xc5\xbf", "a", " !?\n\n", "(b"}},
      {"tekken", "camelCase/x", {"camel", "Case", "/x"}},
      {"deepseek-v3", "12345中文ab", {"123", "45", "中文", "ab"}},
  };
  for (const Row& row : rows) {
    auto pre = PreTokenizer::from_gguf(row.pre);
    ASSERT_TRUE(pre) << pre.error().message;
    PreTokenizer::Words words;
    ASSERT_TRUE(pre->split(row.text, true, words));
    EXPECT_EQ(std::vector<std::string>(words.words.begin(), words.words.end()), row.words)
        << row.pre << " " << json_string(row.text);
  }
}

// The scanners and PCRE2 are two readings of one rule.
TEST(Scanner, AgreesWithTheRegexItReplaces) {
  const std::pair<ScanRule, std::string_view> rules[] = {
      {ScanRule::kGpt2, R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
      {ScanRule::kLlama3,
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      {ScanRule::kQwen2,
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}};
  static constexpr std::string_view kPieces[] = {" ",   "  ", "\n", "\r\n", "\t",     "'",      "'s", "'LL",
                                                 "'re", "a",  "Zz", "é",    "中",     "1",      "23", "Ⅷ",
                                                 "!",   "?!", "-",  "🎉",   "\u00a0", "\u2028", "ſ",  "\u0301"};
  const uint64_t seed = 3;
  Prng prng(seed);
  for (auto& [rule, source] : rules) {
    EXPECT_EQ(known_regex(source), rule);
    auto regex = Regex::compile(source);
    ASSERT_TRUE(regex);
    for (int i = 0; i < 3000; ++i) {
      std::string text;
      for (uint64_t n = prng.below(12); n > 0; --n) text += kPieces[prng.below(std::size(kPieces))];
      std::vector<std::string_view> ours, theirs;
      scan(rule, text, ours);
      for (Span s : *regex->find_all(text)) theirs.push_back(std::string_view(text).substr(s.begin, s.end - s.begin));
      ASSERT_EQ(ours, theirs) << json_string(text) << " seed " << seed;
    }
  }
}

TEST(Tokenizer, InvalidUtf8IsAnErrorThatNamesTheByte) {
  auto t = from_json(tiny_json({}));
  for (auto [text, at] :
       {std::pair<std::string, int>{"ab\xff", 2}, {"\xc3", 0}, {"a\xed\xa0\x80", 1}, {"\xc0\x80", 0}, {"\xf4\x90\x80\x80", 0}}) {
    auto ids = t->encode(text, true);
    ASSERT_FALSE(ids);
    EXPECT_EQ(ids.error().code, Code::kInvalidArgument);
    EXPECT_EQ(ids.error().message, cat("text is not valid UTF-8 at byte ", at));
  }
}

TEST(Tokenizer, DecodeReplacesBrokenBytesAsPythonDoes) {
  auto t = from_json(tiny_json({}));
  auto decode = [&](std::string_view bytes) {
    std::vector<TokenId> ids;
    for (char c : bytes) ids.push_back(t->id_of(alphabet(std::string(1, c))));
    return t->decode(ids, false);
  };
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(decode("a\xe4\xb8"), "a" + r);
  EXPECT_EQ(decode("\xe4\xb8"
                   "b"),
            r + "b");
  EXPECT_EQ(decode("\xff\xfe"), r + r);
  EXPECT_EQ(decode("\xed\xa0\x80"), r + r + r);
  EXPECT_EQ(decode("\xf0\x9f\x8e"
                   "x\xf0\x9f\x8e\x89"),
            r + "x🎉");
}

TEST(Tokenizer, SpecialTokensAreParsedOnlyWhenAsked) {
  auto t = Tokenizer::from_gguf(tiny_gguf("smollm"));
  ASSERT_TRUE(t);
  TokenId start = (*t)->id_of("<|im_start|>");
  ASSERT_GE(start, 0);
  EXPECT_THAT(*(*t)->encode("<|im_start|>", false), ElementsAre(start));
  EXPECT_GT((*t)->encode("<|im_start|>", false, false)->size(), 1u);
  EXPECT_TRUE((*t)->is_special(start));
  EXPECT_EQ((*t)->decode(std::vector{start}, true), "");
  EXPECT_EQ((*t)->decode(std::vector{start}, false), "<|im_start|>");
  EXPECT_THAT((*t)->stop_ids(), ::testing::Contains((*t)->id_of("<|im_end|>")));
}

TEST(Tokenizer, GgufRefusesWhatItDoesNotKnow) {
  auto error = [](GgufVocab v) {
    auto t = Tokenizer::from_gguf(std::move(v));
    return t ? std::string() : t.error().message;
  };
  EXPECT_THAT(error(tiny_gguf("my-own")), AllOf(HasSubstr("\"my-own\""), HasSubstr("llama-bpe"), HasSubstr("tokenizer.json")));
  EXPECT_THAT(error([] {
                auto v = tiny_gguf("qwen2");
                v.model = "bert";
                return v;
              }()),
              HasSubstr("\"bert\""));
  EXPECT_THAT(error([] {
                auto v = tiny_gguf("qwen2");
                v.bos = 1 << 20;
                return v;
              }()),
              HasSubstr("bos_token_id"));
  EXPECT_THAT(error([] {
                auto v = tiny_gguf("qwen2");
                v.token_type.pop_back();
                return v;
              }()),
              HasSubstr("token_type"));
  EXPECT_THAT(error([] {
                auto v = tiny_gguf("qwen2");
                v.merges.emplace_back("onesymbol");
                return v;
              }()),
              HasSubstr("merges["));
  EXPECT_THAT(error([] {
                auto v = tiny_gguf("qwen2");
                v.merges.emplace_back("zz qq");
                return v;
              }()),
              HasSubstr("not in the vocabulary"));
  EXPECT_THAT(error([] {
                auto v = tiny_gguf("qwen2");
                v.tokens[3] = "\xff";
                return v;
              }()),
              HasSubstr("tokens[3]"));
}

TEST(Tokenizer, GgufBosAndNfc) {
  auto v = tiny_gguf("qwen2");
  v.add_bos = true;
  v.bos = 256;
  auto t = Tokenizer::from_gguf(std::move(v));
  ASSERT_TRUE(t);
  auto ids = (*t)->encode("e\u0301", true);
  ASSERT_TRUE(ids);
  EXPECT_EQ(ids->front(), 256);
  EXPECT_EQ((*t)->decode(*ids, true), "é");  // composed, as Qwen's own tokenizer does
}

TEST(Tokenizer, PostProcessorAndConfigPutBosAround) {
  auto template_json =
      R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<|im_start|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
    "special_tokens":{"<|im_start|>":{"id":"<|im_start|>","ids":[256],"tokens":["<|im_start|>"]}}})";
  auto t = from_json(tiny_json({.post_processor = template_json}));
  EXPECT_THAT(*t->encode("a", true), ElementsAre(256, t->id_of("a")));
  EXPECT_THAT(*t->encode("a", false), ElementsAre(t->id_of("a")));
  auto llama = from_json(
      tiny_json({}), R"({"tokenizer_class":"LlamaTokenizerFast","bos_token":{"content":"<|im_start|>"},"eos_token":"<|im_end|>",
    "add_bos_token":true,"add_eos_token":false})");
  EXPECT_THAT(*llama->encode("a", true), ElementsAre(256, llama->id_of("a")));
  EXPECT_EQ(llama->bos_text(), "<|im_start|>");
  EXPECT_EQ(llama->eos(), 257);
}

TEST(Tokenizer, UnknownComponentsAreNamed) {
  EXPECT_THAT(load_error(tiny_json({.normalizer = R"({"type":"Precompiled"})"})), HasSubstr("\"Precompiled\""));
  EXPECT_THAT(load_error(tiny_json({.pre_tokenizer = R"({"type":"UnicodeScripts"})"})), HasSubstr("\"UnicodeScripts\""));
  EXPECT_THAT(load_error(tiny_json({.post_processor = R"({"type":"BertProcessing"})"})), HasSubstr("\"BertProcessing\""));
  EXPECT_THAT(load_error(tiny_json({.decoder = R"({"type":"WordPiece"})"})), HasSubstr("\"WordPiece\""));
  EXPECT_THAT(load_error(tiny_json({.pre_tokenizer = R"({"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"})"})),
              HasSubstr("regular expression"));
  EXPECT_THAT(load_error(tiny_json({.pre_tokenizer = R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Glued"})"})),
              HasSubstr("\"Glued\""));
  EXPECT_THAT(load_error(R"({"model":{"type":"Unigram","vocab":[]}})"), HasSubstr("Unigram"));
  EXPECT_THAT(load_error("[]"), HasSubstr("object"));
  EXPECT_THAT(load_error("{"), HasSubstr("tokenizer.json"));
  EXPECT_THAT(load_error(R"({"model":{"vocab":{"a":99999999999},"merges":[]},"pre_tokenizer":{"type":"ByteLevel"}})"),
              HasSubstr("id"));
  EXPECT_THAT(load_error(R"({"model":{"vocab":{"a":0},"merges":["a b"]},"pre_tokenizer":{"type":"ByteLevel"}})"),
              HasSubstr("\"b\""));
}

TEST(Tokenizer, SplitBehaviours) {
  auto words = [](std::string_view behavior, std::string_view invert = "false") {
    auto pre = PreTokenizer::from_json(
        *parse_json(cat(R"({"type":"Split","pattern":{"String":"-"},"behavior":")", behavior, R"(","invert":)", invert, "}")));
    PreTokenizer::Words w;
    EXPECT_TRUE(pre->split("-a--b-", true, w));
    std::string out;
    for (auto s : w.words) out += cat(s, '|');
    return out;
  };
  EXPECT_EQ(words("Isolated"), "-|a|-|-|b|-|");
  EXPECT_EQ(words("Removed"), "a|b|");
  EXPECT_EQ(words("MergedWithPrevious"), "-|a-|-|b-|");
  EXPECT_EQ(words("MergedWithNext"), "-a|-|-b|-|");
  EXPECT_EQ(words("Contiguous"), "-|a|--|b|-|");
  EXPECT_EQ(words("Removed", "true"), "-|-|-|-|");
}

TEST(Tokenizer, SentencePieceStyleJson) {
  // The shape of Llama 2's tokenizer.json: U+2581 for space, characters not in the vocabulary as bytes.
  std::string vocab = R"("<unk>":0,"<s>":1,"</s>":2,"▁":3,"a":4,"b":5,"▁a":6,"ab":7)";
  for (int b = 0; b < 256; ++b) vocab += cat(R"(,"<0x)", "0123456789ABCDEF"[b / 16], "0123456789ABCDEF"[b % 16], R"(>":)", 8 + b);
  std::string json = cat(R"({"added_tokens":[{"id":1,"content":"<s>","special":true},{"id":2,"content":"</s>","special":true}],
    "normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
    "pre_tokenizer":null,"post_processor":null,
    "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
    "model":{"type":"BPE","byte_fallback":true,"fuse_unk":true,"unk_token":"<unk>","vocab":{)",
                         vocab, R"(},"merges":["▁ a","a b"]}})");
  auto t = from_json(json);
  auto ids = t->encode("ab é", false);
  EXPECT_THAT(*ids, ElementsAre(6, 5, 3, 8 + 0xc3, 8 + 0xa9));
  EXPECT_EQ(t->decode(*ids, true), "ab é");
}

// SentencePiece's definition: join the neighbours whose concatenation scores best, leftmost first.
TEST(Tokenizer, SentencePieceGgufMergesByScore) {
  const uint64_t seed = 9;
  Prng prng(seed);
  for (int round = 0; round < 60; ++round) {
    GgufVocab v;
    v.model = "llama";
    v.unknown = 0;
    v.add_space_prefix = round % 2 == 0;
    std::map<std::string, float> score;
    auto add = [&](const std::string& text, int type) {
      v.tokens.push_back(text);
      v.token_type.push_back(type);
      v.scores.push_back(-static_cast<float>(prng.below(12)));  // ties are part of it
      if (type == 1) score[text] = v.scores.back();
    };
    add("<unk>", 2);
    for (size_t b = 0; b < 256; ++b) add(cat("<0x", "0123456789ABCDEF"[b / 16], "0123456789ABCDEF"[b % 16], ">"), 6);
    for (const char* s : {"▁", "a", "b", "é"}) add(s, 1);
    for (int i = 0; i < 25; ++i) {
      std::string both = v.tokens[257 + prng.below(v.tokens.size() - 257)] + v.tokens[257 + prng.below(v.tokens.size() - 257)];
      if (!score.contains(both) && both.size() < 12) add(both, 1);
    }
    auto tokens = v.tokens;
    bool prefix = v.add_space_prefix;
    auto t = Tokenizer::from_gguf(std::move(v));
    ASSERT_TRUE(t) << t.error().message;
    for (size_t length : {1u, 7u, 60u}) {
      std::string text;
      std::vector<std::string> want;
      if (prefix) want.emplace_back("▁");
      for (size_t i = 0; i < length; ++i) {
        std::string piece = std::vector<std::string>{" ", "a", "b", "é"}[prng.below(4)];
        text += piece;
        want.push_back(piece == " " ? "▁" : piece);
      }
      for (;;) {
        size_t best = want.size();
        for (size_t i = 0; i + 1 < want.size(); ++i) {
          auto it = score.find(want[i] + want[i + 1]);
          if (it != score.end() && (best == want.size() || it->second > score[want[best] + want[best + 1]])) best = i;
        }
        if (best == want.size()) break;
        want[best] += want[best + 1];
        want.erase(want.begin() + static_cast<ptrdiff_t>(best) + 1);
      }
      auto ids = *(*t)->encode(text, false);
      std::vector<std::string> got;
      for (TokenId id : ids) got.push_back(tokens[static_cast<size_t>(id)]);
      EXPECT_EQ(got, want) << "seed " << seed << " round " << round << " " << json_string(text);
      EXPECT_EQ((*t)->decode(ids, false), text);
    }
  }
}

TEST(Tokenizer, ManyThreadsGetTheSameIds) {
  auto t = Tokenizer::from_gguf(tiny_gguf("llama-bpe"));
  ASSERT_TRUE(t);
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i) texts.push_back(cat("hello hello world ", i * 7919, " the ", i % 5, " lazy dog's\n"));
  std::vector<std::vector<TokenId>> want;
  for (auto& s : texts) want.push_back(*(*t)->encode(s, true));
  std::vector<std::jthread> threads;
  for (int k = 0; k < 4; ++k) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(*(*t)->encode(texts[i], true), want[i]);
    });
  }
}

TEST(AddedTokens, LongestWinsAndTakesItsWhitespace) {
  AddedTokens tokens;
  tokens.add({.id = 1, .content = "<a>"}, "<a>");
  tokens.add({.id = 2, .content = "<a><b>"}, "<a><b>");
  tokens.add({.id = 3, .content = "<l>", .lstrip = true, .rstrip = true}, "<l>");
  tokens.add({.id = 4, .content = "w", .single_word = true}, "w");
  auto cut = [&](std::string_view text) {
    std::vector<AddedTokens::Part> parts;
    tokens.split(text, true, parts);
    std::string out;
    for (auto& p : parts) out += p.id < 0 ? cat('[', p.text, ']') : std::to_string(p.id);
    return out;
  };
  EXPECT_EQ(cut("x<a><b><a>"), "[x]21");
  EXPECT_EQ(cut("x  <l>\n y"), "[x]3[y]");
  EXPECT_EQ(cut("<l> <l>"), "33");
  EXPECT_EQ(cut("w ww éw w."), "4[ ww éw ]4[.]");
  EXPECT_EQ(cut("<a"), "[<a]");
  EXPECT_EQ(cut(""), "");
}

}  // namespace
}  // namespace baton::text
