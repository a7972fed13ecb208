#include "wire/openai.h"

#include <algorithm>
#include <charconv>

#include "wire/fields.h"
#include "wire/limits.h"
#include "wire/sampling_numbers.h"

namespace baton::wire {
namespace {

void read_sampling(Fields& f, GenerateFields& r) {
  read_sampling_numbers(f, r);
  f.integer("seed", r.seed);
  f.integer("n", r.n);
  f.integer("min_tokens", r.min_tokens);
  check_sampling_numbers(f, r);
  f.require(r.n >= 1, "n must be at least 1, got ", r.n, ".");
  f.require(r.n <= kChoicesMax, "n must be at most ", kChoicesMax, ", got ", r.n, ".");
  f.require(r.n == 1 || r.beam_search || !r.temperature || *r.temperature >= 1e-5, "n must be 1 when using greedy sampling, got ",
            r.n, ".");
  f.require(r.min_tokens >= 0, "min_tokens must be greater than or equal to 0, got ", r.min_tokens, ".");
  if (r.seed == -1) r.seed.reset();
}

// Beam search is on the engine's top of one-token steps, so what acts on the sampler or ends a text has no place in it.
void read_beams(Fields& f, GenerateFields& r) {
  f.flag("use_beam_search", r.beam_search);
  std::optional<double> penalty;
  f.number("length_penalty", penalty);
  r.length_penalty = penalty.value_or(1);
  if (!r.beam_search) return;
  for (std::string_view key : {"stop", "stop_token_ids", "bad_words", "logit_bias", "allowed_token_ids", "min_tokens",
                               "frequency_penalty", "presence_penalty", "repetition_penalty", "prompt_logprobs"}) {
    const Json* value = f.get(key);
    const double none = key == "repetition_penalty" ? 1 : 0;
    const bool set = value && (value->is_array() || value->is_object() ? !value->items.empty() : value->as_double() != none);
    if (set) f.reject(Code::kUnimplemented, "Beam search with ", key, " is not supported by this engine");
  }
  const Json* stream = f.get("stream");
  f.require(!stream || stream->as_bool() != true, "Beam search cannot be streamed: set `stream` to false.");
}

void read_stops(Fields& f, GenerateFields& r) {
  f.texts("stop", r.stop, kStopStringsMax, kStopStringBytesMax);
  f.require(std::none_of(r.stop.begin(), r.stop.end(), [](const std::string& s) { return s.empty(); }),
            "stop cannot contain an empty string.");
  f.integers("stop_token_ids", r.stop_token_ids, kStopTokensMax);
  f.flag("include_stop_str_in_output", r.include_stop_str_in_output);
  f.flag("ignore_eos", r.ignore_eos);
  f.flag("skip_special_tokens", r.skip_special_tokens);
  f.texts("bad_words", r.bad_words, kBadWordsMax, kBadWordBytesMax);
  f.require(std::none_of(r.bad_words.begin(), r.bad_words.end(), [](const std::string& s) { return s.empty(); }),
            "bad_words cannot contain an empty string.");
  if (f.has("allowed_token_ids")) {
    f.integers("allowed_token_ids", r.allowed_token_ids.emplace(), kAllowedTokensMax);
    f.require(!r.allowed_token_ids->empty(), About{"allowed_token_ids"}, "allowed_token_ids is not None and empty!");
  }
  const Json* bias = f.get("logit_bias");
  if (!bias) return;
  f.require(bias->is_object(), At{"logit_bias"}, "Input should be a valid dictionary");
  f.require(bias->items.size() <= kLogitBiasMax, At{"logit_bias"}, "Dictionary should have at most ", kLogitBiasMax, " items");
  for (size_t i = 0; i < bias->items.size() && !f.error(); ++i) {
    const std::string& key = bias->keys[i];
    int32_t id = -1;
    auto [end, problem] = std::from_chars(key.data(), key.data() + key.size(), id);
    f.require(problem == std::errc{} && end == key.data() + key.size(), About{"logit_bias"},
              "logit_bias contains key(s) that cannot be converted to integer token IDs: ['", key, "']");
    auto value = bias->items[i].as_double();
    f.require(value.has_value(), At{cat("logit_bias.", key)}, "Input should be a valid number");
    r.logit_bias.emplace_back(id, static_cast<float>(std::clamp(value.value_or(0), -100.0, 100.0)));
  }
}

void read_stream(Fields& f, GenerateFields& r) {
  f.flag("stream", r.stream);
  const Json* options = f.get("stream_options");
  if (!options) return;
  f.require(options->is_object(), At{"stream_options"}, "Input should be a valid dictionary");
  f.require(r.stream || options->items.empty(), About{"stream_options"},
            "Stream options can only be defined when `stream=True`.");
  if (f.error()) return;
  Fields o(*options, "stream_options");
  o.flag("include_usage", r.include_usage);
  o.flag("continuous_usage_stats", r.continuous_usage);
  r.continuous_usage &= r.include_usage;
  if (o.error()) f.reject(*o.error());
}

// What asks for something this engine does not do: said clearly, never ignored, because the answer would be wrong.
void refuse_unsupported(Fields& f) {
  const auto refuse = [&](std::string_view what) { f.reject(Code::kUnimplemented, what, " is not supported by this engine"); };
  for (std::string_view key : {"logits_processors", "prompt_embeds", "mm_processor_kwargs"}) {
    if (f.has(key)) refuse(key);
  }
}

// -1 is no budget, as none is; a truth or a number in a string is refused, where other fields take it.
void read_thinking_budget(Fields& f, GenerateFields& r) {
  const Json* budget = f.get("thinking_token_budget");
  if (!budget) return;
  const auto n = budget->is_number() && budget->text.find_first_of(".eE") == std::string::npos ? budget->as_int() : std::nullopt;
  f.require(n && *n >= -1, About{"thinking_token_budget"},
            "`thinking_token_budget` must be a non-negative integer or -1 for unlimited.");
  if (n && *n >= 0) r.thinking_token_budget = n;
}

void read_repetition(Fields& f, GenerateFields& r) {
  const Json* value = f.get("repetition_detection");
  if (!value) return;
  f.require(value->is_object(), At{"repetition_detection"}, "Input should be a dictionary or an instance of RepetitionDetectionParams");
  if (f.error()) return;
  Fields o(*value, "repetition_detection");
  RepetitionDetection& d = r.repetition;
  o.integer("max_pattern_size", d.max_pattern);
  o.integer("min_pattern_size", d.min_pattern);
  o.integer("min_count", d.min_count);
  if (o.error()) return f.reject(*o.error());
  f.require(d.max_pattern >= 0 && d.min_pattern >= 0 && d.min_pattern <= d.max_pattern,
            "max_pattern_size, min_pattern_size must be >=0, with min_pattern_size <= max_pattern_size. Set both to 0 to disable "
            "repetitive pattern detection.");
  f.require(d.max_pattern == 0 || d.min_count >= 2,
            "min_count must be >= 2 to detect repetitive patterns in engine output. If you do not wish to detect repetitive "
            "patterns, set max_pattern_size to 0.");
}

// Beside `logprobs`, which must be set: then it is these tokens that are shown, all of them.
void read_logprob_ids(Fields& f, GenerateFields& r, bool logprobs, std::string_view must) {
  f.integers("logprob_token_ids", r.logprob_token_ids, kRequestJson.nodes_max);
  if (r.logprob_token_ids.empty()) return;
  const About about{"logprob_token_ids"};
  f.require(!r.beam_search, about, "`logprob_token_ids` is not supported with beam search.");
  f.require(logprobs, about, "when using `logprob_token_ids`, `logprobs` must be set", must, ".");
  r.logprobs = kAllLogprobs;
}

void read_generate(Fields& f, GenerateFields& r) {
  constexpr size_t kNameMax = 1024;
  f.text("model", r.model, kNameMax);
  read_beams(f, r);
  read_sampling(f, r);
  read_stops(f, r);
  read_stream(f, r);
  refuse_unsupported(f);
  read_structured_output(f, r.structured);
  if (r.beam_search && r.structured)
    f.reject(Code::kUnimplemented, "Beam search with structured outputs is not supported by this engine");
  f.integer("truncate_prompt_tokens", r.truncate_prompt_tokens);
  f.require(r.truncate_prompt_tokens.value_or(-1) == -1 || *r.truncate_prompt_tokens >= 1,
            "truncate_prompt_tokens must be >= 1, got ", r.truncate_prompt_tokens.value_or(0));
  std::string side = "left";
  f.text("truncation_side", side, 16);
  f.require(side == "left" || side == "right", At{"truncation_side"}, "Input should be 'left' or 'right'");
  r.truncate_left = side != "right";
  f.engine_integer("prompt_logprobs", r.prompt_logprobs);
  if (r.prompt_logprobs) {
    f.require(!r.stream || *r.prompt_logprobs == 0, About{"prompt_logprobs"},
              "`prompt_logprobs` are not available when `stream=True`.");
    f.require(*r.prompt_logprobs >= kAllLogprobs, About{"prompt_logprobs"}, "`prompt_logprobs` must be a positive value or -1.");
  }
  f.integer("priority", r.priority);
  f.text("request_id", r.request_id, kRequestIdBytesMax);
  if (f.has("cache_salt")) {
    f.text("cache_salt", r.cache_salt, kCacheSaltBytesMax);
    f.require(!r.cache_salt.empty(), About{"cache_salt"}, "Parameter 'cache_salt' must be a non-empty string if provided.");
  }
  read_thinking_budget(f, r);
  read_repetition(f, r);
  f.flag("add_special_tokens", r.add_special_tokens);
  f.flag("return_tokens_as_token_ids", r.return_tokens_as_token_ids);
  f.flag("return_token_ids", r.return_token_ids);
  f.number("cache_hit_threshold", r.cache_hit_threshold);
  f.require(r.cache_hit_threshold.value_or(0) >= 0 && r.cache_hit_threshold.value_or(0) <= 1,
            "cache_hit_threshold must be in [0, 1]");
  if (const Json* kv = f.get("kv_transfer_params")) {
    f.require(kv->is_object(), At{"kv_transfer_params"}, "Input should be a valid dictionary");
    if (!f.error()) r.kv_transfer_params = *kv;
  }
  f.known({"user", "stream_interval", "session_id", "ec_transfer_params", "spaces_between_special_tokens", "vllm_xargs",
           "service_tier", "store", "metadata", "best_of"});
}

Result<> finish(Fields& f, GenerateFields& r) {
  f.require(!r.max_tokens || r.min_tokens <= *r.max_tokens,
            "min_tokens must be less than or equal to max_tokens=", r.max_tokens.value_or(0), ", got ", r.min_tokens, ".");
  if (f.error()) return std::unexpected(*f.error());
  r.unknown = f.unknown();
  return {};
}

// A content list of text parts stays a list: whether the template wants parts or one string is known only with the model.
void check_message(Fields& f, const Json& message, size_t index) {
  f.require(message.is_object(), At{cat("messages[", index, "]")}, "Input should be a valid dictionary");
  if (f.error()) return;
  const Json* role = message.find("role");
  f.require(role && role->is_string() && !role->text.empty(), At{cat("messages[", index, "].role")}, "Field required");
  const Json* content = message.find("content");
  if (!content || content->is_null() || content->is_string()) return;
  f.require(content->is_array(), At{cat("messages[", index, "].content")}, "Input should be a valid string or list");
  for (const Json& part : content->items) {
    if (part.is_string()) continue;
    const Json* type = part.find("type");
    const std::string_view name = type ? type->as_string().value_or("") : "";
    f.require(!name.empty(), At{cat("messages[", index, "].content")}, "each part needs a 'type'");
    if (name == "text" || name == "input_text" || name == "refusal" || name == "thinking") continue;
    f.reject(Code::kInvalidArgument, "At most 0 ", name.substr(0, name.find('_')),
             "(s) may be provided in one prompt: the model takes text only.");
  }
}

void read_messages(Fields& f, ChatRequest& r) {
  const Json* messages = f.get("messages");
  f.require(messages != nullptr, At{"messages"}, "Field required");
  if (f.error()) return;
  f.require(messages->is_array(), At{"messages"}, "Input should be a valid list");
  f.require(!messages->items.empty(), At{"messages"}, "List should have at least 1 item after validation, not 0");
  f.require(messages->items.size() <= kMessagesMax, At{"messages"}, "List should have at most ", kMessagesMax, " items");
  if (f.error()) return;
  for (size_t i = 0; i < messages->items.size(); ++i) check_message(f, messages->items[i], i);
  r.messages = messages->items;
}

void check_tool(Fields& f, const Json& tool, size_t index) {
  f.require(tool.is_object(), At{cat("tools[", index, "]")}, "Input should be a valid dictionary");
  if (f.error()) return;
  const Json* type = tool.find("type");
  f.require(!type || type->as_string() == "function", At{cat("tools[", index, "].type")}, "Input should be 'function'");
  const Json* function = tool.find("function");
  f.require(function && function->is_object(), At{cat("tools[", index, "].function")}, "Field required");
  const Json* name = function ? function->find("name") : nullptr;
  f.require(name && name->is_string() && !name->text.empty(), At{cat("tools[", index, "].function.name")}, "Field required");
}

void read_tools(Fields& f, ChatRequest& r) {
  const Json* tools = f.get("tools");
  const Json* choice = f.get("tool_choice");
  f.flag("parallel_tool_calls", r.parallel_tool_calls);
  if (tools) {
    f.require(tools->is_array(), At{"tools"}, "Input should be a valid list");
    f.require(tools->items.size() <= kToolsMax, At{"tools"}, "List should have at most ", kToolsMax, " items");
    for (size_t i = 0; i < tools->items.size() && !f.error(); ++i) check_tool(f, tools->items[i], i);
    r.tools = *tools;
  }
  const bool any = tools && !tools->items.empty();
  std::string_view wanted = any ? "auto" : "none";
  if (choice) wanted = choice->is_object() ? "named" : choice->as_string().value_or("?");
  if (wanted == "none") return;
  f.require(wanted == "auto" || wanted == "required" || wanted == "named", About{"tool_choice"},
            "Invalid value for `tool_choice`: only named tools, \"none\", \"auto\" or \"required\" are supported.");
  f.require(any, About{"tool_choice"}, "When using `tool_choice`, `tools` must be set.");
  if (wanted == "named" && any) {
    const Json* name = choice->find_path({"function", "name"});
    f.require(name && name->is_string(), "Expected field `function` with a `name` in `tool_choice`.");
    f.require(std::any_of(tools->items.begin(), tools->items.end(),
                          [&](const Json& tool) {
                            const Json* have = tool.find_path({"function", "name"});
                            return name && have && have->text == name->text;
                          }),
              About{"tool_choice"}, "The tool specified in `tool_choice` does not match any of the specified `tools`");
  }
  if (f.error()) return;
  r.tool_choice = wanted == "auto" ? ToolChoice::kAuto : wanted == "required" ? ToolChoice::kRequired : ToolChoice::kNamed;
  if (wanted == "named") r.named_tool = choice->find_path({"function", "name"})->text;
  if (wanted != "auto" && r.beam_search)
    f.reject(Code::kUnimplemented, "Beam search with tool_choice '", wanted, "' is not supported by this engine");
  // Both say what the answer must be.
  f.require(wanted == "auto" || !r.structured, "You can only either use constraints for structured outputs or tools, not both.");
}

// After read_template(). vLLM hands the effort to the template among its kwargs.
void read_reasoning(Fields& f, ChatRequest& r) {
  f.flag("include_reasoning", r.include_reasoning);
  std::string effort;
  f.text("reasoning_effort", effort, 16);
  constexpr std::string_view kEfforts[] = {"", "none", "minimal", "low", "medium", "high", "xhigh", "max"};
  f.require(std::find(std::begin(kEfforts), std::end(kEfforts), effort) != std::end(kEfforts), At{"reasoning_effort"},
            "Input should be 'none', 'minimal', 'low', 'medium', 'high', 'xhigh' or 'max'");
  if (effort.empty() || r.template_kwargs.find("reasoning_effort")) return;
  Json value;
  value.kind = Json::Kind::kString;
  value.text = effort;
  r.template_kwargs.set("reasoning_effort", std::move(value));
}

void read_template(Fields& f, ChatRequest& r) {
  constexpr size_t kTemplateMax = 1u << 20;
  f.text("chat_template", r.chat_template, kTemplateMax);
  f.flag("add_generation_prompt", r.add_generation_prompt);
  f.flag("continue_final_message", r.continue_final_message);
  f.flag("echo", r.echo);
  f.require(!r.continue_final_message || !r.add_generation_prompt,
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.");
  if (const Json* documents = f.get("documents")) r.documents = *documents;
  if (const Json* kwargs = f.get("chat_template_kwargs")) {
    f.require(kwargs->is_object(), At{"chat_template_kwargs"}, "Input should be a valid dictionary");
    r.template_kwargs = *kwargs;
  }
}

void read_prompts(Fields& f, CompletionRequest& r) {
  const Json* prompt = f.get("prompt");
  f.require(prompt != nullptr, About{"prompt"}, "Either prompt or prompt_embeds must be provided and non-empty.");
  if (f.error()) return;
  f.require(prompt->is_string() || prompt->is_array(), At{"prompt"},
            "Input should be a valid string, list of strings or list of token ids");
  const auto ids = [&](const Json& list) {
    std::vector<int32_t> out;
    out.reserve(list.items.size());
    for (const Json& item : list.items) {
      auto id = item.as_int();
      f.require(id && *id >= 0 && *id <= INT32_MAX, At{"prompt"}, "Input should be a valid token id");
      out.push_back(static_cast<int32_t>(id.value_or(0)));
    }
    return out;
  };
  if (prompt->is_string()) {
    r.prompts.emplace_back(prompt->text);
  } else if (!prompt->items.empty() && prompt->items[0].is_number()) {
    r.prompts.emplace_back(ids(*prompt));
  } else if (prompt->is_array()) {
    for (const Json& item : prompt->items) {
      f.require(item.is_string() || item.is_array(), At{"prompt"}, "Input should be a valid string or list of token ids");
      if (f.error()) return;
      if (item.is_string())
        r.prompts.emplace_back(item.text);
      else
        r.prompts.emplace_back(ids(item));
    }
  }
  f.require(!r.prompts.empty(), About{"prompt"}, "Either prompt or prompt_embeds must be provided and non-empty.");
  f.require(r.prompts.size() * static_cast<size_t>(r.n) <= static_cast<size_t>(kChoicesMax), At{"prompt"}, "at most ",
            kChoicesMax, " prompts times n, got ", r.prompts.size(), " times ", r.n);
}

Result<> check_object(const Json& body) {
  if (!body.is_object()) return refuse(At{}, "Input should be a valid dictionary, got ", body.kind_name());
  return {};
}

}  // namespace

Result<ChatRequest> parse_chat_request(const Json& body) {
  BATON_OK(check_object(body));
  Fields f(body);
  ChatRequest r;
  read_messages(f, r);
  read_generate(f, r);
  read_tools(f, r);
  read_template(f, r);
  read_reasoning(f, r);
  std::optional<int32_t> max_completion_tokens;
  f.integer("max_tokens", r.max_tokens);
  f.integer("max_completion_tokens", max_completion_tokens);
  if (max_completion_tokens) {
    r.max_tokens = max_completion_tokens;
    r.max_tokens_name = "max_completion_tokens";
  }
  f.require(r.max_tokens.value_or(1) >= 1, About{"max_tokens"}, "max_tokens must be at least 1, got ", r.max_tokens.value_or(0),
            ".");

  bool logprobs = false;
  std::optional<int32_t> top_logprobs;
  f.flag("logprobs", logprobs);
  f.engine_integer("top_logprobs", top_logprobs);
  f.require(top_logprobs.value_or(0) >= kAllLogprobs, About{"top_logprobs"}, "`top_logprobs` must be a positive value or -1.");
  f.require(top_logprobs.value_or(0) == 0 || logprobs, About{"top_logprobs"},
            "when using `top_logprobs`, `logprobs` must be set to true.");
  if (logprobs) r.logprobs = top_logprobs.value_or(0);
  read_logprob_ids(f, r, logprobs, " to true");
  f.flag("return_prompt_text", r.return_prompt_text);
  BATON_OK(finish(f, r));
  return r;
}

Result<CompletionRequest> parse_completion_request(const Json& body) {
  BATON_OK(check_object(body));
  Fields f(body);
  CompletionRequest r;
  r.add_special_tokens = true;
  read_generate(f, r);
  read_prompts(f, r);
  f.flag("echo", r.echo);
  f.integer("max_tokens", r.max_tokens);
  if (!r.max_tokens) r.max_tokens = 16;  // OpenAI's default for this endpoint
  // max_tokens 0 is how clients score a prompt with echo; the engine computes one token and drops it.
  f.require(*r.max_tokens >= (r.echo ? 0 : 1), About{"max_tokens"}, "max_tokens must be at least 1, got ", *r.max_tokens, ".");
  f.integer("logprobs", r.logprobs);
  f.require(r.logprobs.value_or(0) >= kAllLogprobs, About{"logprobs"}, "`logprobs` must be a positive value or -1.");
  const bool none = r.echo && *r.max_tokens == 0;
  f.require(!none || !f.has("logprob_token_ids"), About{"logprob_token_ids"},
            "`logprob_token_ids` is not supported when `echo=True` and `max_tokens=0` because no output tokens are generated.");
  const std::optional<int32_t> prompt_rows = r.logprobs;
  read_logprob_ids(f, r, r.logprobs.has_value(), "");
  f.require(!f.has("suffix"), About{"suffix"}, "suffix is not currently supported");
  if (r.echo && prompt_rows && !r.prompt_logprobs) r.prompt_logprobs = prompt_rows;
  BATON_OK(finish(f, r));
  return r;
}

Result<TokenizeRequest> parse_tokenize_request(const Json& body) {
  BATON_OK(check_object(body));
  Fields f(body);
  TokenizeRequest r;
  f.text("model", r.model, 1024);
  f.flag("return_token_strs", r.return_token_strs);
  if (const Json* prompt = f.get("prompt")) {
    f.require(prompt->is_string(), At{"prompt"}, "Input should be a valid string");
    r.prompt = prompt->text;
  } else {
    r.add_special_tokens = false;
    read_messages(f, r.chat);
    read_template(f, r.chat);
    read_reasoning(f, r.chat);
    if (const Json* tools = f.get("tools")) r.chat.tools = *tools;
  }
  f.flag("add_special_tokens", r.add_special_tokens);
  if (f.error()) return std::unexpected(*f.error());
  return r;
}

Result<DetokenizeRequest> parse_detokenize_request(const Json& body) {
  BATON_OK(check_object(body));
  Fields f(body);
  DetokenizeRequest r;
  f.text("model", r.model, 1024);
  f.require(f.has("tokens"), At{"tokens"}, "Field required");
  f.integers("tokens", r.tokens, kRequestJson.nodes_max);
  f.require(std::all_of(r.tokens.begin(), r.tokens.end(), [](int32_t id) { return id >= 0; }), At{"tokens"},
            "Input should be greater than or equal to 0");
  if (f.error()) return std::unexpected(*f.error());
  return r;
}

}  // namespace baton::wire
