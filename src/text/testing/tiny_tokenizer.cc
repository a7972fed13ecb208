#include "text/testing/tiny_tokenizer.h"

#include "base/json.h"

namespace baton::text::testing {

std::string alphabet(std::string_view bytes) {
  std::string out;
  for (char c : bytes) {
    auto b = static_cast<unsigned char>(c);
    auto plain = [](unsigned v) { return (v >= 33 && v <= 126) || (v >= 161 && v <= 172) || v >= 174; };
    char32_t shown = b;
    if (!plain(b)) {
      shown = 0x100;
      for (unsigned v = 0; v < b; ++v) shown += plain(v) ? 0 : 1;
    }
    append_utf8(out, shown);
  }
  return out;
}

std::string tiny_json(const TinyJson& parts) {
  std::string vocab, merges;
  int id = 0;
  for (; id < 256; ++id) vocab += cat(id > 0 ? "," : "", json_string(alphabet(std::string(1, static_cast<char>(id)))), ':', id);
  id = 258;
  for (const auto& [left, right] : parts.merges) {
    vocab += cat(',', json_string(alphabet(left + right)), ':', id++);
    merges += cat(merges.empty() ? "" : ",", '[', json_string(alphabet(left)), ',', json_string(alphabet(right)), ']');
  }
  return cat(
      R"({"version":"1.0","added_tokens":[{"id":256,"content":"<|im_start|>","special":true},{"id":257,"content":"<|im_end|>","special":true}],)",
      R"("normalizer":)", parts.normalizer, R"(,"pre_tokenizer":)", parts.pre_tokenizer, R"(,"post_processor":)",
      parts.post_processor, R"(,"decoder":)", parts.decoder, R"(,"model":{"type":"BPE","vocab":{)", vocab, R"(},"merges":[)",
      merges, "]}}");
}

GgufVocab tiny_gguf(std::string_view pre) {
  GgufVocab v;
  v.model = "gpt2";
  v.pre = pre;
  for (int b = 0; b < 256; ++b) v.tokens.push_back(alphabet(std::string(1, static_cast<char>(b))));
  v.token_type.assign(256, 1);
  for (std::string_view special : {"<|im_start|>", "<|im_end|>"}) {
    v.tokens.emplace_back(special);
    v.token_type.push_back(3);
  }
  v.eos = 257;
  for (auto [l, r] : {std::pair<std::string, std::string>{"h", "e"},
                      {"l", "l"},
                      {"he", "ll"},
                      {"hell", "o"},
                      {" ", "hello"},
                      {"t", "he"},
                      {" ", "the"},
                      {"\xc3", "\xa9"},
                      {"o", "r"},
                      {" w", "or"},
                      {" ", "w"},
                      {"l", "d"},
                      {" wor", "ld"}}) {
    v.tokens.push_back(alphabet(l + r));
    v.token_type.push_back(1);
    v.merges.push_back(alphabet(l) + " " + alphabet(r));
  }
  return v;
}

}  // namespace baton::text::testing
