#include "tensor/ops.h"

#include <gtest/gtest.h>

namespace baton::tensor {
namespace {

TEST(FindOps, NamesWhatItKnows) {
  EXPECT_TRUE(find_ops("auto"));
  EXPECT_TRUE(find_ops("plain"));
  const auto unknown = find_ops("avx1024");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Code::kInvalidArgument);
  EXPECT_NE(unknown.error().message.find("avx1024"), std::string::npos);
}

}  // namespace
}  // namespace baton::tensor
