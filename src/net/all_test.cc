// all(): tasks at the same time, and everything ended when it comes back.
#include "net/all.h"

#include "net/mailbox.h"

namespace baton::net {
namespace {

TEST(All, RunsAtTheSameTimeAndEndsWhenAllHave) {
  std::string said;
  run_task([&]() -> Task<> {
    Mailbox<int> first, second;
    auto a = [&]() -> Task<> {
      said += 'a';
      first.push(1);
      (void)co_await second.pop();  // waits for b, which waits for a: neither could run after the other
      said += 'A';
    };
    auto b = [&]() -> Task<> {
      (void)co_await first.pop();
      said += 'b';
      second.push(1);
      said += 'B';
    };
    co_await all(a(), b());
    co_await all(b(), a());
    said += '.';
  });
  EXPECT_EQ(said, "abBAabBA.");
}

TEST(All, NoneOneAndMany) {
  int ran = 0;
  run_task([&]() -> Task<> {
    co_await all(std::vector<Task<>>());
    auto one = [&](int i) -> Task<> {
      if (i % 2) co_await sleep_for(Millis(0));
      ++ran;
    };
    for (int n : {1, 50}) {
      std::vector<Task<>> tasks;
      for (int i = 0; i < n; ++i) tasks.push_back(one(i));
      co_await all(std::move(tasks));
      EXPECT_EQ(std::exchange(ran, 0), n);
    }
  });
}

}  // namespace
}  // namespace baton::net
