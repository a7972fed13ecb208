#include "net/resolve.h"

namespace baton::net {
namespace {

TEST(Resolve, NamesAndAddresses) {
  run_task([]() -> Task<> {
    auto local = co_await resolve("localhost");
    EXPECT_TRUE(local.has_value() && !local->empty());
    if (local && local->size() > 1) EXPECT_EQ(local->front(), "127.0.0.1");
    EXPECT_EQ(co_await resolve("127.0.0.9"), std::vector<std::string>{"127.0.0.9"});
    EXPECT_FALSE((co_await resolve("no such name")).has_value());
  });
}

}  // namespace
}  // namespace baton::net
