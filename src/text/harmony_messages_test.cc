#include "text/harmony_messages.h"

#include <gtest/gtest.h>

#include "base/result.h"

namespace baton::text {
namespace {

// Each message as ROLE[thinking|content|calls|id].
std::string shown(std::string_view messages) {
  std::string out;
  for (const Json& m : harmony_messages(parse_json(messages).value().items)) {
    const auto text = [&](std::string_view key) {
      const Json* value = m.find(key);
      return value ? value->text : std::string("-");
    };
    std::string calls = m.find("tool_calls") ? "" : "-";
    if (const Json* list = m.find("tool_calls")) {
      for (const Json& call : list->items) calls += call.find_path({"function", "name"})->text;
    }
    out += cat(text("role"), "[", text("thinking"), "|", text("content"), "|", calls, "|", text("tool_call_id"), "]");
  }
  return out;
}

TEST(HarmonyMessages, OneCallAMessageWithItsResultBehindIt) {
  EXPECT_EQ(shown(R"([{"role":"user","content":"q"},
                      {"role":"assistant","content":"","reasoning":"hm","tool_calls":[{"id":"1","function":{"name":"f"}},{"id":"2","function":{"name":"g"}}]},
                      {"role":"tool","tool_call_id":"2","content":"two"},{"role":"tool","tool_call_id":"1","content":"one"},
                      {"role":"assistant","content":"a"}])"),
            "user[-|q|-|-]assistant[hm||f|-]tool[-|one|-|1]assistant[-||g|-]tool[-|two|-|2]assistant[-|a|-|-]");
  // Results that name no call stay where they are, behind the last.
  EXPECT_EQ(shown(R"([{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f"}},{"function":{"name":"g"}}]},
                      {"role":"tool","content":"one"},{"role":"tool","tool_call_id":"x","content":"two"}])"),
            "assistant[-||f|-]assistant[-||g|-]tool[-|one|-|-]tool[-|two|-|x]");
}

TEST(HarmonyMessages, ThoughtHasOneName) {
  EXPECT_EQ(shown(R"([{"role":"assistant","content":"a","reasoning_content":"hm","reasoning":"hm"}])"), "assistant[hm|a|-|-]");
  EXPECT_EQ(shown(R"([{"role":"assistant","content":"a","reasoning":null,"thinking":null}])"), "assistant[-|a|-|-]");
}

TEST(HarmonyMessages, NothingIsRefusedByTheTemplate) {
  EXPECT_EQ(
      shown(R"([{"role":"assistant","content":"I look.","reasoning":"hm","tool_calls":[{"id":"1","function":{"name":"f"}}]}])"),
      "assistant[hm\nI look.||f|-]");
  EXPECT_EQ(
      shown(R"([{"role":"assistant","content":"a","tool_calls":[]},{"role":"assistant","content":"b","tool_calls":null},7])"),
      "assistant[-|a|-|-]assistant[-|b|-|-]-[-|-|-|-]");
}

}  // namespace
}  // namespace baton::text
