// Input: a byte that chooses the formats, a byte that seeds the cuts, then a model's answer.
// Properties: no cut changes an event; the whole text is not lost where nothing was recognised; arguments of a call that is not
// called broken are one JSON value (of harmony, whose calls need not be JSON, only: text without a tag is content).
#include <cstdint>
#include <cstdlib>

#include "parse/message.h"

using namespace baton;

namespace {

void require(bool yes) {
  if (!yes) std::abort();
}

parse::Events read(const parse::MessageFormat& format, std::string_view text, uint32_t cut) {
  parse::MessageParser parser(format);
  parse::Events all;
  const auto take = [&](const parse::Events& events) {
    for (const parse::Event& event : events) append(all, event);
  };
  while (!text.empty()) {
    cut = cut * 1664525 + 1013904223;
    const size_t n = std::min(text.size(), size_t{1} + (cut >> 28));
    take(parser.add(text.substr(0, n)));
    text.remove_prefix(n);
  }
  take(parser.finish());
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  static const auto tools = std::make_shared<const Json>(*parse_json(
      R"([{"function":{"name":"f","parameters":{"properties":{"i":{"type":"integer"},"n":{"type":"number"},"b":{"type":"boolean"},)"
      R"("o":{"type":"object"},"a":{"type":"array"},"s":{"type":"string"}}}}}])"));
  const size_t row = data[0] % (parse::tool_parsers().size() + 1);
  parse::MessageFormat format{
      .tool_parser = row < parse::tool_parsers().size() ? &parse::tool_parsers()[row] : &parse::kRequiredCalls, .tools = tools};
  constexpr const char* kBegun[] = {"assistant", "assistant<|channel|>analysis<|message|>a", "user<|message|>a<|end|>"};
  if (format.tool_parser->harmony) format.harmony = kBegun[data[1] % std::size(kBegun)];
  if (data[0] & 0x40) {
    format.reasoning = static_cast<parse::Reasoning::Start>(data[1] % 3);
    format.tags = parse::reasoning_parsers()[data[1] / 3 % parse::reasoning_parsers().size()].tags;
  }
  parse::MessageParser whole(format);
  parse::Events events = whole.add(text);
  for (const parse::Event& event : whole.finish()) append(events, event);
  require(read(format, text, data[1]) == events);
  const parse::Message message = parse::parse_message(format, text);
  if (format.harmony) {
    if (text.find("<|") == std::string_view::npos && data[1] % 3 != 1) require(message.content.value_or("") == text);
    return 0;
  }
  if (message.calls.empty() && !format.reasoning) require(message.content.value_or("") == text);
  for (const parse::ToolCall& call : message.calls) {
    require(!call.name.empty());
    if (valid_utf8(text)) require(parse_json(call.arguments, {.depth_max = 128}).has_value());
  }
  return 0;
}
