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

// Beside the message an answer has what the refuser said of it, and nothing that the message alone says.
TEST(Errors, ApiErrorSaysTheParameterAndTheKind) {
  const ApiError form = api_error(refuse(At{"tools[0].function.name"}, "Field required").error());
  EXPECT_EQ(form.message, "tools[0].function.name: Field required");
  EXPECT_EQ(form.param, "body.tools.0.function.name");
  EXPECT_EQ(form.type, "Bad Request");
  const ApiError whole = api_error(refuse(At{}, "JSON decode error: ", "at byte ", 3).error());
  EXPECT_EQ(whole.message, "JSON decode error: at byte 3");
  EXPECT_EQ(whole.param, "body");
  EXPECT_EQ(whole.type, "Bad Request");
  const ApiError asked = api_error(refuse(About{"temperature"}, "temperature must be non-negative, got ", -1, ".").error());
  EXPECT_EQ(asked.message, "temperature must be non-negative, got -1.");
  EXPECT_EQ(asked.param, "temperature");
  EXPECT_EQ(asked.type, "");  // the status's: BadRequestError
  for (const char* message : {"temperature must be non-negative", "tools[0].name: Field required", "JSON decode error"}) {
    const ApiError plain = api_error(Error{Code::kInvalidArgument, message});
    EXPECT_FALSE(plain.param) << message;
    EXPECT_EQ(plain.type, "") << message;
  }
  EXPECT_FALSE(api_error(Error{.code = Code::kNotFound, .message = "gone", .param = "body.model", .form = true}).param);
}

}  // namespace
}  // namespace baton::wire
