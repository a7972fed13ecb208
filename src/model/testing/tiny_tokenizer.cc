#include <algorithm>
#include <map>

#include "base/json.h"
#include "model/testing/tiny_model.h"

namespace baton::model::testing {
namespace {

constexpr int32_t kNormal = 1, kControl = 3;
constexpr std::string_view kSpecials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

// Text whose words become tokens, most useful first: each word is merged from the left, one token a step.
constexpr std::string_view kWords[] = {" the",      " and",     " of",       " to",     " in",    " that",  " is",     " was",
                                       " for",      " with",    " you",      " not",    " this",  " from",  " have",   "ing",
                                       "tion",      "ment",     "er",        "ed",      "ly",     "The",    " one",    " what",
                                       " which",    " when",    " there",    " people", " model", " token", " system", " user",
                                       "system",    "user",     "assistant", "\n\n",    "  ",     "    ",   "return",  "self",
                                       "def",       "class",    "int",       "::",      "->",     " =",     " {",      "();",
                                       "...",       " work",    " world",    " hello",  " baton", " cache", " prompt", " answer",
                                       " question", " because", " between",  " number", " time"};

// The byte-level alphabet: printable bytes stand for themselves, the other 68 for U+0100 onward.
std::string byte_symbol(int byte) {
  const auto printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  char32_t symbol = static_cast<char32_t>(byte);
  if (!printable(byte)) {
    symbol = 256;
    for (int b = 0; b < byte; b++) symbol += printable(b) ? 0 : 1;
  }
  std::string out;
  append_utf8(out, symbol);
  return out;
}

}  // namespace

TinyTokenizer tiny_tokenizer(int32_t vocab) {
  TinyTokenizer t;
  const auto limit = static_cast<size_t>(vocab);
  for (const auto s : kSpecials) t.tokens.emplace_back(s);
  t.types.assign(t.tokens.size(), kControl);
  std::string symbols[256];
  for (int b = 0; b < 256; b++) t.tokens.push_back(symbols[b] = byte_symbol(b));
  for (const auto word : kWords) {
    std::string left = symbols[static_cast<unsigned char>(word[0])];
    for (size_t i = 1; i < word.size() && t.tokens.size() < limit; i++) {
      const std::string& right = symbols[static_cast<unsigned char>(word[i])];
      const std::string merge = left + " " + right;
      left += right;
      if (std::ranges::find(t.merges, merge) != t.merges.end()) continue;
      t.merges.push_back(merge);
      if (std::ranges::find(t.tokens, left) == t.tokens.end()) t.tokens.push_back(left);
    }
  }
  t.types.resize(t.tokens.size(), kNormal);
  for (int i = 0; t.tokens.size() < limit; i++) {
    t.tokens.push_back(cat("<|reserved_", i, "|>"));
    t.types.push_back(kControl);
  }
  return t;
}

std::string tiny_tokenizer_json(const TinyTokenizer& t, const std::string& family) {
  JsonWriter w;
  w.object().field("version", "1.0").field_null("truncation").field_null("padding");
  w.key("added_tokens").array();
  for (size_t i = 0; i < t.tokens.size(); i++) {
    if (t.types[i] != kControl) continue;
    w.object().field("id", i).field("content", t.tokens[i]).field("single_word", false).field("lstrip", false);
    w.field("rstrip", false).field("normalized", false).field("special", true).end();
  }
  w.end();
  if (family.starts_with("qwen")) {
    w.key("normalizer")
        .raw(R"({"type":"NFC"})")
        .key("pre_tokenizer")
        .raw(
            R"({"type":"Sequence","pretokenizers":[{"type":"Split",)"
            R"("pattern":{"Regex":"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|)"
            R"(\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},)"
            R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}]})");
  } else {
    w.field_null("normalizer")
        .key("pre_tokenizer")
        .raw(R"({"type":"Sequence","pretokenizers":[{"type":"Digits",)"
             R"("individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]})");
  }
  w.field_null("post_processor");
  w.key("decoder").raw(R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true})");
  w.key("model").object().field("type", "BPE").field_null("dropout").field_null("unk_token");
  w.field_null("continuing_subword_prefix").field_null("end_of_word_suffix").field("fuse_unk", false);
  w.field("byte_fallback", false).field("ignore_merges", false).key("vocab").object();
  for (size_t i = 0; i < t.tokens.size(); i++) w.field(t.tokens[i], i);
  w.end().key("merges").array();
  for (const auto& m : t.merges) w.value(m);
  w.end().end().end();
  return w.take();
}

std::string tiny_chat_template() {
  return "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
         "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
}

std::string tiny_tokenizer_config_json() {
  JsonWriter w;
  w.object()
      .field("add_prefix_space", false)
      .field("add_bos_token", false)
      .field("bos_token", kSpecials[1])
      .field("eos_token", kSpecials[2]);
  w.field("unk_token", kSpecials[0]).field("pad_token", kSpecials[2]).field("chat_template", tiny_chat_template());
  w.field("clean_up_tokenization_spaces", false)
      .field("model_max_length", 2048)
      .field("tokenizer_class", "PreTrainedTokenizerFast");
  w.end();
  return w.take();
}

}  // namespace baton::model::testing
