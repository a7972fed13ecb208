#include "parse/message.h"

namespace baton::parse {
namespace {

void join(std::optional<std::string>& to, std::string_view text) {
  if (!to) to.emplace();
  *to += text;
}

Message joined(const Events& events) {
  Message out;
  for (const Event& event : events) {
    switch (event.kind) {
      case Event::Kind::kReasoning:
        join(out.reasoning, event.text);
        break;
      case Event::Kind::kContent:
        join(out.content, event.text);
        break;
      case Event::Kind::kCall:
        out.calls.push_back({.name = event.text, .arguments = "", .id = event.id});
        break;
      case Event::Kind::kArguments:
        out.calls.back().arguments += event.text;
        break;
    }
  }
  return out;
}

}  // namespace

MessageParser::MessageParser(const MessageFormat& format) : format_(format) {
  if (format.harmony) {
    harmony_.emplace(*format.harmony, format.tool_parser != nullptr);
    return;
  }
  if (format.reasoning) reasoning_.emplace(*format.reasoning, format.tags);
  if (format.tool_parser) tool_parser_ = format.tool_parser->make(*format.tools);
}

Events MessageParser::pass_on(Events split, bool last) {
  Events out;
  for (const Event& event : split) {
    if (event.kind == Event::Kind::kReasoning || !tool_parser_)
      append(out, event);
    else
      tool_parser_->add(event.text, out);
  }
  if (last && tool_parser_) tool_parser_->finish(out);
  return asked_for(std::move(out));
}

Events MessageParser::asked_for(Events events) {
  Events kept;
  for (Event& event : events) {
    if (event.kind == Event::Kind::kReasoning && !format_.include_reasoning) continue;
    calls_ += event.kind == Event::Kind::kCall;
    const bool of_call = event.kind == Event::Kind::kCall || event.kind == Event::Kind::kArguments;
    if (of_call && calls_ > 1 && !format_.parallel_calls) continue;
    append(kept, event);
  }
  return kept;
}

Events MessageParser::add(std::string_view piece) {
  Events split;
  if (harmony_) {
    harmony_->add(piece, split);
    return asked_for(std::move(split));
  }
  if (reasoning_)
    reasoning_->add(piece, split);
  else
    append(split, Event::Kind::kContent, piece);
  return pass_on(std::move(split), false);
}

Events MessageParser::finish() {
  Events split;
  if (harmony_) {
    harmony_->finish(split);
    return asked_for(std::move(split));
  }
  if (reasoning_) reasoning_->finish(split);
  return pass_on(std::move(split), true);
}

Message parse_message(const MessageFormat& format, std::string_view text) {
  const auto events = [&](const MessageFormat& f, bool& broken) {
    MessageParser parser(f);
    Events all = parser.add(text);
    for (Event& event : parser.finish()) append(all, event);
    broken = parser.broken();
    return all;
  };
  bool broken = false;
  Message message = joined(events(format, broken));
  if (format.harmony) message.cut_off = broken && !message.calls.empty();
  if (!broken || format.harmony) return message;
  MessageFormat plain = format;
  plain.tool_parser = nullptr;
  return joined(events(plain, broken));
}

}  // namespace baton::parse
