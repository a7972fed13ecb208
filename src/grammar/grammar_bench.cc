// What a constraint costs: compiling it, the first mask of a place, and a mask that is known, over a vocabulary of 49,152 tokens
// of the shape that models have. BATON_VOCABULARY (one token a line, as a JSON string) measures a real one.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <fstream>

#include "grammar/constraint.h"
#include "grammar/testing/vocabulary.h"

namespace baton::grammar {
namespace {

const std::vector<std::string>& tokens() {
  static const std::vector<std::string> made = [] {
    std::vector<std::string> out;
    if (const char* path = std::getenv("BATON_VOCABULARY"); path != nullptr) {
      std::ifstream in(path);
      for (std::string line; std::getline(in, line);) {
        auto text = parse_json(line);
        out.push_back(text ? text->text : "");
      }
      return out;
    }
    out = testing::test_tokens(2000);  // punctuation, then words
    Prng prng(1);
    while (out.size() < 49'152) {
      std::string word = prng.chance(0.6) ? " " : "";
      for (uint64_t n = 2 + prng.below(8); n > 0; --n) word += static_cast<char>('a' + prng.below(26) * prng.below(26) / 25);
      out.push_back(word);
    }
    return out;
  }();
  return made;
}

const std::shared_ptr<const Vocabulary>& vocabulary() {
  static const auto made = testing::vocabulary_of(tokens());
  return made;
}

Constraint person() {
  return {
      .kind = Constraint::Kind::kSchema,
      .schema = *parse_json(
          R"({"type":"object","properties":{"name":{"type":"string"},"email":{"type":"string","maxLength":60},"age":{"type":"integer","minimum":0,"maximum":150},)"
          R"("tags":{"type":"array","items":{"type":"string"}},"home":{"type":"object","properties":{"street":{"type":"string"},"town":{"enum":["Paris","Rome"]}},"required":["street"]}},)"
          R"("required":["name","email","age","tags","home"]})")};
}
constexpr std::string_view kPerson =
    R"({"name": "Ada Lovelace", "email": "ada.lovelace@example.org", "age": 36, "tags": ["mathematics", "poetry"], "home": {"street": "12 St James's Square", "town": "Paris"}})";

void build_vocabulary(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(testing::vocabulary_of(tokens()));
}
BENCHMARK(build_vocabulary)->Unit(benchmark::kMillisecond);

void compile_constraint(benchmark::State& state) {
  const Constraint c = state.range(0) == 0 ? person() : Constraint{};
  for (auto _ : state) benchmark::DoNotOptimize(compile(c, vocabulary()));
  state.SetLabel(state.range(0) == 0 ? "schema" : "any object");
}
BENCHMARK(compile_constraint)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

// A whole answer, greedily cut into the longest tokens: one mask and one accept() a token. fresh: nothing known of earlier
// answers.
void answer(benchmark::State& state) {
  const bool fresh = state.range(0) == 1;
  const auto compiled = compile(person(), vocabulary()).value();
  std::vector<int32_t> ids;
  for (std::string_view rest = kPerson; !rest.empty();) {
    int32_t best = -1;
    for (int32_t t = 0; t < vocabulary()->tokens(); ++t) {
      const std::string_view bytes = vocabulary()->bytes(t);
      if (!bytes.empty() && rest.starts_with(bytes) && (best < 0 || bytes.size() > vocabulary()->bytes(best).size())) best = t;
    }
    ids.push_back(best);
    rest.remove_prefix(vocabulary()->bytes(best).size());
  }
  auto walker = std::make_shared<Walker>(compiled);
  for (auto _ : state) {
    if (fresh) walker = std::make_shared<Walker>(compiled);
    Matcher matcher(walker);
    for (const int32_t id : ids) {
      benchmark::DoNotOptimize(matcher.mask().data());
      if (!matcher.accept(id)) state.SkipWithError("the answer does not fit");
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(ids.size()) * state.iterations());
  state.counters["per_token"] = benchmark::Counter(static_cast<double>(ids.size()) * static_cast<double>(state.iterations()),
                                                   benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.SetLabel(fresh ? "fresh" : "known");
}
BENCHMARK(answer)->Arg(1)->Arg(0)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace baton::grammar
