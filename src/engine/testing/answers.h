#pragma once
// What tests of the streaming APIs share: an engine that takes answers apart, and the typed events of a stream.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/json.h"
#include "engine/config.h"
#include "net/sse.h"

namespace baton::engine::testing {

inline std::vector<net::SseEvent> events_of(const std::string& body) {
  std::vector<net::SseEvent> out;
  net::SseParser parser;
  EXPECT_TRUE(parser.feed(body, out));
  EXPECT_FALSE(parser.unfinished());
  return out;
}
inline std::string types_of(const std::string& body) {
  std::string out;
  for (const net::SseEvent& event : events_of(body)) {
    if (event.event.empty()) continue;                   // vLLM's [DONE]
    if (out.ends_with(cat(event.event, " "))) continue;  // deltas in a row are one
    out += cat(event.event, " ");
  }
  return out;
}
inline Json at_event(const std::string& body, std::string_view type) {
  Json out;
  for (const net::SseEvent& event : events_of(body)) {
    if (event.event == type) out = parse_json(event.data).value();
  }
  return out;
}

inline EngineConfig talking(bool store = false) {
  EngineConfig config;
  config.auto_tool_choice = true;
  config.tool_call_parser = "hermes";
  config.reasoning_parser = "deepseek_r1";
  config.responses_store = store;
  return config;
}

}  // namespace baton::engine::testing
