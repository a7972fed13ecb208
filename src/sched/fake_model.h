#pragma once
// A stand-in for the model in scheduler tests: the KV of position p is a digest of the tokens [0, p], and the next token is a
// function of it. So a wrong block table, a block shared by mistake or a skipped position shows as wrong content or as a wrong
// answer.
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/prng.h"

namespace baton::sched {

constexpr int32_t kFakeVocab = 1000;

// Content of position i for every i: a chain over the tokens that starts at salt.
inline std::vector<uint64_t> fake_kv(std::span<const int32_t> tokens, uint64_t salt = 0) {
  std::vector<uint64_t> out;
  out.reserve(tokens.size());
  uint64_t state = mix64(salt + 1);
  for (int32_t token : tokens) out.push_back(state = mix64(state * 31 + static_cast<uint64_t>(token) + 1));
  return out;
}

inline int32_t fake_next(uint64_t last_content) { return static_cast<int32_t>(mix64(last_content) % kFakeVocab); }

// What a request must answer, whatever the scheduler does.
inline std::vector<int32_t> fake_answer(std::vector<int32_t> tokens, size_t n, uint64_t salt = 0) {
  size_t prompt = tokens.size();
  for (size_t i = 0; i < n; ++i) tokens.push_back(fake_next(fake_kv(tokens, salt).back()));
  return {tokens.begin() + static_cast<ptrdiff_t>(prompt), tokens.end()};
}

}  // namespace baton::sched
