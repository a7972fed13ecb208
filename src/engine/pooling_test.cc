// What an embedding request may ask for, and /pooling.
#include <cmath>

#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using ::testing::HasSubstr;
using testing::Reply;
using testing::TestEngine;

EngineConfig pooling() {
  EngineConfig config;
  config.runner = "pooling";
  return config;
}

std::vector<double> vector_of(const Reply& reply, std::string_view key = "embedding") {
  EXPECT_EQ(reply.status, 200) << reply.body;
  const Json json = reply.json();
  const Json* data = json.find("data");
  std::vector<double> out;
  if (data == nullptr || data->items.empty() || data->items[0].find(key) == nullptr) return out;
  for (const Json& value : data->items[0].find(key)->items) out.push_back(value.as_double().value_or(0));
  EXPECT_FALSE(out.empty()) << reply.body;
  return out;
}

double length_of(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

TEST(Pooling, IsEmbeddingsInOtherWords) {
  TestEngine e(pooling());
  const Reply reply = e.post("/pooling", R"({"input":"hi there"})");
  EXPECT_EQ(vector_of(reply, "data"), vector_of(e.post("/v1/embeddings", R"({"input":"hi there"})")));
  EXPECT_THAT(reply.body, HasSubstr(R"("id":"pooling-)"));
  EXPECT_THAT(reply.body, HasSubstr(R"("object":"pooling")"));
  EXPECT_EQ(e.post("/pooling", R"({"input":"hi","task":"embed"})").status, 200);
  EXPECT_THAT(e.post("/pooling", R"({"input":"hi","task":"classify"})").body, HasSubstr("Unsupported task"));
  TestEngine generates;
  EXPECT_EQ(generates.post("/pooling", R"({"input":"hi"})").status, 404);
}

TEST(Pooling, WithoutActivationTheVectorIsAsItWasComputed) {
  TestEngine e(pooling());
  const auto normal = vector_of(e.post("/v1/embeddings", R"({"input":"hi there"})"));
  const auto plain = vector_of(e.post("/v1/embeddings", R"({"input":"hi there","use_activation":false})"));
  ASSERT_EQ(normal.size(), plain.size());
  EXPECT_NEAR(length_of(normal), 1, 1e-5);
  const double length = length_of(plain);
  EXPECT_GT(std::abs(length - 1), 0.01);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(plain[i] / length, normal[i], 1e-5);
}

TEST(Pooling, ALongTextKeepsItsBeginning) {
  TestEngine e(pooling());
  const auto of = [&](const char* input, const char* more) {
    return vector_of(e.post("/v1/embeddings", cat(R"({"input":)", input, more, "}")));
  };
  EXPECT_EQ(of("[5,6,7,8]", R"(,"truncate_prompt_tokens":2)"), of("[5,6]", ""));
  EXPECT_EQ(of("[5,6,7,8]", R"(,"truncate_prompt_tokens":2,"truncation_side":"left")"), of("[7,8]", ""));
}

TEST(Pooling, AChatIsNoPromptForAnAnswer) {
  TestEngine e(pooling());
  const auto tokens = [&](const char* more) {
    const Json json = e.post("/v1/embeddings", cat(R"({"messages":[{"role":"user","content":"hi"}])", more, "}")).json();
    return json.find_path({"usage", "prompt_tokens"})->as_int().value_or(0);
  };
  EXPECT_EQ(tokens(""), tokens(R"(,"add_generation_prompt":false)"));
  EXPECT_LT(tokens(""), tokens(R"(,"add_generation_prompt":true)"));
}

TEST(Pooling, RefusesByName) {
  TestEngine e(pooling());
  const Reply normalize = e.post("/v1/embeddings", R"({"input":"hi","normalize":true})");
  EXPECT_EQ(normalize.status, 400);
  EXPECT_THAT(normalize.body, HasSubstr("use `use_activation` instead"));
  EXPECT_EQ(e.post("/v1/embeddings", R"({"input":"hi","encoding_format":"base64","embed_dtype":"float16"})").status, 501);
  EXPECT_EQ(e.post("/v1/embeddings", R"({"input":"hi","encoding_format":"base64","endianness":"big"})").status, 501);
  EXPECT_EQ(e.post("/v1/embeddings", R"({"input":"hi","embed_dtype":"float16"})").status, 200);  // floats are text
}

}  // namespace
}  // namespace baton::engine
