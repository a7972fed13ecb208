// Speed of text work on one core: value, unit; the reference's own speed is printed by tests/text/make_tokenizer_cases.py.
// BATON_TOKENIZER_CASES (a directory that script wrote) adds real vocabularies; without it a small built-in one is measured.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/json.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/testing/tiny_tokenizer.h"
#include "text/tokenizer.h"

namespace baton::text {
namespace {

// English, code and numbers in the proportions of a coding chat; about 1 MB.
std::string prose() {
  static constexpr std::string_view kLines[] = {
      "The quick brown fox doesn't jump over the lazy dog, and it's 1,234 times more likely to sleep in 2024 than before.\n",
      "  for (size_t i = 0; i < items.size(); ++i) {\n    total += items[i].price * 1.19;  // including tax\n  }\n\n",
      "Über die Brücke fährt der Zug nach Köln; 今日は天気がいいですね。 Привет, как дела?\n",
      "| name | value | unit |\n|------|-------|------|\n| ttft |  12.5 | ms   |\n"};
  std::string out;
  for (int i = 0; out.size() < 1'000'000; ++i) {
    out += kLines[static_cast<size_t>(i) % 4];
    out += cat("Line ", i * 7919, " speaks of word", i % 977, ".\n");
  }
  return out;
}

void encode(benchmark::State& state, const Tokenizer& t, const std::string& text) {
  size_t tokens = 0;
  for (auto _ : state) {
    auto ids = t.encode(text, false);
    tokens = ids->size();
    benchmark::DoNotOptimize(ids);
  }
  state.SetBytesProcessed(static_cast<int64_t>(text.size()) * state.iterations());
  state.counters["bytes_per_token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
}

void detokenize(benchmark::State& state) {
  auto t = *Tokenizer::from_gguf(testing::tiny_gguf("llama-bpe"));
  auto ids = *t->encode(prose().substr(0, 20'000), false);
  for (auto _ : state) {
    Detokenizer d(*t, {.stop = {"\n\nUser:", "<|end|>"}});
    for (TokenId id : ids) benchmark::DoNotOptimize(d.add(id));
  }
  state.SetItemsProcessed(static_cast<int64_t>(ids.size()) * state.iterations());
}
BENCHMARK(detokenize);

void render(benchmark::State& state) {
  auto t = ChatTemplate::compile(
      "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}");
  std::string json = R"({"messages": [)";
  for (int i = 0; i < 20; ++i) json += cat(i > 0 ? "," : "", R"({"role": "user", "content": ")", std::string(200, 'x'), R"("})");
  auto variables = parse_json(json + "]}");
  for (auto _ : state) benchmark::DoNotOptimize(t->render(*variables));
  state.SetItemsProcessed(20 * state.iterations());
}
BENCHMARK(render);

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void add_tokenizer(const std::string& name, Result<std::unique_ptr<Tokenizer>> loaded) {
  if (!loaded) return;
  std::shared_ptr<Tokenizer> t = *std::move(loaded);
  auto text = std::make_shared<const std::string>(prose());
  benchmark::RegisterBenchmark(("encode/" + name).c_str(), [t, text](benchmark::State& s) { encode(s, *t, *text); });
}

const bool kRegistered = [] {
  for (const char* pre : {"llama-bpe", "smollm", "deepseek-v3"})
    add_tokenizer(cat("tiny/", pre), Tokenizer::from_gguf(testing::tiny_gguf(pre)));
  const char* root = std::getenv("BATON_TOKENIZER_CASES");
  if (root == nullptr || *root == '\0') return true;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    std::string json = read_file(entry.path() / "tokenizer.json");
    add_tokenizer(entry.path().filename().string(), Tokenizer::from_hf(json, ""));
  }
  return true;
}();

}  // namespace
}  // namespace baton::text
