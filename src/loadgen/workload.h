#pragma once
// Workload: the prompts of a run, made before the first is timed. Random prompts are text from a seeded list of common words,
// nearly one token each in English vocabularies; where the server offers /tokenize and /detokenize they are cut to the exact
// length. Pure apart from load_dataset(), which reads a file.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/prng.h"
#include "base/result.h"
#include "loadgen/config.h"

namespace baton::loadgen {

struct Prompt {
  std::string text;
  int tokens = 0;  // wanted, or as counted; 0 = not known
  int output_len = 0;
};

std::string random_words(size_t words, Prng& prng);
std::vector<Prompt> random_prompts(const BenchConfig& config);
Result<std::vector<Prompt>> parse_dataset(std::string_view jsonl, const BenchConfig& config);
Result<std::vector<Prompt>> load_dataset(const BenchConfig& config);
std::string request_body(const BenchConfig& config, bool chat, std::string_view model, const Prompt& prompt, bool ignore_eos);

}  // namespace baton::loadgen
