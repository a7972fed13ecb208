#pragma once
// What must hold of any constraint that compiles: random walks through its masks never get stuck before the text may end (but
// where a limit of limits.h ends them), every token of a mask is accepted and no other, and JSON that ends is JSON.
#include <cstdlib>

#include "grammar/constraint.h"
#include "grammar/testing/vocabulary.h"

namespace baton::grammar::testing {

inline void fuzz_walk(const Constraint& constraint, uint64_t seed) {
  static const auto vocabulary = vocabulary_of(test_tokens(40));
  const auto require = [](bool yes) {
    if (!yes) std::abort();
  };
  const auto compiled = compile(constraint, vocabulary);
  if (!compiled) {
    require(!compiled.error().message.empty());
    return;
  }
  Matcher matcher(std::make_shared<Walker>(*compiled));
  Prng prng(seed);
  std::string text;
  for (int step = 0; step < 24; ++step) {
    const Mask mask = matcher.mask();
    std::vector<int32_t> allowed;
    for (int32_t t = 0; t < vocabulary->tokens(); ++t) {
      if (bit(mask, t)) allowed.push_back(t);
      if (step == 3) require(bit(mask, t) == matcher.accepts(t));
    }
    if (allowed.empty()) {
      require(matcher.may_end());
      if (constraint.kind == Constraint::Kind::kSchema) require(parse_json(text, {.depth_max = 300}).has_value());
      return;
    }
    const int32_t token = allowed[prng.below(allowed.size())];
    require(matcher.accept(token));
    text += vocabulary->bytes(token);
  }
}

// Input: a byte that seeds the walk, then the constraint's JSON.
inline int fuzz_json(Constraint::Kind kind, const uint8_t* data, size_t size) {
  if (size < 2 || size > 4096) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto json = parse_json(text, {.bytes_max = 1 << 16, .depth_max = 128});
  if (json) fuzz_walk({.kind = kind, .schema = *std::move(json)}, data[0]);
  return 0;
}

}  // namespace baton::grammar::testing
