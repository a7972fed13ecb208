// The answers of /v1/responses.
#include <cmath>

#include "base/prng.h"
#include "wire/responses.h"

namespace baton::wire {
namespace {

JsonWriter& raw_or_null(JsonWriter& w, std::string_view key, std::string_view json) {
  return json.empty() ? w.field_null(key) : w.key(key).raw(json);
}

void write_usage(JsonWriter& w, const Usage& usage) {
  w.object().field("input_tokens", usage.prompt_tokens).key("input_tokens_details").object();
  w.field("cached_tokens", usage.cached_tokens.value_or(0)).field("cache_write_tokens", 0).key("input_tokens_per_turn").array().end();
  w.key("cached_tokens_per_turn").array().end().end();
  w.field("output_tokens", usage.completion_tokens).key("output_tokens_details").object();
  w.field("reasoning_tokens", usage.reasoning_tokens).field("tool_output_tokens", 0);
  w.key("output_tokens_per_turn").array().end().key("tool_output_tokens_per_turn").array().end().end();
  w.field("total_tokens", usage.prompt_tokens + usage.completion_tokens).end();
}

void write_logprob(JsonWriter& w, const LogprobEntry& e, bool bytes) {
  w.field("token", e.token).key("logprob").value(std::isfinite(e.logprob) ? static_cast<double>(e.logprob) : -9999.0);
  if (!bytes) return;
  w.key("bytes").array();
  for (const unsigned char byte : e.bytes) w.value(static_cast<int>(byte));
  w.end();
}

// Elements of a logprobs list, comma separated. bytes: a delta's have none.
std::string logprobs_of(const Choice& c, bool bytes) {
  std::string out;
  for (const LogprobRow& row : c.rows) {
    if (row.empty()) continue;
    JsonWriter w;
    w.object();
    write_logprob(w, row[0], bytes);
    w.key("top_logprobs").array();
    const size_t top = c.top < 0 ? row.size() : std::min(row.size(), static_cast<size_t>(c.top));
    for (size_t i = 0; i < top; ++i) {
      w.object();
      write_logprob(w, row[i], bytes);
      w.end();
    }
    w.end().end();
    out += cat(out.empty() ? "" : ",", w.text());
  }
  return out;
}

// part: a content part of the text. logprobs: nullptr = the request did not ask.
std::string text_part(std::string_view text, const std::string* logprobs) {
  return cat(R"({"annotations":[],"text":)", json_string(text), R"(,"type":"output_text","logprobs":)",
             logprobs ? cat("[", *logprobs, "]") : "null", "}");
}
std::string reasoning_part(std::string_view text) {
  return cat(R"({"text":)", json_string(text), R"(,"type":"reasoning_text"})");
}

std::string text_item(std::string_view id, std::string_view parts, std::string_view status) {
  return cat(R"({"id":)", json_string(id), R"(,"content":[)", parts, R"(],"role":"assistant","status":")", status,
             R"(","type":"message","phase":null})");
}
std::string reasoning_item(std::string_view id, std::string_view parts, std::string_view status) {
  return cat(R"({"id":)", json_string(id), R"(,"summary":[],"type":"reasoning","content":)",
             parts.empty() ? "null" : cat("[", parts, "]"), R"(,"encrypted_content":null,"status":)",
             status.empty() ? "null" : json_string(status), "}");
}
std::string call_item(std::string_view id, const ToolCall& call, std::string_view status) {
  return cat(R"({"arguments":)", json_string(call.arguments), R"(,"call_id":)", json_string(call.id), R"(,"name":)",
             json_string(call.name), R"(,"type":"function_call","id":)", json_string(id), R"(,"status":")", status, R"("})");
}

std::string new_id(std::string_view prefix) { return cat(prefix, random_hex(32)); }
std::string_view status_of(std::string_view finish) {
  return finish == "length" ? "incomplete" : finish == "abort" ? "cancelled" : "completed";
}

}  // namespace

