// Our ids against those of Hugging Face `tokenizers`, for every family that tests/text/make_tokenizer_cases.py wrote into the
// directory BATON_TOKENIZER_CASES. Skipped without it, because the peer is a Python package.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/json.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace baton::text {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Cases {
 public:
  explicit Cases(std::string bytes) : bytes_(std::move(bytes)) {}
  bool done() const { return at_ >= bytes_.size(); }
  std::string text() {
    size_t n = number();
    std::string out = bytes_.substr(at_, n);
    at_ += out.size();
    return out;
  }
  std::vector<TokenId> ids() {
    std::vector<TokenId> out(number());
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + at_, out.size() * 4);
    at_ += out.size() * 4;
    return out;
  }

 private:
  uint32_t number() {
    uint32_t n = 0;
    std::memcpy(&n, bytes_.data() + at_, 4);
    at_ += 4;
    return n;
  }
  std::string bytes_;
  size_t at_ = 0;
};

// The ids around the first difference, readable.
std::string difference(const Tokenizer& t, const std::vector<TokenId>& ours, const std::vector<TokenId>& theirs) {
  size_t i = 0;
  while (i < ours.size() && i < theirs.size() && ours[i] == theirs[i]) ++i;
  auto show = [&](const std::vector<TokenId>& ids) {
    std::string s;
    for (size_t k = i < 2 ? 0 : i - 2; k < ids.size() && k < i + 5; ++k)
      s += cat(' ', ids[k], '=', json_string(t.token_text(ids[k])));
    return s;
  };
  return cat("at token ", i, "\n  ours:  ", show(ours), "\n  theirs:", show(theirs));
}

std::string streamed(const Tokenizer& t, const std::vector<TokenId>& ids) {
  Detokenizer d(t, {.skip_special = false});
  std::string out;
  for (TokenId id : ids) out += d.add(id);
  return out + d.finish();
}

void check_family(const fs::path& dir) {
  auto loaded = Tokenizer::from_hf(read_file(dir / "tokenizer.json"), read_file(dir / "tokenizer_config.json"));
  ASSERT_TRUE(loaded) << loaded.error().message;
  const Tokenizer& t = **loaded;
  Cases cases(read_file(dir / "cases.bin"));
  size_t texts = 0, bytes = 0, different = 0;
  while (!cases.done()) {
    std::string text = cases.text();
    std::vector<TokenId> want = cases.ids();
    std::string decoded = cases.text();
    ++texts;
    bytes += text.size();
    auto got = t.encode(text, true);
    ASSERT_TRUE(got) << got.error().message;
    if (*got != want && ++different <= 5) {
      ADD_FAILURE() << "text " << texts << " " << json_string(text.substr(0, 200)) << ' ' << difference(t, *got, want);
    }
    bool text_right = t.decode(want, false) == decoded && streamed(t, want) == decoded;
    EXPECT_EQ(t.decode(want, false), decoded) << "text " << texts;
    EXPECT_EQ(streamed(t, want), decoded) << "text " << texts;
    if (!text_right) return;
  }
  EXPECT_EQ(different, 0u) << "of " << texts << " texts";
  EXPECT_GE(bytes, 1'000'000u);
  std::printf("  %s: %zu texts, %zu bytes identical\n", dir.filename().c_str(), texts - different, bytes);
}

TEST(TokenizerReference, IdsAreThoseOfHuggingFace) {
  const char* root = std::getenv("BATON_TOKENIZER_CASES");
  if (root == nullptr || *root == '\0') {
    GTEST_SKIP() << "set BATON_TOKENIZER_CASES to a directory written by tests/text/make_tokenizer_cases.py (./test does)";
  }
  size_t families = 0;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (!fs::exists(entry.path() / "tokenizer.json")) continue;
    SCOPED_TRACE(entry.path().filename().string());
    ++families;
    check_family(entry.path());
  }
  EXPECT_GE(families, 4u);
}

}  // namespace
}  // namespace baton::text
