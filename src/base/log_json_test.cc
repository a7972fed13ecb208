#include "base/log_json.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "base/log.h"

namespace baton {
namespace {

TEST(LogJson, FieldsBecomeMembers) {
  EXPECT_EQ(json_fields(""), "");
  EXPECT_EQ(json_fields("x-request-id=abc status=429 ms=1.5 ok=true"), R"(,"x-request-id":"abc","status":429,"ms":1.5,"ok":true)");
  EXPECT_EQ(json_fields(R"(error="it said \"no\" = never" port=80)"), R"(,"error":"it said \"no\" = never","port":80)");
  EXPECT_EQ(json_fields("x-request-id=0012 id=12 worker=10.0.0.1:80 none= v=007 w=.5 n=nan e=1e5 f=1.e5"),
            R"(,"x-request-id":"0012","id":"12","worker":"10.0.0.1:80","none":"","v":"007","w":".5","n":"nan","e":1e5,"f":"1.e5")");
  EXPECT_EQ(json_fields("words of a sentence"), R"(,"detail":"words of a sentence")");
  EXPECT_EQ(json_fields("\"unfinished"), R"(,"detail":"\"unfinished")");
  EXPECT_EQ(json_fields("path=\xff\x01"), R"(,"path":"?\u0001")");
}

TEST(LogJson, LinesAreJson) {
  testing::internal::CaptureStderr();
  log_setup_json("test", LogLevel::kInfo);
  log_info("it \"works\"", "x-request-id={} status={}", "r-1", 200);
  log_warn("alone");
  const std::string text = testing::internal::GetCapturedStderr();
  log_setup("base_test", LogLevel::kInfo);
  const size_t newline = text.find('\n');
  const auto first = parse_json(text.substr(0, newline)), second = parse_json(text.substr(newline + 1));
  ASSERT_TRUE(first && second) << text;
  EXPECT_EQ(first->find("level")->text, "info");
  EXPECT_EQ(first->find("logger")->text, "test");
  EXPECT_EQ(first->find("msg")->text, "it \"works\"");
  EXPECT_EQ(first->find("x-request-id")->text, "r-1");
  EXPECT_EQ(first->find("status")->as_int(), 200);
  EXPECT_EQ(second->find("level")->text, "warn");
  EXPECT_NE(first->find("ts"), nullptr);
}

}  // namespace
}  // namespace baton
