#include "model/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

namespace baton::model {
namespace {

using ::testing::HasSubstr;

std::string image(std::string_view header, size_t data_bytes) {
  std::string out(8, '\0');
  const uint64_t n = header.size();
  std::memcpy(out.data(), &n, 8);
  out += header;
  for (size_t i = 0; i < data_bytes; i++) out += static_cast<char>(i);
  return out;
}

TEST(Safetensors, ReadsTensors) {
  const std::string file =
      image(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
            R"("n":{"dtype":"I64","shape":[],"data_offsets":[24,32]},"e":{"dtype":"F16","shape":[0,7],"data_offsets":[8,8]}}   )",
            32);
  const auto tensors = parse_safetensors(std::as_bytes(std::span(file)));
  ASSERT_TRUE(tensors) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].dtype, Dtype::kF32);
  EXPECT_EQ((*tensors)[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ((*tensors)[0].bytes.size(), 24u);
  EXPECT_EQ(std::to_integer<int>((*tensors)[1].bytes[0]), 24);
  EXPECT_FALSE((*tensors)[1].dtype);
  EXPECT_TRUE((*tensors)[2].bytes.empty());
}

TEST(Safetensors, RefusesLies) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {R"([])", "must be a JSON object"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})", "header"},
      {R"({"a":7})", "tensor a: has no \"dtype\""},
      {R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})", "unknown dtype \"F33\""},
      {R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", "no proper \"shape\""},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}})", "dimension that cannot be right"},
      {R"({"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}})", "dimension that cannot be right"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "dimension that cannot be right"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "no proper \"data_offsets\""},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "impossible \"data_offsets\""},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", "impossible \"data_offsets\""},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})", "ends at byte 20 of 16"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})", "truncated or damaged"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "shape and dtype ask for 12"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       "a and b overlap"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "occurs twice"},
  };
  for (const auto& [header, expected] : cases) {
    const std::string file = image(header, 16);
    const auto tensors = parse_safetensors(std::as_bytes(std::span(file)));
    ASSERT_FALSE(tensors) << header;
    EXPECT_THAT(tensors.error().message, HasSubstr(expected)) << header;
  }
  for (const std::string& file : {std::string("abc"), std::string(8, '\x7f'), image("{}", 0).substr(0, 9)}) {
    EXPECT_FALSE(parse_safetensors(std::as_bytes(std::span(file))));
  }
}

}  // namespace
}  // namespace baton::model
