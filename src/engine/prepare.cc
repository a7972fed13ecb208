#include "engine/prepare.h"

#include <algorithm>

#include "base/prng.h"
#include "text/chat_prompt.h"
#include "wire/errors.h"
#include "wire/limits.h"

namespace baton::engine {
namespace {

// Ids of one bad word, written as a word of its own and after a space: both forms must be masked.
Result<std::vector<std::vector<int32_t>>> bad_word_ids(const text::Tokenizer& tokenizer, const std::vector<std::string>& words) {
  std::vector<std::vector<int32_t>> out;
  for (const std::string& word : words) {
    const std::string bare = word.substr(std::min(word.find_first_not_of(' '), word.size()));
    BATON_TRY(auto alone, tokenizer.encode(bare, false, false));
    BATON_TRY(auto spaced, tokenizer.encode(" " + bare, false, false));
    if (alone.empty()) continue;
    const bool other = spaced.size() == alone.size() && spaced[0] != alone[0];
    out.push_back(std::move(alone));
    if (other) out.push_back(std::move(spaced));
  }
  return out;
}

Result<> check_logprob_ids(const wire::GenerateFields& f, int32_t vocab) {
  const wire::About about{"logprob_token_ids"};
  const std::vector<int32_t>& ids = f.logprob_token_ids;
  if (ids.size() > wire::kLogprobIdsMax)
    return wire::refuse(about, "Requested logprob_token_ids of length ", ids.size(), ", which is greater than max allowed: ",
                        wire::kLogprobIdsMax);
  std::string bad;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab) bad += cat(bad.empty() ? "" : ", ", id);
  }
  if (bad.empty()) return {};
  return wire::refuse(about, "token_id(s) [", bad, "] in logprob_token_ids contain out-of-vocab token ids. Vocabulary size: ", vocab);
}

Result<> check_ids(const Serving& s, const wire::GenerateFields& f) {
  const int32_t vocab = s.model->vocab;
  std::string bad;
  for (auto [id, bias] : f.logit_bias) {
    if (id < 0 || id >= vocab) bad += cat(bad.empty() ? "" : ", ", id);
  }
  if (!bad.empty()) {
    return wire::refuse(wire::About{"logit_bias"}, "token_id(s) [", bad,
                        "] in logit_bias contain out-of-vocab token ids. Vocabulary size: ", vocab);
  }
  for (int32_t id : f.stop_token_ids) {
    if (id < 0 || id >= vocab)
      return wire::refuse(wire::About{"stop_token_ids"}, "token_id(s) in stop_token_ids [", id,
                          "] are out of vocabulary. Vocabulary size: ", vocab);
  }
  for (int32_t id : f.allowed_token_ids.value_or(std::vector<int32_t>{})) {
    if (id < 0 || id >= vocab)
      return wire::refuse(wire::About{"allowed_token_ids"}, "allowed_token_ids contains out-of-vocab token id!");
  }
  BATON_OK(check_logprob_ids(f, vocab));
  const int max = s.config->max_logprobs;
  const auto asked = [&](const std::optional<int32_t>& n) { return n.value_or(0) < 0 ? vocab : n.value_or(0); };
  if (max >= 0 && f.logprob_token_ids.empty() && asked(f.logprobs) > max) {
    return wire::refuse(wire::About{"logprobs"}, "Requested sample logprobs of ", asked(f.logprobs),
                        ", which is greater than max allowed: ", max);
  }
  if (max >= 0 && asked(f.prompt_logprobs) > max) {
    return wire::refuse(wire::About{"prompt_logprobs"}, "Requested prompt logprobs of ", asked(f.prompt_logprobs),
                        ", which is greater than max allowed: ", max);
  }
  if (f.beam_search && max >= 0 && 2 * f.n > max) {  // each step asks for twice its width
    return wire::refuse(wire::About{"logprobs"}, "Requested sample logprobs of ", 2 * f.n,
                        ", which is greater than max allowed: ", max);
  }
  return {};
}

