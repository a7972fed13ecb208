#include "loadgen/workload.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/file.h"
#include "base/json.h"
#include "loadgen/limits.h"

namespace baton::loadgen {
namespace {

// Words that are one token with their leading space in the vocabularies of GPT-2, Llama 3, Qwen and SmolLM.
constexpr std::array<std::string_view, 128> kWords = {
    "the",   "of",    "and",     "to",      "in",    "is",   "that",   "for",   "it",     "as",      "was",    "with", "on",
    "by",    "he",    "are",     "be",      "this",  "from", "at",     "which", "or",     "have",    "not",    "one",  "had",
    "but",   "what",  "all",     "were",    "when",  "we",   "there",  "can",   "an",     "your",    "their",  "said", "if",
    "will",  "each",  "about",   "how",     "up",    "out",  "them",   "then",  "she",    "many",    "some",   "so",   "these",
    "would", "other", "into",    "has",     "more",  "two",  "like",   "him",   "see",    "time",    "could",  "no",   "make",
    "than",  "first", "been",    "its",     "who",   "now",  "people", "my",    "made",   "over",    "did",    "down", "only",
    "way",   "find",  "use",     "may",     "water", "long", "little", "very",  "after",  "words",   "called", "just", "where",
    "most",  "know",  "get",     "through", "back",  "much", "go",     "good",  "new",    "write",   "our",    "me",   "man",
    "too",   "any",   "day",     "same",    "right", "look", "think",  "also",  "around", "another", "came",   "come", "work",
    "three", "must",  "because", "does",    "part",  "even", "place",  "well",  "such",   "here",    "take"};

int vary(int length, double ratio, Prng& prng) {
  const auto lo = static_cast<int64_t>(std::floor(length * (1 - ratio))),
             hi = static_cast<int64_t>(std::ceil(length * (1 + ratio)));
  return static_cast<int>(std::max<int64_t>(1, prng.between(lo, hi)));
}

}  // namespace

std::string random_words(size_t words, Prng& prng) {
  std::string out;
  for (size_t i = 0; i < words; ++i) {
    if (i > 0) out += ' ';
    out += kWords[prng.below(kWords.size())];
  }
  return out;
}

std::vector<Prompt> random_prompts(const BenchConfig& config) {
  const int input = config.input_len > 0 ? config.input_len : config.random_input_len;
  const int output = config.output_len > 0 ? config.output_len : config.random_output_len;
  Prng shared(Prng::at(static_cast<uint64_t>(config.seed), 1));
  const std::string prefix = random_words(static_cast<size_t>(config.random_prefix_len), shared);
  std::vector<Prompt> prompts;
  for (int i = 0; i < config.num_prompts; ++i) {
    Prng prng(Prng::at(static_cast<uint64_t>(config.seed), static_cast<uint64_t>(i) + 1000));
    Prompt prompt;
    const int own = vary(input, config.random_range_ratio, prng);
    prompt.tokens = config.random_prefix_len + own;
    prompt.output_len = vary(output, config.random_range_ratio, prng);
    prompt.text = prefix + (prefix.empty() ? "" : " ") + random_words(static_cast<size_t>(own), prng);
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

Result<std::vector<Prompt>> parse_dataset(std::string_view jsonl, const BenchConfig& config) {
  std::vector<Prompt> prompts;
  for (int line = 1; !jsonl.empty(); ++line) {
    const size_t end = std::min(jsonl.find('\n'), jsonl.size());
    const std::string_view text = jsonl.substr(0, end);
    jsonl.remove_prefix(std::min(end + 1, jsonl.size()));
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto row = parse_json(text);
    if (!row) return fail(Code::kInvalidArgument, "dataset line ", line, ": ", row.error().message);
    const Json* prompt = row->find("prompt");
    if (prompt == nullptr || !prompt->is_string())
      return fail(Code::kInvalidArgument, "dataset line ", line, ": \"prompt\" must be a string");
    Prompt out{
        .text = prompt->text, .tokens = 0, .output_len = config.output_len > 0 ? config.output_len : config.custom_output_len};
    for (const char* key : {"output_len", "output_tokens", "max_tokens"}) {  // ours, vLLM's custom dataset, OpenAI's
      const Json* length = row->find(key);
      if (length == nullptr || length->is_null() || config.output_len > 0) continue;
      const auto n = length->as_int();
      if (!n || *n < 1 || *n > 10'000'000)
        return fail(Code::kInvalidArgument, "dataset line ", line, ": \"", key, "\" must be a positive number");
      out.output_len = static_cast<int>(*n);
      break;
    }
    prompts.push_back(std::move(out));
  }
  if (prompts.empty()) return fail(Code::kInvalidArgument, "the dataset has no prompts");
  // As vllm bench serve: too many are cut, too few are repeated.
  const size_t have = prompts.size(), want = static_cast<size_t>(config.num_prompts);
  for (size_t i = have; i < want; ++i) prompts.push_back(Prompt(prompts[i % have]));
  prompts.resize(want);
  return prompts;
}

Result<std::vector<Prompt>> load_dataset(const BenchConfig& config) {
  BATON_TRY(const std::string text, read_file(config.dataset_path, kDatasetBytesMax));
  return parse_dataset(text, config);
}

std::string request_body(const BenchConfig& config, bool chat, std::string_view model, const Prompt& prompt, bool ignore_eos) {
  JsonWriter w;
  w.object().field("model", model);
  if (chat) {
    w.key("messages").array().object().field("role", "user").key("content").array().object();
    w.field("type", "text").field("text", prompt.text).end().end().end().end();
    w.field("max_completion_tokens", prompt.output_len);
  } else {
    w.field("prompt", prompt.text).field("max_tokens", prompt.output_len);
  }
  w.field("stream", true).key("stream_options").object().field("include_usage", true).end();
  if (ignore_eos) w.field("ignore_eos", true);
  if (config.temperature >= 0) w.field("temperature", config.temperature);
  if (config.top_p >= 0) w.field("top_p", config.top_p);
  if (config.top_k > -2) w.field("top_k", config.top_k);
  if (config.min_p >= 0) w.field("min_p", config.min_p);
  if (config.repetition_penalty >= 0) w.field("repetition_penalty", config.repetition_penalty);
  if (!config.extra_body.empty()) {
    // Checked by check_config(). Readers take the last of equal keys, so what the person wrote wins.
    const auto extra = parse_json(config.extra_body);
    for (size_t i = 0; i < extra->keys.size(); ++i) w.key(extra->keys[i]).raw(extra->items[i].raw(config.extra_body));
  }
  w.end();
  return w.take();
}

}  // namespace baton::loadgen
