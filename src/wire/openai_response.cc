#include "wire/openai_response.h"

#include <cmath>

namespace baton::wire {
namespace {

void write_logprob(JsonWriter& w, float logprob) { w.value(std::isfinite(logprob) ? static_cast<double>(logprob) : -9999.0); }

void write_ids(JsonWriter& w, std::string_view key, const std::optional<std::vector<int32_t>>& ids) {
  w.key(key);
  if (!ids) {
    w.null();
    return;
  }
  w.array();
  for (int32_t id : *ids) w.value(id);
  w.end();
}

void write_head(JsonWriter& w, const Head& head, std::string_view object) {
  w.field("id", head.id).field("object", object).field("created", head.created).field("model", head.model);
}

void write_stop(JsonWriter& w, const Stop& stop, bool always_reason) {
  w.key("finish_reason");
  if (stop.finish_reason.empty())
    w.null();
  else
    w.value(stop.finish_reason);
  if (!always_reason && stop.finish_reason.empty()) return;
  w.key("stop_reason");
  if (stop.stop_string)
    w.value(*stop.stop_string);
  else if (stop.stop_token)
    w.value(*stop.stop_token);
  else
    w.null();
}

void write_fingerprint(JsonWriter& w, const Head& head) {
  if (head.system_fingerprint.empty())
    w.field_null("system_fingerprint");
  else
    w.field("system_fingerprint", head.system_fingerprint);
}

void write_usage_fields(JsonWriter& w, const Usage& usage, bool details) {
  w.object().field("prompt_tokens", usage.prompt_tokens);
  w.field("total_tokens", usage.prompt_tokens + usage.completion_tokens).field("completion_tokens", usage.completion_tokens);
  if (usage.cached_tokens)
    w.key("prompt_tokens_details").object().field("cached_tokens", *usage.cached_tokens).end();
  else if (details)
    w.field_null("prompt_tokens_details");
  if (details) w.field_null("completion_tokens_details");
  w.end();
}

void write_chat_entry(JsonWriter& w, const LogprobEntry& e) {
  w.field("token", e.token).key("logprob");
  write_logprob(w, e.logprob);
  w.key("bytes").array();
  for (unsigned char byte : e.bytes) w.value(static_cast<int>(byte));
  w.end();
}

void write_id_entry(JsonWriter& w, const LogprobEntry& e) {
  w.field("token_id", e.id).key("logprob");
  write_logprob(w, e.logprob);
  w.field("rank", e.rank);
}

// In words, or as the token API has it: ids in the place of words.
void write_chat_logprobs(JsonWriter& w, const Choice& c, void (*write_entry)(JsonWriter&, const LogprobEntry&) = write_chat_entry) {
  w.key("logprobs");
  if (!c.logprobs) {
    w.null();
    return;
  }
  w.object().key("content").array();
  for (const LogprobRow& row : c.rows) {
    if (row.empty()) continue;
    w.object();
    write_entry(w, row[0]);
    w.key("top_logprobs").array();
    const size_t top = c.top < 0 ? row.size() : std::min(row.size(), static_cast<size_t>(c.top));
    for (size_t i = 0; i < top; ++i) {
      w.object();
      write_entry(w, row[i]);
      w.end();
    }
    w.end().end();
  }
  w.end().end();
}

int64_t characters(std::string_view s) {
  int64_t n = 0;
  for (char c : s) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

// Completions: four parallel arrays. A JSON object has one value a key, so of tokens with equal text the first one stays: the
// sampled token, then the likelier.
void write_completion_logprobs(JsonWriter& w, const Choice& c) {
  w.key("logprobs");
  if (!c.logprobs) {
    w.null();
    return;
  }
  const auto is_null = [&](size_t i) { return c.rows[i].size() < 1 || (i == 0 && c.echo_rows > 0); };
  w.object().key("text_offset").array();
  int64_t offset = c.text_offset;
  for (const LogprobRow& row : c.rows) {
    w.value(offset);
    if (!row.empty()) offset += characters(row[0].token);
  }
  w.end().key("token_logprobs").array();
  for (size_t i = 0; i < c.rows.size(); ++i) {
    if (is_null(i))
      w.null();
    else
      write_logprob(w, c.rows[i][0].logprob);
  }
  w.end().key("tokens").array();
  for (const LogprobRow& row : c.rows) w.value(row.empty() ? std::string_view() : std::string_view(row[0].token));
  w.end().key("top_logprobs").array();
  for (size_t i = 0; i < c.rows.size(); ++i) {
    if (is_null(i)) {
      w.null();
      continue;
    }
    w.object();
    const LogprobRow& row = c.rows[i];
    const size_t entries = c.top < 0 ? row.size() : std::min(row.size(), static_cast<size_t>(c.top) + 1);
    for (size_t j = 0; j < entries; ++j) {
      bool repeated = false;
      for (size_t k = 0; k < j; ++k) repeated |= row[k].token == row[j].token;
      if (repeated) continue;
      w.key(row[j].token);
      write_logprob(w, row[j].logprob);
    }
    w.end();
  }
  w.end().end();
}

void write_prompt_rows(JsonWriter& w, const std::optional<std::vector<LogprobRow>>& rows) {
  w.key("prompt_logprobs");
  if (!rows) {
    w.null();
    return;
  }
  w.array();
  for (size_t i = 0; i < rows->size(); ++i) {
    if (i == 0) {
      w.null();
      continue;
    }
    w.object();
    for (const LogprobEntry& e : (*rows)[i]) {
      w.key(std::to_string(e.id)).object().key("logprob");
      write_logprob(w, e.logprob);
      w.field("rank", e.rank).field("decoded_token", e.token).end();
    }
    w.end();
  }
  w.end();
}

void write_kv(JsonWriter& w, std::string_view kv_transfer_params) {
  w.key("kv_transfer_params");
  if (kv_transfer_params.empty())
    w.null();
  else
    w.raw(kv_transfer_params);
  w.field_null("ec_transfer_params").field_null("metrics");
}

void write_permission(JsonWriter& w, const ModelCard& card) {
  w.key("permission").array().object().field("id", card.permission_id).field("object", "model_permission");
  w.field("created", card.created)
      .field("allow_create_engine", false)
      .field("allow_sampling", true)
      .field("allow_logprobs", true);
  w.field("allow_search_indices", false).field("allow_view", true).field("allow_fine_tuning", false).field("organization", "*");
  w.field_null("group").field("is_blocking", false).end().end();
}

// logprobs 0 shows the sampled token among the likeliest all the same.
void write_generate_choice(JsonWriter& w, Choice c, const GenerateStyle& style) {
  if (c.top == 0) c.top = 1;
  w.object().field("index", c.index);
  if (style.text) w.field("text", c.text);
  write_chat_logprobs(w, c, style.text ? write_chat_entry : write_id_entry);
  write_stop(w, c.stop, true);
  write_ids(w, "token_ids", c.token_ids);
  w.field_null("routed_experts").field_null("sampling_mask").field_null("weight_versions").end();
}

// Under the name of vLLM 0.11 and under that of later ones.
void write_reasoning(JsonWriter& w, const Choice& c) {
  if (c.reasoning) w.field("reasoning_content", *c.reasoning).field("reasoning", *c.reasoning);
}

void write_message(JsonWriter& w, const Choice& c) {
  w.key("message").object().field("role", "assistant").key("content");
  if (c.no_content)
    w.null();
  else
    w.value(c.text);
  w.field_null("refusal").field_null("annotations").field_null("audio").field_null("function_call").key("tool_calls").array();
  for (const ToolCall& call : c.tool_calls) {
    w.object().field("id", call.id).field("type", "function").key("function").object();
    w.field("name", call.name).field("arguments", call.arguments).end().end();
  }
  w.end();
  if (c.reasoning)
    write_reasoning(w, c);
  else
    w.field_null("reasoning_content").field_null("reasoning");
  w.end();
}

void write_last(JsonWriter& w, const Head& head, const Choice& c, bool says_who) {
  if (says_who && !c.stop.finish_reason.empty() && !head.system_fingerprint.empty()) write_fingerprint(w, head);
}

void write_delta(JsonWriter& w, const Choice& c, Delta delta) {
  w.key("delta").object();
  if (delta == Delta::kRole) w.field("role", "assistant");
  if (!c.no_content) w.field("content", c.text);
  write_reasoning(w, c);
  if (!c.tool_calls.empty()) w.key("tool_calls").array();
  for (const ToolCall& call : c.tool_calls) {
    w.object().field("index", call.index);
    if (!call.id.empty()) w.field("id", call.id).field("type", "function");
    w.key("function").object();
    if (!call.name.empty()) w.field("name", call.name);
    w.field("arguments", call.arguments).end().end();
  }
  if (!c.tool_calls.empty()) w.end();
  w.end();
}

}  // namespace

std::string chat_response(const Head& head, std::span<const Choice> choices, const Usage& usage,
                          std::string_view kv_transfer_params) {
  JsonWriter w;
  w.object();
  write_head(w, head, "chat.completion");
  w.key("choices").array();
  for (const Choice& c : choices) {
    w.object().field("index", c.index);
    write_message(w, c);
    write_chat_logprobs(w, c);
    write_stop(w, c.stop, true);
    write_ids(w, "token_ids", c.token_ids);
    w.field_null("routed_experts").end();
  }
  w.end().field_null("service_tier");
  write_fingerprint(w, head);
  w.key("usage");
  write_usage_fields(w, usage, true);
  const Choice* first = choices.empty() ? nullptr : &choices[0];
  write_prompt_rows(w, first ? first->prompt_rows : std::nullopt);
  write_ids(w, "prompt_token_ids", first ? first->prompt_token_ids : std::nullopt);
  if (first && first->prompt_text)
    w.field("prompt_text", *first->prompt_text);
  else
    w.field_null("prompt_text");
  write_kv(w, kv_transfer_params);
  w.end();
  return w.take();
}

std::string completion_response(const Head& head, std::span<const Choice> choices, const Usage& usage,
                                std::string_view kv_transfer_params) {
  JsonWriter w;
  w.object();
  write_head(w, head, "text_completion");
  w.key("choices").array();
  for (const Choice& c : choices) {
    w.object().field("index", c.index).field("text", c.text);
    write_completion_logprobs(w, c);
    write_stop(w, c.stop, true);
    write_ids(w, "token_ids", c.token_ids);
    write_prompt_rows(w, c.prompt_rows);
    write_ids(w, "prompt_token_ids", c.prompt_token_ids);
    w.field_null("routed_experts").end();
  }
  w.end().field_null("service_tier");
  write_fingerprint(w, head);
  w.key("usage");
  write_usage_fields(w, usage, true);
  write_kv(w, kv_transfer_params);
  w.end();
  return w.take();
}

std::string generate_response(const Head& head, std::span<const Choice> choices, const Usage& usage,
                              std::string_view kv_transfer_params, const GenerateStyle& style) {
  JsonWriter w;
  w.object().field("request_id", head.id).field("model", head.model).field("created", head.created).key("usage");
  write_usage_fields(w, usage, true);
  const Choice* first = choices.empty() ? nullptr : &choices[0];
  write_prompt_rows(w, first ? first->prompt_rows : std::nullopt);
  w.field_null("prompt_token_id_logprobs");
  write_ids(w, "prompt_token_ids", first && style.prompt_ids ? first->prompt_token_ids : std::nullopt);
  w.field_null("mm_placeholders");
  write_kv(w, kv_transfer_params);
  w.field("output_mode", style.text ? "text" : "tokens").key("choices").array();
  for (const Choice& c : choices) write_generate_choice(w, c, style);
  w.end().end();
  return w.take();
}

std::string generate_chunk(const Head& head, const Choice& c, const Usage* usage, const GenerateStyle& style) {
  JsonWriter w;
  w.object().field("request_id", head.id).key("usage");
  if (usage)
    write_usage_fields(w, *usage, true);
  else
    w.null();
  if (style.prompt_ids && c.prompt_token_ids) write_ids(w, "prompt_token_ids", c.prompt_token_ids);
  w.field("output_mode", style.text ? "text" : "tokens").key("choices").array();
  write_generate_choice(w, c, style);
  w.end().end();
  return w.take();
}

std::string generate_usage_chunk(const Head& head, const Usage& usage, const GenerateStyle& style) {
  JsonWriter w;
  w.object().field("request_id", head.id).key("usage");
  write_usage_fields(w, usage, false);
  w.field("output_mode", style.text ? "text" : "tokens").key("choices").array().end().end();
  return w.take();
}

std::string chat_chunk(const Head& head, const Choice& c, Delta delta, const Usage* usage, bool last_says_who) {
  JsonWriter w;
  w.object();
  write_head(w, head, "chat.completion.chunk");
  w.key("choices").array().object().field("index", c.index);
  write_delta(w, c, delta);
  write_chat_logprobs(w, c);
  write_stop(w, c.stop, false);
  if (c.token_ids) write_ids(w, "token_ids", c.token_ids);
  w.end().end();
  if (c.prompt_token_ids) write_ids(w, "prompt_token_ids", c.prompt_token_ids);
  if (c.prompt_text) w.field("prompt_text", *c.prompt_text);
  write_last(w, head, c, last_says_who);
  if (usage) {
    w.key("usage");
    write_usage_fields(w, *usage, false);
  }
  w.end();
  return w.take();
}

std::string completion_chunk(const Head& head, const Choice& c, const Usage* usage, bool last_says_who) {
  JsonWriter w;
  w.object();
  write_head(w, head, "text_completion");
  w.key("choices").array().object().field("index", c.index).field("text", c.text);
  write_completion_logprobs(w, c);
  write_stop(w, c.stop, true);
  if (c.prompt_token_ids) write_ids(w, "prompt_token_ids", c.prompt_token_ids);
  if (c.token_ids) write_ids(w, "token_ids", c.token_ids);
  w.end().end();
  write_last(w, head, c, last_says_who);
  if (usage) {
    w.key("usage");
    write_usage_fields(w, *usage, false);
  }
  w.end();
  return w.take();
}

std::string usage_chunk(const Head& head, bool chat, const Usage& usage) {
  JsonWriter w;
  w.object();
  write_head(w, head, chat ? "chat.completion.chunk" : "text_completion");
  w.key("choices").array().end().key("usage");
  write_usage_fields(w, usage, false);
  if (!head.system_fingerprint.empty()) write_fingerprint(w, head);
  w.end();
  return w.take();
}

std::string sse_event(std::string_view json) { return cat("data: ", json, "\n\n"); }

std::string model_card(const ModelCard& card) {
  JsonWriter w;
  w.object().field("id", card.id).field("object", "model").field("created", card.created).field("owned_by", "vllm");
  w.field("root", card.root);
  if (card.parent.empty())
    w.field_null("parent").field("max_model_len", card.max_model_len);
  else
    w.field("parent", card.parent).field_null("max_model_len");
  write_permission(w, card);
  w.end();
  return w.take();
}

std::string model_list(std::span<const ModelCard> cards) {
  JsonWriter w;
  w.object().field("object", "list").key("data").array();
  for (const ModelCard& card : cards) w.raw(model_card(card));
  w.end().end();
  return w.take();
}

std::string tokenize_response(std::span<const int32_t> tokens, int32_t max_model_len,
                              const std::vector<std::string>* token_strs) {
  JsonWriter w;
  w.object().field("count", tokens.size()).field("max_model_len", max_model_len).key("tokens").array();
  for (int32_t id : tokens) w.value(id);
  w.end().key("token_strs");
  if (token_strs) {
    w.array();
    for (const std::string& s : *token_strs) w.value(s);
    w.end();
  } else {
    w.null();
  }
  w.end();
  return w.take();
}

std::string detokenize_response(std::string_view prompt) {
  JsonWriter w;
  w.object().field("prompt", prompt).end();
  return w.take();
}

}  // namespace baton::wire