Result<SamplingParams> resolve_sampling(const Serving& s, const wire::GenerateFields& f) {
  const model::ModelConfig& m = *s.model;
  const bool defaults = s.config->generation_config != "vllm";
  const auto pick = [&](const std::optional<double>& asked, const std::optional<double>& models, double otherwise) {
    return asked ? *asked : defaults && models ? *models : otherwise;
  };
  const GenerationOverride& o = s.config->generation;
  const auto first = [](const auto& a, const auto& b) { return a ? a : b; };
  SamplingParams p;
  p.temperature = pick(first(f.temperature, o.temperature), m.gen_temperature, 1.0);
  p.top_p = pick(first(f.top_p, o.top_p), m.gen_top_p, 1.0);
  p.min_p = pick(first(f.min_p, o.min_p), m.gen_min_p, 0.0);
  const auto top_k = first(f.top_k, o.top_k);
  p.top_k = top_k ? *top_k : defaults ? m.gen_top_k.value_or(0) : 0;
  if (p.top_k < 0) p.top_k = 0;
  p.repetition_penalty = pick(first(f.repetition_penalty, o.repetition_penalty), m.gen_repetition_penalty, 1.0);
  p.frequency_penalty = first(f.frequency_penalty, o.frequency_penalty).value_or(0);
  p.presence_penalty = first(f.presence_penalty, o.presence_penalty).value_or(0);
  if (p.temperature >= kGreedyBelow && p.temperature < 0.01)
    p.temperature = 0.01;  // below it float32 softmax overflows to one-hot noise
  if (p.greedy() && f.n > 1 && !f.beam_search)
    return fail(Code::kInvalidArgument, "n must be 1 when using greedy sampling, got ", f.n, ".");
  const auto seed = f.seed ? f.seed : s.config->seed >= 0 ? std::optional(s.config->seed) : std::nullopt;
  p.seed = seed ? static_cast<uint64_t>(*seed) : secure_random_u64();
  p.min_tokens = f.min_tokens;
  p.logit_bias = f.logit_bias;
  if (f.allowed_token_ids) p.allowed = *f.allowed_token_ids;
  BATON_TRY(p.bad_words, bad_word_ids(*s.tokenizer, f.bad_words));
  if (!f.thinking_token_budget || f.beam_search) return p;
  if (!s.thinking) {
    return fail(Code::kInvalidArgument,
                "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-parser and/or "
                "--reasoning-config to use thinking_token_budget.");
  }
  p.thinking = s.thinking;
  p.thinking_budget = *f.thinking_token_budget;
  return p;
}

bool names_base(const Serving& s, std::string_view name) {
  const auto& names = s.config->served_model_names;
  return name.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

// Lengths that no prompt makes possible. Less room than asked for is no error: the answer ends where the context does.
Result<> check_lengths(const wire::GenerateFields& f, int32_t max_model_len) {
  if (f.max_tokens.value_or(0) > max_model_len) {
    return wire::refuse(wire::About{f.max_tokens_name}, f.max_tokens_name, "=", *f.max_tokens,
                        " cannot be greater than max_model_len=", max_model_len, ". Please request fewer output tokens.");
  }
  if (f.truncate_prompt_tokens.value_or(0) > max_model_len) {
    return wire::refuse(wire::About{"truncate_prompt_tokens"}, "truncate_prompt_tokens=", *f.truncate_prompt_tokens,
                        " cannot be greater than max_model_len = ", max_model_len, ". Please request a smaller truncation size.");
  }
  return {};
}

void truncate(const wire::GenerateFields& f, int32_t max_model_len, std::vector<int32_t>& prompt) {
  if (!f.truncate_prompt_tokens) return;
  // -1: as many as fit beside one token of the answer.
  const auto keep = static_cast<size_t>(*f.truncate_prompt_tokens == -1 ? max_model_len - 1 : *f.truncate_prompt_tokens);
  if (prompt.size() <= keep) return;
  if (f.truncate_left)
    prompt.erase(prompt.begin(), prompt.end() - static_cast<std::ptrdiff_t>(keep));
  else
    prompt.resize(keep);
}

}  // namespace

Result<std::string> render_chat(const Serving& s, const wire::ChatRequest& r) {
  Json kwargs = r.template_kwargs;
  const Json& defaults = s.config->template_kwargs;
  for (size_t i = 0; i < defaults.keys.size(); ++i) {
    if (!kwargs.find(defaults.keys[i])) kwargs.set(defaults.keys[i], defaults.items[i]);
  }
  static const Json kNone;
  const bool hide_tools = s.config->exclude_tools_when_none && r.tool_choice == wire::ToolChoice::kNone;
  return text::render_chat(s.chat_template, *s.tokenizer,
                           {.messages = r.messages,
                            .tools = hide_tools ? kNone : r.tools,
                            .documents = r.documents,
                            .template_kwargs = kwargs,
                            .chat_template = r.chat_template,
                            .add_generation_prompt = r.add_generation_prompt,
                            .continue_final_message = r.continue_final_message});
}

Result<std::vector<int32_t>> chat_tokens(const Serving& s, const wire::ChatRequest& r) {
  BATON_TRY(const std::string text, render_chat(s, r));
  return s.tokenizer->encode(text, r.add_special_tokens);
}