std::string ResponsesShape::response(const Head& head, std::string_view status, const Usage* usage, std::string_view kv) const {
  const ResponsesRequest& r = request_;
  JsonWriter w;
  w.object().field("id", head.id).field("created_at", head.created).key("incomplete_details");
  if (status == "incomplete")
    w.object().field("reason", "max_output_tokens").end();
  else
    w.null();
  raw_or_null(w, "instructions", r.echo_instructions);
  raw_or_null(w, "metadata", r.echo_metadata);
  w.field("model", head.model).field("object", "response").key("output").raw(cat("[", output_, "]"));
  w.field("parallel_tool_calls", r.parallel_tool_calls).field("temperature", resolved_.temperature);
  const bool no_tools = r.echo_tools.empty() && (r.echo_tool_choice.empty() || r.echo_tool_choice == "\"auto\"");
  w.key("tool_choice").raw(no_tools ? "\"none\"" : r.echo_tool_choice.empty() ? "\"auto\"" : r.echo_tool_choice);
  w.key("tools").raw(r.echo_tools.empty() ? "[]" : r.echo_tools).field("top_p", resolved_.top_p);
  w.field("background", r.background).field("max_output_tokens", resolved_.max_tokens);
  raw_or_null(w, "max_tool_calls", r.echo_max_tool_calls);
  w.key("previous_response_id");
  if (r.previous_response_id.empty())
    w.null();
  else
    w.value(r.previous_response_id);
  w.field_null("prompt");
  raw_or_null(w, "reasoning", r.echo_reasoning);
  w.key("service_tier").raw(r.echo_service_tier.empty() ? "\"auto\"" : r.echo_service_tier).field("status", status);
  raw_or_null(w, "text", r.echo_text);
  raw_or_null(w, "top_logprobs", r.echo_top_logprobs);
  w.key("truncation").raw(r.echo_truncation.empty() ? "\"disabled\"" : r.echo_truncation).key("usage");
  if (usage)
    write_usage(w, *usage);
  else
    w.null();
  raw_or_null(w, "user", r.echo_user);
  w.field("presence_penalty", resolved_.presence_penalty).field("frequency_penalty", resolved_.frequency_penalty);
  w.field_null("input_messages").field_null("output_messages");
  raw_or_null(w, "kv_transfer_params", kv);
  w.field_null("ec_transfer_params").end();
  return w.take();
}

std::string ResponsesShape::unfinished(const Head& head, std::string_view status) const {
  return response(head, status, nullptr, "");
}

void ResponsesShape::keep(std::string item) {
  output_ += cat(output_.empty() ? "" : ",", item);
  ++items_;
}

std::string ResponsesShape::whole(const Head& head, std::span<const Choice> choices, const Usage& usage, std::string_view kv) {
  const Choice& c = choices[0];
  if (c.reasoning && !c.reasoning->empty()) keep(reasoning_item(new_id("rs_"), reasoning_part(*c.reasoning), ""));
  // White space between the thoughts and a call is no message.
  if (!c.text.empty() && (c.tool_calls.empty() || !is_blank(c.text))) {
    const std::string logprobs = logprobs_of(c, true);
    keep(text_item(new_id("msg_"), text_part(c.text, c.logprobs ? &logprobs : nullptr), "completed"));
    said_.text(c.text);
  }
  for (const ToolCall& call : c.tool_calls) {
    keep(call_item(new_id("fc_"), call, "completed"));
    said_.call(call.id, call.name, call.arguments);
  }
  return final_ = response(head, status_of(c.stop.finish_reason), &usage, kv);
}

std::string ResponsesShape::event(std::string_view type, std::string_view members) {
  return cat("event: ", type, "\ndata: {", members, members.empty() ? "" : ",", R"("sequence_number":)", sequence_++,
             R"(,"type":")", type, "\"}\n\n");
}

std::string ResponsesShape::place() const {
  return cat(item_ == Item::kCall ? "" : R"("content_index":0,)", R"("item_id":)", json_string(item_id_), R"(,"output_index":)",
             items_);
}

std::string ResponsesShape::open(const Head& head, const Choice&, const Usage&) {
  const std::string now = cat(R"("response":)", unfinished(head, "in_progress"));
  return event("response.created", now) + event("response.in_progress", now);
}

std::string ResponsesShape::begin(Item item) {
  std::string out = close();
  item_ = item;
  const bool thinks = item == Item::kReasoning;
  item_id_ = new_id(thinks ? "rs_" : "msg_");
  const std::string none;
  out += event("response.output_item.added",
               cat(R"("item":)", thinks ? reasoning_item(item_id_, "", "in_progress") : text_item(item_id_, "", "in_progress"),
                   R"(,"output_index":)", items_));
  return out + event(thinks ? "response.reasoning_part.added" : "response.content_part.added",
                     cat(place(), R"(,"part":)", thinks ? reasoning_part("") : text_part("", &none)));
}

