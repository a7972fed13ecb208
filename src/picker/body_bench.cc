// Bodies through parse and hash in 16 KB pieces, bytes a second of one core. Reference: llm-d's picker takes 15.9 ms CPU for a
// 450 KB prompt (facts sheet "peers"), 0.03 GB/s; our aim is at least 0.5 GB/s through parse, hash and pick.
#include <benchmark/benchmark.h>

#include "base/prng.h"
#include "picker/answer_reader.h"
#include "picker/body_reader.h"

namespace {

using namespace baton;
using namespace baton::picker;

// kind 0: prose with a line break every 80 bytes; 1: the same as code, with quotes; 2: Chinese as UTF-8; 3: Chinese as \u escapes;
// 4: token ids.
std::string body_of(int kind, size_t bytes) {
  Prng prng(7);
  std::string text;
  while (text.size() < bytes) {
    if (kind == 4) {
      text += (text.empty() ? "" : ", ") + std::to_string(prng.below(128'000));
    } else if (kind == 3) {
      text += "\\u4e2d\\u6587";
    } else if (kind == 2) {
      text += "\xe4\xb8\xad\xe6\x96\x87";
    } else {
      for (size_t i = 0, n = kind == 1 ? 24 : 80; i < n; ++i) text += static_cast<char>('a' + prng.below(26));
      text += kind == 1 ? "(\\\"x\\\");\\n" : "\\n";
    }
  }
  if (kind == 4) return R"({"model":"m","prompt":[)" + text + "]}";
  return R"({"model":"m","messages":[{"role":"user","content":")" + text + R"("}],"stream":true})";
}

void BM_Body(benchmark::State& state) {
  const std::string body = body_of(static_cast<int>(state.range(0)), static_cast<size_t>(state.range(1)));
  const Shape shape = state.range(0) == 4 ? Shape::kCompletions : Shape::kChat;
  for (auto _ : state) {
    BodyReader reader({.shape = shape, .blocks_max = 1u << 20});
    for (size_t i = 0; i < body.size(); i += 16384) {
      if (!reader.feed(std::string_view(body).substr(i, 16384))) std::abort();
    }
    if (!reader.finish()) std::abort();
    benchmark::DoNotOptimize(reader.chain(1, "m"));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(body.size()));
}
BENCHMARK(BM_Body)->ArgsProduct({{0, 1, 2, 3, 4}, {450'000}})->Args({0, 800});

// One chunk of a stream, as vLLM writes them. Aim: well under a microsecond.
void BM_AnswerChunk(benchmark::State& state) {
  const std::string chunk =
      "data: {\"id\":\"chatcmpl-5471a768-14e5-4de7-b2f3-38fe9aa62298\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
      "\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" baton\"},\"logprobs\":null,"
      "\"finish_reason\":null}]}\n\n";
  AnswerOptions options{.stream = true};
  if (state.range(0) == 1) options.served = "meta-llama/Llama-3.1-8B-Instruct", options.asked = "llama";
  AnswerReader reader(options);
  for (auto _ : state) benchmark::DoNotOptimize(reader.pass(chunk, false));
}
BENCHMARK(BM_AnswerChunk)->Arg(0)->Arg(1);

}  // namespace
