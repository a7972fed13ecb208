#include "wire/responses.h"

#include <algorithm>

#include "wire/fields.h"
#include "wire/limits.h"

namespace baton::wire {
namespace {

// `input` as chat messages. Items that belong to one turn of the assistant (what it thought, said, called) make one message.
class Input {
 public:
  explicit Input(Fields& f) : f_(f) {}

  void read(const Json& input, std::string_view source) {
    if (input.is_string()) return add(cat(R"({"role":"user","content":)", json_string(input.text), "}"));
    f_.require(input.is_array(), At{"input"}, "Input should be a valid string or list");
    f_.require(input.items.size() <= kMessagesMax, At{"input"}, "List should have at most ", kMessagesMax, " items");
    for (size_t i = 0; i < input.items.size() && !f_.error(); ++i) item(input.items[i], source, i);
    flush();
  }
  std::string take() { return std::move(out_); }
  bool continues() const { return continues_; }

 private:
  void add(std::string_view message) {
    flush();
    out_ += cat(out_.empty() ? "" : ",", message);
  }
  void flush() {
    if (!turn_.empty()) out_ += cat(out_.empty() ? "" : ",", turn_.take());
  }

  void item(const Json& item, std::string_view source, size_t index) {
    f_.require(item.is_object(), At{cat("input[", index, "]")}, "Input should be a valid dictionary");
    if (f_.error()) return;
    const std::string type = item.find("type") ? text_member(item, "type") : "message";
    const std::string status = text_member(item, "status");
    continues_ = (type == "message" || type == "reasoning") && (status == "in_progress" || status == "incomplete");
    if (type == "message") return message(item, source, index);
    if (type == "function_call") return call(item, index);
    if (type == "function_call_output") return call_output(item, index);
    if (type == "reasoning") return reasoning(item, index);
    f_.reject(Code::kUnimplemented, "input[", index, "]: items of type '", type, "' are not supported by this engine");
  }

  std::string content(const Json& item, std::string_view key, size_t index) {
    const Json* value = item.find(key);
    auto text = value ? content_text(*value, cat("input[", index, "].", key)) : Result<std::string>();
    if (!text) f_.reject(text.error());
    return text.value_or("");
  }

  void message(const Json& item, std::string_view, size_t index) {
    const std::string role = text_member(item, "role");
    f_.require(!role.empty(), At{cat("input[", index, "].role")}, "Field required");
    f_.require(item.find("content") != nullptr, At{cat("input[", index, "].content")}, "Field required");
    const std::string text = content(item, "content", index);
    if (role != "assistant") return add(cat(R"({"role":)", json_string(role), R"(,"content":)", json_string(text), "}"));
    if (turn_.has_text()) flush();
    turn_.text(text);
  }

  void call(const Json& item, size_t index) {
    const std::string name = text_member(item, "name"), id = text_member(item, "call_id");
    f_.require(!name.empty(), At{cat("input[", index, "].name")}, "Field required");
    f_.require(!id.empty(), At{cat("input[", index, "].call_id")}, "Field required");
    turn_.call(id, name, text_member(item, "arguments"));
  }

  void call_output(const Json& item, size_t index) {
    const std::string id = text_member(item, "call_id");
    f_.require(!id.empty(), At{cat("input[", index, "].call_id")}, "Field required");
    f_.require(item.find("output") != nullptr, At{cat("input[", index, "].output")}, "Field required");
    add(cat(R"({"role":"tool","tool_call_id":)", json_string(id), R"(,"content":)", json_string(content(item, "output", index)),
            "}"));
  }

  void reasoning(const Json& item, size_t index) {
    const Json* encrypted = item.find("encrypted_content");
    f_.require(!encrypted || encrypted->is_null(), "Encrypted content is not supported.");
    std::string text;
    for (std::string_view key : {"content", "summary"}) {
      const Json* parts = item.find(key);
      if (!text.empty() || !parts || !parts->is_array()) continue;
      for (const Json& part : parts->items) text += text_member(part, "text");
    }
    if (turn_.has_text() || turn_.has_reasoning()) flush();
    turn_.reasoning(text);
    (void)index;
  }

