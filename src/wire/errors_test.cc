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

// Beside the message: which field, and who refused it.
TEST(Errors, ApiErrorSaysTheFieldAndTheKind) {
  const auto of = [](const char* message, Code code = Code::kInvalidArgument) { return api_error(Error{code, message}); };
  EXPECT_EQ(of("tools[0].function.name: Field required").param, "body.tools.0.function.name");
  EXPECT_EQ(of("tools[0].function.name: Field required").type, "Bad Request");
  EXPECT_EQ(of("temperature must be non-negative, got -1.").param, "temperature");
  EXPECT_EQ(of("temperature must be non-negative, got -1.").type, "");  // the status's: BadRequestError
  EXPECT_FALSE(of("min_tokens must be greater than or equal to 0, got -1.").param);
  EXPECT_FALSE(of("two words: what follows is no field").param);
  EXPECT_FALSE(of("model: gone", Code::kNotFound).param);
}

}  // namespace
}  // namespace baton::wire
