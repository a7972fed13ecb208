#include "engine/chat_message.h"

#include <iterator>
#include <utility>

#include "base/prng.h"

namespace baton::engine {
namespace {

std::string call_id(const parse::MessageFormat& format) {
  return format.short_ids || format.tool_parser->short_ids ? random_hex(10).substr(1) : cat("chatcmpl-tool-", random_hex(32));
}

template <class T>
void move_to_end(std::vector<T>& to, std::vector<T>& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  from.clear();
}

}  // namespace

Result<parse::MessageFormat> message_format(const Serving& s, const wire::ChatRequest& r, std::string_view prompt) {
  parse::MessageFormat format{.include_reasoning = r.include_reasoning, .parallel_calls = r.parallel_tool_calls};
  const auto* thoughts = parse::find_reasoning_parser(s.config->reasoning_parser);
  const auto* models = parse::find_tool_parser(s.config->tool_call_parser);
  // A forced call comes in the model's own format where a constraint can hold it to that.
  const bool forced = r.tool_choice == wire::ToolChoice::kRequired || r.tool_choice == wire::ToolChoice::kNamed;
  if ((thoughts && thoughts->harmony) || (models && models->harmony)) {
    std::string begun = parse::harmony_begun(prompt);
    if (!forced || (begun == parse::kHarmonyHeader && s.constraints->harmony())) format.harmony = std::move(begun);
  }
  if (r.tool_choice == wire::ToolChoice::kAuto) {
    if (!s.config->auto_tool_choice) {
      return fail(Code::kInvalidArgument,
                  "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set");
    }
    format.tool_parser = models;
    format.tools = std::make_shared<const Json>(r.tools);
  } else if (forced) {
    format.short_ids = models != nullptr && models->short_ids;  // the template will insist on them
    Json tools = r.tools;
    if (r.tool_choice == wire::ToolChoice::kNamed)
      std::erase_if(tools.items, [&](const Json& t) { return t.find_path({"function", "name"})->text != r.named_tool; });
    const bool named = r.tool_choice == wire::ToolChoice::kNamed;
    format.tool_parser = format.harmony ? (named ? &parse::kNamedHarmony : &parse::kRequiredHarmony)
                                        : (named ? &parse::kNamedCall : &parse::kRequiredCalls);
    format.tools = std::make_shared<const Json>(std::move(tools));
  }
  if (thoughts && !thoughts->harmony && !format.harmony) {
    const Json* last = r.continue_final_message ? r.messages.back().find("content") : nullptr;
    format.reasoning = parse::Reasoning::start_of(*thoughts, prompt, last ? last->as_string().value_or("") : "");
    format.tags = thoughts->tags;
  }
  return format;
}

bool keeps_special_tokens(const Serving& s, const parse::MessageFormat& format) {
  const auto* thoughts = parse::find_reasoning_parser(s.config->reasoning_parser);
  return format.harmony || (format.tool_parser && format.tool_parser->special_tokens) || (thoughts && thoughts->special_tokens);
}

void split_whole(const parse::MessageFormat& format, wire::Choice& choice) {
  parse::Message message = parse::parse_message(format, choice.text);
  const bool forced = format.tool_parser && format.tool_parser->forced && !message.calls.empty();
  choice.no_content = !forced && !message.content && (message.reasoning || !message.calls.empty() || format.thinks());
  choice.text = std::move(message.content).value_or("");
  choice.reasoning = std::move(message.reasoning);
  for (parse::ToolCall& call : message.calls) {
    choice.tool_calls.push_back({.index = static_cast<int32_t>(choice.tool_calls.size()),
                                 .id = call.id.empty() ? call_id(format) : std::move(call.id),
                                 .name = std::move(call.name),
                                 .arguments = std::move(call.arguments)});
  }
  const bool ended = choice.stop.finish_reason == "stop" || choice.stop.finish_reason == "length";
  const bool as_text = format.tool_parser && format.tool_parser->ends_as_text;
  if (ended && !choice.tool_calls.empty() && !as_text && !message.cut_off) choice.stop.finish_reason = "tool_calls";
}

wire::Choice ChatMessage::chunk(int32_t index, const parse::Event& event) {
  wire::Choice out{.index = index, .no_content = event.kind != parse::Event::Kind::kContent};
  switch (event.kind) {
    case parse::Event::Kind::kContent:
      out.text = event.text;
      break;
    case parse::Event::Kind::kReasoning:
      out.reasoning = event.text;
      break;
    case parse::Event::Kind::kCall:
      out.tool_calls = {{.index = calls_++, .id = event.id.empty() ? call_id(format_) : event.id, .name = event.text}};
      break;
    case parse::Event::Kind::kArguments:
      out.tool_calls = {{.index = calls_ - 1, .arguments = event.text}};
      break;
  }
  return out;
}

std::vector<wire::Choice> ChatMessage::stream(wire::Choice choice) {
  const bool last = !choice.stop.finish_reason.empty();
  move_to_end(rows_, choice.rows);
  if (choice.token_ids) move_to_end(ids_, *choice.token_ids);
  parse::Events events = parser_.add(choice.text);
  if (last) {
    for (const parse::Event& event : parser_.finish()) parse::append(events, event);
  }
  std::vector<wire::Choice> out;
  for (const parse::Event& event : events) out.push_back(chunk(choice.index, event));
  if (out.empty() && last) out.push_back({.index = choice.index, .no_content = true});
  if (out.empty()) return out;
  for (wire::Choice& c : out) {
    c.logprobs = choice.logprobs;
    c.top = choice.top;
    if (choice.token_ids) c.token_ids.emplace();
  }
  out.back().rows = std::exchange(rows_, {});
  if (choice.token_ids) out.back().token_ids = std::exchange(ids_, {});
  if (!last) return out;
  out.back().stop = std::move(choice.stop);
  // Cut off inside a call: the client must not take it for whole.
  std::string& reason = out.back().stop.finish_reason;
  if (parser_.called() && !format_.tool_parser->ends_as_text && (reason == "stop" || (reason == "length" && !parser_.broken())))
    reason = "tool_calls";
  return out;
}

}  // namespace baton::engine