Result<std::vector<int32_t>> prompt_tokens(const Serving& s, const wire::Prompt& prompt, bool add_special) {
  if (const auto* text = std::get_if<std::string>(&prompt)) return s.tokenizer->encode(*text, add_special);
  const auto& ids = std::get<std::vector<int32_t>>(prompt);
  for (int32_t id : ids) {
    if (id < 0 || id >= s.model->vocab) return fail(Code::kInvalidArgument, "Token id ", id, " is out of vocabulary");
  }
  return ids;
}

Result<Submission> prepare_submission(const Serving& s, const wire::GenerateFields& f, std::vector<int32_t> prompt,
                                      bool prefill_leg) {
  BATON_OK(check_ids(s, f));
  BATON_OK(check_lengths(f, s.max_model_len));
  truncate(f, s.max_model_len, prompt);
  const auto tokens = static_cast<int32_t>(prompt.size());
  const int32_t length = s.max_model_len;
  if (prompt.empty()) return fail(Code::kInvalidArgument, "The decoder prompt cannot be empty");
  if (tokens > length) {
    return wire::refuse(
        wire::About{"input_tokens"}, "This model's maximum context length is ", length, " tokens. However, your prompt contains ",
        tokens,
        " input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.");
  }
  if (tokens == length)
    return wire::refuse(wire::About{"max_tokens"}, "max_tokens must be at least 1, got 0: the prompt fills the context.");
  Submission out;
  BATON_TRY(out.sampling, resolve_sampling(s, f));
  out.n = prefill_leg ? 1 : f.n;  // one sequence fills the cache; the decode leg makes the n answers
  out.prompt = std::move(prompt);
  const int32_t most = std::min(length - tokens, s.config->generation.max_new_tokens.value_or(length));
  out.max_tokens = std::clamp(f.max_tokens.value_or(most), 1, most);
  out.stop_ids = f.stop_token_ids;
  const int32_t eos = s.tokenizer->eos();
  if (eos >= 0) out.end_ids.push_back(eos);
  for (const std::vector<int32_t>* more : {&s.model->eos_ids, &s.tokenizer->stop_ids()}) {
    for (int32_t id : *more) {
      if (id != eos) out.end_ids.push_back(id);
    }
  }
  out.ignore_eos = f.ignore_eos;
  if (!f.ignore_eos) {
    // Of generation_config.json they are stop tokens, with their id as the reason; of the tokenizer alone they end as EOS does.
    const auto& listed = s.model->eos_ids;
    for (int32_t id : out.end_ids) {
      const bool reason = id != eos && std::find(listed.begin(), listed.end(), id) != listed.end();
      (reason ? out.stop_ids : out.eos_ids).push_back(id);
    }
  }
  if (prefill_leg) out.sampling.min_tokens = 0;
  out.sampling.masked_until_min = out.stop_ids;
  out.sampling.masked_until_min.insert(out.sampling.masked_until_min.end(), out.eos_ids.begin(), out.eos_ids.end());
  out.logprobs = f.logprobs;
  out.logprob_ids = f.logprob_token_ids;
  if (!f.beam_search)
    out.repetition = {.max_pattern = f.repetition.max_pattern, .min_pattern = f.repetition.min_pattern, .min_count = f.repetition.min_count};
  out.prompt_logprobs = prefill_leg ? std::nullopt : f.prompt_logprobs;
  out.priority = f.priority;
  out.cache_salt = f.cache_salt;
  if (!names_base(s, f.model)) {  // it may have been unloaded since its name was checked
    if (!s.adapters) return std::unexpected(no_such_model(f.model));
    BATON_TRY(out.adapter, s.adapters->find(f.model));
  }
  out.cache_hit_threshold = f.cache_hit_threshold;
  out.prefill_leg = prefill_leg;
  return out;
}

Result<> check_generates(const Serving& s, std::string_view api) {
  if (!s.pooling.on) return {};
  return fail(Code::kInvalidArgument, "The model does not support ", api);
}

Result<> check_model_name(const Serving& s, std::string_view name) {
  if (names_base(s, name) || (s.adapters && s.adapters->has(name))) return {};
  Error error = no_such_model(name);
  std::string served;
  for (const std::string& alias : s.config->served_model_names) served += cat(served.empty() ? "" : ", ", alias);
  error.message += cat(" Valid aliases: ", served, ".");
  return std::unexpected(std::move(error));
}

std::string answered_name(const Serving& s, std::string_view asked) {
  return s.adapters && s.adapters->has(asked) ? std::string(asked) : s.name();
}

}  // namespace baton::engine
