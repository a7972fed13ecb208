#include "engine/speculative_config.h"

#include "base/json.h"
#include "engine/limits.h"

namespace baton::engine {
namespace {

struct Given {
  std::string_view method, model;
  std::optional<int64_t> tokens, lookup_min, lookup_max, batch;
};

Result<Given> read_given(const Json& json) {
  Given given;
  const std::pair<std::string_view, std::optional<int64_t>*> numbers[] = {{"num_speculative_tokens", &given.tokens},
                                                                          {"prompt_lookup_min", &given.lookup_min},
                                                                          {"prompt_lookup_max", &given.lookup_max},
                                                                          {"disable_by_batch_size", &given.batch}};
  for (size_t i = 0; i < json.keys.size(); ++i) {
    const std::string_view key = json.keys[i];
    const Json& value = json.items[i];
    if (key == "method" || key == "model") {
      if (!value.is_string() && !value.is_null()) return fail(Code::kInvalidArgument, key, " must be a string");
      (key == "method" ? given.method : given.model) = value.text;
      continue;
    }
    bool known = false;
    for (const auto& [name, target] : numbers) {
      if (name != key) continue;
      known = true;
      *target = value.as_int();
      if (!*target && !value.is_null()) return fail(Code::kInvalidArgument, key, " must be a whole number");
    }
    if (!known) return fail(Code::kInvalidArgument, key, " is not known, or belongs to another method than \"ngram\"");
  }
  return given;
}

Result<> check_method(const Given& given) {
  const std::string_view method = given.method.empty() ? given.model : given.method;
  if (method.empty()) return fail(Code::kInvalidArgument, "no method is given; \"ngram\" is supported");
  if (method == "ngram" || method == "[ngram]") return {};
  if (given.method.empty()) return fail(Code::kInvalidArgument, "draft models are not supported: model \"", method, "\"");
  return fail(Code::kInvalidArgument, "method \"", method, "\" is not supported; \"ngram\" is");
}

}  // namespace

Result<SpeculativeConfig> parse_speculative_config(std::string_view text) {
  const auto json = parse_json(text);
  if (!json || !json->is_object()) {
    return fail(Code::kInvalidArgument, "a JSON object is wanted", json ? std::string() : cat(": ", json.error().message));
  }
  BATON_TRY(const Given given, read_given(*json));
  BATON_OK(check_method(given));
  if (!given.tokens) return fail(Code::kInvalidArgument, "num_speculative_tokens must be provided");
  if (*given.tokens <= 0)
    return fail(Code::kInvalidArgument, "Expected num_speculative_tokens to be greater than zero (", *given.tokens, ").");
  if (*given.tokens > kDraftTokensMax) return fail(Code::kInvalidArgument, "num_speculative_tokens is at most ", kDraftTokensMax);
  const int64_t low = given.lookup_min.value_or(given.lookup_max.value_or(SpeculativeConfig{}.prompt_lookup_min));
  const int64_t high = given.lookup_max.value_or(low);
  if (low < 1) return fail(Code::kInvalidArgument, "prompt_lookup_min=", low, " must be > 0");
  if (high < 1) return fail(Code::kInvalidArgument, "prompt_lookup_max=", high, " must be > 0");
  if (low > high) return fail(Code::kInvalidArgument, "prompt_lookup_min=", low, " must be <= prompt_lookup_max=", high);
  if (high > kLookupTokensMax) return fail(Code::kInvalidArgument, "prompt_lookup_max is at most ", kLookupTokensMax);
  if (given.batch && (*given.batch < 2 || *given.batch > INT32_MAX)) {
    return fail(Code::kInvalidArgument, "Expect the batch size threshold of disabling speculative decoding is > 1, but got ",
                *given.batch);
  }
  SpeculativeConfig config{.num_speculative_tokens = static_cast<int32_t>(*given.tokens),
                           .prompt_lookup_min = static_cast<int32_t>(low),
                           .prompt_lookup_max = static_cast<int32_t>(high)};
  if (given.batch) config.disable_by_batch_size = static_cast<int32_t>(*given.batch);
  return config;
}

}  // namespace baton::engine