  Fields& f_;
  std::string out_;
  AssistantMessage turn_;
  bool continues_ = false;
};

void read_tools(Fields& f, std::string_view source, ResponsesRequest& r, JsonWriter& chat) {
  const Json* tools = f.get("tools");
  f.require(!tools || tools->is_array(), At{"tools"}, "Input should be a valid list");
  f.require(!tools || tools->items.size() <= kToolsMax, At{"tools"}, "List should have at most ", kToolsMax, " items");
  const Json* choice = f.get("tool_choice");
  if (choice) r.echo_tool_choice = choice->raw(source);
  if (f.error() || !tools || tools->items.empty()) {
    const bool asks = choice && choice->as_string() != "auto" && choice->as_string() != "none";
    f.require(!asks, About{"tool_choice"}, "When using `tool_choice`, `tools` must be set.");
    return;
  }
  r.echo_tools = tools->raw(source);
  chat.key("tools").array();
  for (size_t i = 0; i < tools->items.size(); ++i) {
    const Json& tool = tools->items[i];
    const std::string type = text_member(tool, "type"), name = text_member(tool, "name");
    f.require(!type.empty(), At{cat("tools[", i, "].type")}, "Field required");
    if (type != "function") f.reject(Code::kUnimplemented, "tools[", i, "]: type '", type, "' is not supported by this engine");
    f.require(!name.empty(), At{cat("tools[", i, "].name")}, "Field required");
    write_function_tool(chat, name, raw_member(tool, source, "description"), raw_member(tool, source, "parameters"));
  }
  chat.end();
  if (!choice) return;
  chat.key("tool_choice");
  if (!choice->is_object()) {
    chat.raw(choice->raw(source));
  } else if (text_member(*choice, "type") == "function") {
    write_named_choice(chat, text_member(*choice, "name"));
  } else {
    f.reject(Code::kUnimplemented, "tool_choice of type '", text_member(*choice, "type"), "' is not supported by this engine");
    chat.null();
  }
}

// text.format says what response_format says in a chat; a schema lies a level higher.
void read_format(Fields& f, std::string_view source, ResponsesRequest& r, JsonWriter& chat) {
  const Json* text = f.get("text");
  if (!text) return;
  f.require(text->is_object(), At{"text"}, "Input should be a valid dictionary");
  r.echo_text = text->raw(source);
  const Json* format = text->find("format");
  if (!format || format->is_null()) return;
  const std::string type = text_member(*format, "type");
  f.require(!type.empty(), At{"text.format.type"}, "Field required");
  if (f.error() || type == "text") return;
  chat.key("response_format").object().field("type", type);
  if (type == "json_schema") {
    f.require(format->find("schema") != nullptr, At{"text.format.schema"}, "Field required");
    chat.key("json_schema").object();
    copy_members(chat, *format, source,
                 {{"name", "name"}, {"description", "description"}, {"schema", "schema"}, {"strict", "strict"}});
    chat.end();
  }
  chat.end();
}

void read_include(Fields& f, ResponsesRequest& r, JsonWriter& chat) {
  std::vector<std::string> include;
  f.texts("include", include, 64, 256);
  constexpr std::string_view kKnown[] = {"code_interpreter_call.outputs",  "computer_call_output.output.image_url",
                                         "file_search_call.results",       "message.input_image.image_url",
                                         "message.output_text.logprobs",   "reasoning.encrypted_content",
                                         "web_search_call.action.sources", "web_search_call.results"};
  bool logprobs = false;
  for (const std::string& what : include) {
    f.require(std::find(std::begin(kKnown), std::end(kKnown), what) != std::end(kKnown), At{"include"}, "Input should be '",
              kKnown[0], "', ..., got '", what, "'");
    logprobs |= what == "message.output_text.logprobs";
  }
  std::optional<int32_t> top;
  f.engine_integer("top_logprobs", top);
  if (!logprobs) return;
  chat.field("logprobs", true).field("top_logprobs", top.value_or(0));
  r.echo_top_logprobs = std::to_string(top.value_or(0));
}

void read_reasoning(Fields& f, std::string_view source, ResponsesRequest& r, JsonWriter& chat) {
  const Json* reasoning = f.get("reasoning");
  if (!reasoning) return;
  f.require(reasoning->is_object(), At{"reasoning"}, "Input should be a valid dictionary");
  r.echo_reasoning = reasoning->raw(source);
  copy_members(chat, *reasoning, source, {{"effort", "reasoning_effort"}});
}

// Fields that the chat request has too, and those that the answer only repeats.
void read_plain(Fields& f, const Json& body, std::string_view source, ResponsesRequest& r, JsonWriter& chat) {
  copy_members(chat, body, source,
               {{"model", "model"},
                {"max_output_tokens", "max_completion_tokens"},
                {"temperature", "temperature"},
                {"top_p", "top_p"},
                {"top_k", "top_k"},
                {"min_p", "min_p"},
                {"presence_penalty", "presence_penalty"},
                {"frequency_penalty", "frequency_penalty"},
                {"repetition_penalty", "repetition_penalty"},
                {"seed", "seed"},
                {"stop", "stop"},
                {"ignore_eos", "ignore_eos"},
                {"logit_bias", "logit_bias"},
                {"skip_special_tokens", "skip_special_tokens"},
                {"include_stop_str_in_output", "include_stop_str_in_output"},
                {"stream", "stream"},
                {"priority", "priority"},
                {"cache_salt", "cache_salt"},
                {"request_id", "request_id"},
                {"parallel_tool_calls", "parallel_tool_calls"},
                {"mm_processor_kwargs", "mm_processor_kwargs"},
                {"chat_template_kwargs", "chat_template_kwargs"},
                {"structured_outputs", "structured_outputs"},
                {"vllm_xargs", "vllm_xargs"},
                {"kv_transfer_params", "kv_transfer_params"}});
  std::string truncation = "disabled";
  f.text("truncation", truncation, 16);
  f.require(truncation == "auto" || truncation == "disabled", At{"truncation"}, "Input should be 'auto' or 'disabled'");
  if (truncation == "auto") chat.field("truncate_prompt_tokens", -1);
  const Json* metadata = f.get("metadata");
  f.require(!metadata || metadata->is_object(), At{"metadata"}, "Input should be a valid dictionary");
  r.echo_metadata = raw_member(body, source, "metadata");
  r.echo_user = raw_member(body, source, "user");
  r.echo_service_tier = raw_member(body, source, "service_tier");
  r.echo_truncation = raw_member(body, source, "truncation");
  r.echo_max_tool_calls = raw_member(body, source, "max_tool_calls");
  r.echo_instructions = raw_member(body, source, "instructions");
  f.require(!f.has("prompt"), About{"prompt"}, "prompt template is not supported");
  // They bring a past along, or ask for the raw messages: without them the answer would be another.
  for (std::string_view key : {"conversation", "previous_response", "previous_input_messages"}) {
    if (f.has(key)) f.reject(Code::kUnimplemented, key, " is not supported by this engine");
  }
  bool messages = false;
  f.flag("enable_response_messages", messages);
  f.require(!messages, "enable_response_messages is currently only supported for gpt-oss");
  f.flag("parallel_tool_calls", r.parallel_tool_calls);
}

}  // namespace

Result<ResponsesRequest> parse_responses_request(const Json& body, std::string_view source) {
  if (!body.is_object()) return refuse(At{}, "Input should be a valid dictionary, got ", body.kind_name());
  Fields f(body);
  ResponsesRequest r;
  f.flag("store", r.store);
  f.flag("background", r.background);
  f.flag("stream", r.stream);
  f.require(!r.background || r.store, About{"background"}, "background can only be used when `store` is true");
  f.text("previous_response_id", r.previous_response_id, kRequestIdBytesMax);
  f.text("request_id", r.request_id, kRequestIdBytesMax);
  f.text("instructions", r.instructions, kRequestJson.bytes_max);
  const Json* input = f.get("input");
  f.require(input != nullptr, At{"input"}, "Field required");
  JsonWriter chat;
  chat.object();
  read_plain(f, body, source, r, chat);
  read_tools(f, source, r, chat);
  read_format(f, source, r, chat);
  read_include(f, r, chat);
  read_reasoning(f, source, r, chat);
  Input items(f);
  if (input && !f.error()) items.read(*input, source);
  if (items.continues()) chat.field("continue_final_message", true).field("add_generation_prompt", false);
  if (f.error()) return std::unexpected(*f.error());
  r.messages = items.take();
  r.chat_fields = chat.text().substr(1);
  return r;
}

std::string chat_body(const ResponsesRequest& r, std::string_view before) {
  std::string messages;
  const auto add = [&](std::string_view more) {
    if (!more.empty()) messages += cat(messages.empty() ? "" : ",", more);
  };
  if (!r.instructions.empty()) add(cat(R"({"role":"system","content":)", json_string(r.instructions), "}"));
  add(before);
  add(r.messages);
  return cat("{\"messages\":[", messages, "]", r.chat_fields.empty() ? "" : ",", r.chat_fields, "}");
}

}  // namespace baton::wire
