#include "wire/messages.h"

#include "wire/chat_body.h"
#include "wire/fields.h"
#include "wire/limits.h"

namespace baton::wire {
namespace {

// The conversation as chat messages. A message of several blocks may be several of those: results of tools come first.
class Conversation {
 public:
  Conversation(Fields& f, std::string_view source) : f_(f), source_(source) {}

  void instructions(const Json& system) {
    const std::string text = content(system, "system");
    if (!text.empty()) add("system", text);
  }
  void message(const Json& message, size_t index) {
    const std::string where = cat("messages[", index, "]");
    f_.require(message.is_object(), At{where}, "Input should be a valid dictionary");
    const std::string role = text_member(message, "role");
    f_.require(role == "user" || role == "assistant" || role == "system", At{cat(where, ".role")},
               "Input should be 'user', 'assistant' or 'system'");
    const Json* content = message.find("content");
    f_.require(content && (content->is_string() || content->is_array()), At{cat(where, ".content")},
               "Input should be a valid string or list");
    if (f_.error()) return;
    if (content->is_string()) return add(role, content->text);
    f_.require(!content->items.empty(), "message content must not be empty");
    text_.clear();
    for (size_t i = 0; i < content->items.size() && !f_.error(); ++i)
      block(content->items[i], role, cat(where, ".content[", i, "]"));
    if (role == "assistant") {
      if (turn_.empty()) turn_.text("");
      append(turn_.take());
    } else if (!text_.empty() || !answered_) {
      add(role, text_);
    }
    answered_ = false;
  }
  std::string take() { return std::move(out_); }

 private:
  void append(std::string_view message) { out_ += cat(out_.empty() ? "" : ",", message); }
  void add(std::string_view role, std::string_view text) {
    append(cat(R"({"role":)", json_string(role), R"(,"content":)", json_string(text), "}"));
  }
  std::string content(const Json& value, std::string_view where) {
    auto text = content_text(value, where);
    if (!text) f_.reject(text.error());
    return text.value_or("");
  }

  void block(const Json& block, std::string_view role, const std::string& where) {
    const std::string type = text_member(block, "type");
    const bool assistant = role == "assistant";
    if (type == "text") {
      const Json* text = block.find("text");
      f_.require(text && text->is_string(), At{cat(where, ".text")}, "Input should be a valid string");
      if (f_.error()) return;
      if (assistant)
        turn_.text(text->text);
      else
        text_ += text->text;
    } else if (type == "tool_use" && assistant) {
      const std::string name = text_member(block, "name");
      f_.require(!name.empty(), At{cat(where, ".name")}, "Field required");
      const std::string_view input = raw_member(block, source_, "input");
      turn_.call(text_member(block, "id"), name, input.empty() ? "{}" : input);
    } else if (type == "tool_result") {
      result(block, assistant, where);
    } else if (type == "thinking" && assistant) {
      turn_.reasoning(text_member(block, "thinking"));
    } else if (type == "redacted_thinking" && assistant) {
      // Nobody can read it.
    } else if (type == "image" || type == "document") {
      f_.reject(Code::kInvalidArgument, "At most 0 ", type, "(s) may be provided in one prompt: the model takes text only.");
    } else {
      f_.reject(At{where + ".type"}, "'", type, "' is not known, or not in a message of the ", role);
    }
  }

  void result(const Json& block, bool assistant, const std::string& where) {
    const Json* value = block.find("content");
    const std::string text = value ? content(*value, where + ".content") : "";
    if (assistant) return turn_.text(cat("Tool result: ", text));
    std::string id = text_member(block, "tool_use_id");
    if (id.empty()) id = text_member(block, "id");
    append(cat(R"({"role":"tool","tool_call_id":)", json_string(id), R"(,"content":)", json_string(text), "}"));
    answered_ = true;
  }

