#include "tensor/threads.h"

#include <gtest/gtest.h>

#include <atomic>

namespace baton::tensor {
namespace {

TEST(ThreadPool, EveryPartRunsOnceAndPhasesAreSeparated) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads, threads == 2);
    for (const int64_t n : {1, 2, 13, 1000}) {
      std::vector<int64_t> cells(static_cast<size_t>(n));
      int64_t want = 0;
      for (int round = 0; round < 40; ++round) {
        std::atomic<int> wrong{0};
        pool.run([&](ThreadPool::Member& member) {
          for (int64_t phase = 0; phase < 10; ++phase) {
            member.split(n, [&](Share part) {
              for (int64_t i = part.begin; i < part.end; ++i) cells[i] += i + phase;  // plain writes: phases must order them
            });
            member.split(n, [&](Share part) {  // reads what other members wrote
              for (int64_t i = part.begin; i < part.end; ++i)
                wrong += cells[n - 1 - i] != want + (n - 1 - i) * (round * 10 + phase + 1) + round * 45 + phase * (phase + 1) / 2;
            });
          }
        });
        ASSERT_EQ(wrong, 0) << threads << " threads, " << n << " items, round " << round;
      }
    }
  }
}

// What a member calls its own are the parts of split(), each member's in its order.
TEST(ThreadPool, EveryItemIsSomeMembersOwn) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads, false);
    for (const int64_t n : {0, 1, 5, 13, 1000}) {
      for (const int64_t unit : {1, 16}) {
        int64_t next = 0;
        for (int member = 0; member < threads; ++member) {
          const auto check = [&](Share part) {
            EXPECT_EQ(part.begin, next) << threads << " threads, " << n << " items in units of " << unit;
            next = part.end;
          };
          pool.own(member, n, check, unit);
        }
        EXPECT_EQ(next, n);
      }
    }
  }
}

TEST(ThreadPool, SharesCoverEverythingOnce) {
  for (const int64_t n : {0, 1, 5, 16, 100, 3072}) {
    for (const int members : {1, 2, 3, 8}) {
      for (const int64_t unit : {1, 16}) {
        int64_t next = 0;
        for (int i = 0; i < members; ++i) {
          const Share s = share(n, i, members, unit);
          EXPECT_EQ(s.begin, next);
          EXPECT_GE(s.end, s.begin);
          next = s.end;
        }
        EXPECT_EQ(next, n);
      }
    }
  }
}

}  // namespace
}  // namespace baton::tensor