std::string ResponsesShape::begin_call(const ToolCall& call) {
  std::string out = close();
  item_ = Item::kCall;
  item_id_ = new_id("fc_");
  call_id_ = call.id, call_name_ = call.name;
  return out + event("response.output_item.added",
                     cat(R"("item":)", call_item(item_id_, call, "in_progress"), R"(,"output_index":)", items_));
}

std::string ResponsesShape::more(std::string_view delta, const Choice& part) {
  text_ += delta;
  const std::string members = cat(place(), R"(,"delta":)", json_string(delta));
  if (item_ == Item::kReasoning) return event("response.reasoning_text.delta", members);
  if (item_ == Item::kCall) return event("response.function_call_arguments.delta", members);
  if (const std::string rows = logprobs_of(part, true); !rows.empty()) logprobs_ += cat(logprobs_.empty() ? "" : ",", rows);
  return event("response.output_text.delta", cat(members, R"(,"logprobs":[)", logprobs_of(part, false), "]"));
}

std::string ResponsesShape::close() {
  blank_.clear();
  if (item_ == Item::kNone) return "";
  std::string out, item;
  const std::string at = place(), text = cat(R"(,"text":)", json_string(text_));
  if (item_ == Item::kReasoning) {
    item = reasoning_item(item_id_, reasoning_part(text_), "completed");
    out = event("response.reasoning_text.done", at + text) +
          event("response.reasoning_part.done", cat(at, R"(,"part":)", reasoning_part(text_)));
  } else if (item_ == Item::kText) {
    const std::string part = text_part(text_, logprobs_.empty() ? nullptr : &logprobs_);
    item = text_item(item_id_, part, "completed");
    out = event("response.output_text.done", cat(at, text, R"(,"logprobs":[)", logprobs_, "]")) +
          event("response.content_part.done", cat(at, R"(,"part":)", part));
    said_.text(text_);
  } else {
    const ToolCall call{.id = call_id_, .name = call_name_, .arguments = text_};
    item = call_item(item_id_, call, "completed");
    out = event("response.function_call_arguments.done",
                cat(at, R"(,"name":)", json_string(call_name_), R"(,"arguments":)", json_string(text_)));
    said_.call(call.id, call.name, call.arguments);
  }
  out += event("response.output_item.done", cat(R"("item":)", item, R"(,"output_index":)", items_));
  keep(std::move(item));
  item_ = Item::kNone;
  text_.clear(), logprobs_.clear();
  return out;
}

std::string ResponsesShape::chunk(const Head&, const Choice& part, const Usage&) {
  std::string out;
  if (!part.stop.finish_reason.empty()) finish_ = part.stop.finish_reason;
  if (part.reasoning && !part.reasoning->empty()) {
    if (item_ != Item::kReasoning) out += begin(Item::kReasoning);
    out += more(*part.reasoning, part);
  }
  for (const ToolCall& call : part.tool_calls) {
    if (!call.id.empty()) out += begin_call(call);
    if (!call.arguments.empty()) out += more(call.arguments, part);
  }
  if (part.text.empty()) return out;
  if (item_ == Item::kText) return out + more(part.text, part);
  // White space alone is held back: with a call after it, it is no message.
  blank_ += part.text;
  if (is_blank(blank_)) return out;
  const std::string text = std::exchange(blank_, {});
  out += begin(Item::kText);
  return out + more(text, part);
}

std::string ResponsesShape::end(const Head& head, const Usage& usage) {
  std::string out;
  if (!blank_.empty() && item_ != Item::kText && items_ == 0 && item_ == Item::kNone) {  // the answer is nothing but white space
    const std::string text = std::exchange(blank_, {});
    out = begin(Item::kText) + more(text, {});
  }
  out += close();
  final_ = response(head, status_of(finish_), &usage, "");
  return out + event("response.completed", cat(R"("response":)", final_));
}

std::string ResponsesShape::fail(const ApiError& error) {
  return event("error", cat(R"("code":)", json_string(error.type.empty() ? error_type(error.status) : error.type),
                            R"(,"message":)", json_string(error.message), R"(,"param":null)"));
}

}  // namespace baton::wire
