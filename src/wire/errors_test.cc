#include "wire/errors.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace baton::wire {
namespace {

TEST(Errors, EnvelopeIsVllms) {
  EXPECT_EQ(error_json(400, "no \"such\""),
            R"({"error":{"message":"no \"such\"","type":"BadRequestError","param":null,"code":400}})");
  EXPECT_EQ(error_json({.status = 404, .message = "m", .type = {}, .param = "model"}),
            R"({"error":{"message":"m","type":"NotFoundError","param":"model","code":404}})");
  EXPECT_EQ(error_type(405), "Method Not Allowed");
  EXPECT_EQ(error_type(503), "InternalServerError");
  EXPECT_EQ(error_type(418), "BadRequestError");
  EXPECT_EQ(reason_phrase(431), "Request Header Fields Too Large");
  EXPECT_EQ(reason_phrase(299), "");
}

TEST(Errors, BodyIsJsonWhateverTheMessage) {
  for (std::string message : {std::string("\xff\xfe"), std::string("a\0b", 3), std::string("\n\x01\"\\")}) {
    EXPECT_TRUE(parse_json(error_json(500, message)).has_value());
  }
}

TEST(Errors, StatusComesFromTheCode) {
  EXPECT_EQ(api_error({Code::kResourceExhausted, "full"}).status, 429);
  EXPECT_EQ(api_error({Code::kUnavailable, "down"}).status, 503);
}

}  // namespace
}  // namespace baton::wire