  Fields& f_;
  std::string_view source_;
  std::string out_, text_;
  AssistantMessage turn_;
  bool answered_ = false;
};

void read_tools(Fields& f, std::string_view source, JsonWriter& chat) {
  const Json* tools = f.get("tools");
  f.require(!tools || tools->is_array(), At{"tools"}, "Input should be a valid list");
  f.require(!tools || tools->items.size() <= kToolsMax, At{"tools"}, "List should have at most ", kToolsMax, " items");
  const bool any = !f.error() && tools && !tools->items.empty();
  if (any) chat.key("tools").array();
  for (size_t i = 0; any && i < tools->items.size(); ++i) {
    const Json& tool = tools->items[i];
    const std::string name = text_member(tool, "name"), type = text_member(tool, "type");
    if (!type.empty() && type != "custom")
      f.reject(Code::kUnimplemented, "tools[", i, "]: type '", type, "' is not supported by this engine");
    f.require(!name.empty(), At{cat("tools[", i, "].name")}, "Field required");
    const Json* schema = tool.find("input_schema");
    f.require(schema && schema->is_object(), At{cat("tools[", i, "].input_schema")}, "Input should be a valid dictionary");
    write_function_tool(chat, name, raw_member(tool, source, "description"), raw_member(tool, source, "input_schema"));
  }
  if (any) chat.end();
  const Json* choice = f.get("tool_choice");
  if (!choice) return;
  const std::string type = text_member(*choice, "type");
  f.require(type == "auto" || type == "any" || type == "tool" || type == "none", At{"tool_choice.type"},
            "Input should be 'auto', 'any', 'tool' or 'none'");
  f.require(type != "tool" || !text_member(*choice, "name").empty(),
            "tool_choice.name is required when tool_choice.type is 'tool'");
  f.require(any || type == "auto" || type == "none", About{"tool_choice"}, "When using `tool_choice`, `tools` must be set.");
  if (f.error() || !any) return;
  if (const Json* single = choice->find("disable_parallel_tool_use"); single && single->as_bool() == true)
    chat.field("parallel_tool_calls", false);
  chat.key("tool_choice");
  if (type == "tool")
    write_named_choice(chat, text_member(*choice, "name"));
  else
    chat.value(type == "any" ? "required" : type);
}

// "adaptive" leaves it to the model.
void read_thinking(Fields& f, JsonWriter& chat) {
  constexpr int32_t kLeast = 1024;
  const Json* thinking = f.get("thinking");
  if (!thinking || text_member(*thinking, "type") != "enabled") return;
  Fields t(*thinking, "thinking.enabled");
  std::optional<int32_t> budget;
  t.integer("budget_tokens", budget);
  t.require(budget.has_value(), At{"budget_tokens"}, "Field required");
  t.require(budget.value_or(0) >= kLeast, At{"budget_tokens"}, "Input should be greater than or equal to ", kLeast);
  if (t.error()) return f.reject(*t.error());
  chat.field("thinking_token_budget", *budget);
}

void read_output(Fields& f, std::string_view source, JsonWriter& chat) {
  const Json* output = f.get("output_config");
  if (!output) return;
  copy_members(chat, *output, source, {{"effort", "reasoning_effort"}});
  const Json* format = output->find("format");
  if (!format || format->is_null()) return;
  chat.key("response_format").object().field("type", text_member(*format, "type")).key("json_schema").object();
  chat.field("name", "output");
  copy_members(chat, *format, source, {{"schema", "schema"}});
  chat.end().end();
}

std::string named_event(std::string_view type, std::string_view members) {
  return cat("event: ", type, "\ndata: {\"type\":\"", type, '"', members.empty() ? "" : ",", members, "}\n\n");
}

std::string usage_json(const Usage& usage) {
  JsonWriter w;
  w.object().field("input_tokens", usage.prompt_tokens).field("output_tokens", usage.completion_tokens);
  if (usage.cached_tokens) w.field("cache_read_input_tokens", *usage.cached_tokens);
  w.end();
  return w.take();
}

// stop_reason and stop_sequence, as members.
std::string stop_members(const Stop& stop) {
  std::string_view reason = "end_turn";
  if (stop.finish_reason == "length") reason = "max_tokens";
  if (stop.finish_reason == "tool_calls") reason = "tool_use";
  const bool by_text = stop.finish_reason == "stop" && stop.stop_string;
  if (by_text) reason = "stop_sequence";
  return cat(R"("stop_reason":)", stop.finish_reason.empty() ? "null" : json_string(reason), R"(,"stop_sequence":)",
             by_text ? json_string(*stop.stop_string) : "null");
}

std::string message_json(const Head& head, std::string_view content, const Stop& stop, const Usage& usage, std::string_view kv) {
  return cat(R"({"id":)", json_string(head.id), R"(,"type":"message","role":"assistant","content":[)", content, R"(],"model":)",
             json_string(head.model), ",", stop_members(stop), R"(,"usage":)", usage_json(usage),
             kv.empty() ? "" : R"(,"kv_transfer_params":)", kv, "}");
}

std::string tool_use(const ToolCall& call, std::string_view input) {
  return cat(R"({"type":"tool_use","id":)", json_string(call.id), R"(,"name":)", json_string(call.name), R"(,"input":)", input,
             "}");
}

}  // namespace

Result<std::string> chat_body_of_messages(const Json& body, std::string_view source, bool count_only) {
  if (!body.is_object()) return refuse(At{}, "Input should be a valid dictionary, got ", body.kind_name());
  Fields f(body);
  std::string model;
  f.text("model", model, 1024);
  f.require(!model.empty(), At{"model"}, "Field required");
  int32_t max_tokens = 1;
  f.require(count_only || f.has("max_tokens"), At{"max_tokens"}, "Field required");
  f.integer("max_tokens", max_tokens);
  f.require(max_tokens > 0, "max_tokens must be positive");
  const Json* messages = f.get("messages");
  f.require(messages && messages->is_array(), At{"messages"}, "Input should be a valid list");
  if (f.error()) return std::unexpected(*f.error());
  f.require(!messages->items.empty(), "messages must contain at least one item");
  f.require(messages->items.size() <= kMessagesMax, At{"messages"}, "List should have at most ", kMessagesMax, " items");
  Conversation conversation(f, source);
  if (const Json* system = f.get("system")) conversation.instructions(*system);
  for (size_t i = 0; i < messages->items.size() && !f.error(); ++i) conversation.message(messages->items[i], i);
  JsonWriter chat;
  chat.object().key("messages").raw(cat("[", conversation.take(), "]"));
  read_tools(f, source, chat);
  copy_members(chat, body, source, {{"model", "model"}, {"chat_template_kwargs", "chat_template_kwargs"}});
  if (!count_only) {
    copy_members(chat, body, source,
                 {{"max_tokens", "max_tokens"},
                  {"stop_sequences", "stop"},
                  {"temperature", "temperature"},
                  {"top_p", "top_p"},
                  {"top_k", "top_k"},
                  {"stream", "stream"},
                  {"kv_transfer_params", "kv_transfer_params"}});
    read_thinking(f, chat);
    read_output(f, source, chat);
  }
  chat.end();
  if (f.error()) return std::unexpected(*f.error());
  return chat.take();
}

std::string MessagesShape::whole(const Head& head, std::span<const Choice> choices, const Usage& usage, std::string_view kv) {
  const Choice& c = choices[0];
  std::string content;
  const auto add = [&](std::string_view block) { content += cat(content.empty() ? "" : ",", block); };
  if (c.reasoning && !c.reasoning->empty())
    add(cat(R"({"type":"thinking","thinking":)", json_string(*c.reasoning), R"(,"signature":""})"));
  if (c.tool_calls.empty() || !is_blank(c.text)) add(cat(R"({"type":"text","text":)", json_string(c.text), "}"));
  for (const ToolCall& call : c.tool_calls) {
    const auto input = parse_json(call.arguments, kRequestJson);
    add(tool_use(call, input && input->is_object() ? std::string_view(call.arguments) : "{}"));
  }
  return message_json(head, content, c.stop, usage, kv);
}

std::string MessagesShape::open(const Head& head, const Choice&, const Usage& so_far) {
  return named_event("message_start", cat(R"("message":)", message_json(head, "", {}, so_far, "")));
}

std::string MessagesShape::begin(Block block, const ToolCall* call) {
  std::string out = close();
  block_ = block;
  const std::string content = call                        ? tool_use(*call, "{}")
                              : block == Block::kThinking ? R"({"type":"thinking","thinking":"","signature":""})"
                                                          : R"({"type":"text","text":""})";
  return out + named_event("content_block_start", cat(R"("index":)", index_, R"(,"content_block":)", content));
}

std::string MessagesShape::delta(std::string_view type, std::string_view key, std::string_view text) const {
  return named_event("content_block_delta",
                     cat(R"("index":)", index_, R"(,"delta":{"type":")", type, R"(",")", key, R"(":)", json_string(text), "}"));
}

std::string MessagesShape::close() {
  blank_.clear();
  if (block_ == Block::kNone) return "";
  block_ = Block::kNone;
  return named_event("content_block_stop", cat(R"("index":)", index_++));
}

std::string MessagesShape::chunk(const Head&, const Choice& part, const Usage&) {
  std::string out;
  if (!part.stop.finish_reason.empty()) stop_ = part.stop;
  if (part.reasoning && !part.reasoning->empty()) {
    if (block_ != Block::kThinking) out += begin(Block::kThinking, nullptr);
    out += delta("thinking_delta", "thinking", *part.reasoning);
  }
  for (const ToolCall& call : part.tool_calls) {
    if (!call.id.empty()) out += begin(Block::kToolUse, &call);
    if (!call.arguments.empty()) out += delta("input_json_delta", "partial_json", call.arguments);
  }
  if (part.text.empty()) return out;
  if (block_ == Block::kText) return out + delta("text_delta", "text", part.text);
  blank_ += part.text;
  if (is_blank(blank_)) return out;
  const std::string text = std::exchange(blank_, {});
  out += begin(Block::kText, nullptr);
  return out + delta("text_delta", "text", text);
}

std::string MessagesShape::end(const Head&, const Usage& usage) {
  std::string out;
  if (block_ == Block::kNone && index_ == 0) {  // nothing, or white space alone: a message has a block all the same
    const std::string text = std::exchange(blank_, {});
    out = begin(Block::kText, nullptr);
    if (!text.empty()) out += delta("text_delta", "text", text);
  }
  out += close();
  out += named_event("message_delta", cat(R"("delta":{)", stop_members(stop_), R"(},"usage":)", usage_json(usage)));
  return out + named_event("message_stop", "");
}

std::string messages_error_json(const ApiError& error) {
  auto plain = parse_json(error_json(error));  // one place knows types and makes messages UTF-8
  JsonWriter w;
  w.object().field("type", "error").key("error").object();
  w.field("type", plain->find_path({"error", "type"})->text).field("message", plain->find_path({"error", "message"})->text);
  w.end().end();
  return w.take();
}

std::string MessagesShape::error(const ApiError& error) const { return messages_error_json(error); }
std::string MessagesShape::fail(const ApiError& error) {
  return cat("event: error\ndata: ", messages_error_json(error), "\n\n", kSseDone);
}

std::string count_tokens_response(size_t tokens) {
  return cat(R"({"input_tokens":)", tokens, R"(,"context_management":{"original_input_tokens":)", tokens, "}}");
}

}  // namespace baton::wire
