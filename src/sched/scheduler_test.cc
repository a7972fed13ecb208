// What must hold for whole workloads: answers do not depend on how they were scheduled, and nobody starves.
#include "sched/scheduler.h"

#include <gtest/gtest.h>

#include "sched/fake_model.h"

namespace baton::sched {
namespace {

// Serves the same requests with whatever configuration and returns their answers.
std::vector<std::vector<int32_t>> serve(const SchedulerConfig& config, int32_t usable_blocks, bool caching) {
  Scheduler scheduler(config, kv::BlockPool(usable_blocks + 1, caching), kv::root_hash("test"));
  constexpr size_t kRequests = 50;
  for (uint64_t i = 0; i < kRequests; ++i) {
    NewRequest r{.id = i, .prompt = {}, .max_tokens = static_cast<int32_t>(1 + Prng::at(8, i) % 40), .cache_salt = {}};
    for (uint64_t p = 0; p < 1 + Prng::at(9, i) % 90; ++p)
      r.prompt.push_back(static_cast<int32_t>(Prng::at(p < 40 ? 1 : i, p) % 1000));
    r.priority = static_cast<int32_t>(i % 3);
    EXPECT_TRUE(scheduler.add(std::move(r)));
  }
  std::vector<std::vector<int32_t>> answers(kRequests);
  while (scheduler.has_work()) {
    StepPlan plan = scheduler.plan();
    std::vector<int32_t> sampled;
    for (const ScheduledSeq& seq : plan.seqs) {
      if (seq.samples) sampled.push_back(fake_next(fake_kv(scheduler.view(seq.id)->tokens).back()));
    }
    scheduler.commit(plan, sampled);
    for (const ScheduledSeq& seq : plan.seqs) {
      auto view = *scheduler.view(seq.id);
      if (view.num_output < static_cast<int32_t>(1 + Prng::at(8, seq.id) % 40)) continue;
      answers[seq.id].assign(view.tokens.begin() + view.num_prompt, view.tokens.end());
      scheduler.finish(seq.id);
    }
  }
  EXPECT_EQ(scheduler.pool().available(), usable_blocks);
  return answers;
}

TEST(Scheduler, AnswersDoNotDependOnTheConfiguration) {
  auto reference = serve({}, 10'000, false);
  for (auto& answer : reference) ASSERT_FALSE(answer.empty());
  for (int32_t blocks : {9, 12, 30, 10'000}) {  // 9 blocks of 16 hold the longest request alone
    for (int32_t budget : {1, 7, 2048}) {
      for (bool caching : {false, true}) {
        for (bool priority : {false, true}) {
          SCOPED_TRACE(testing::Message() << blocks << " blocks, budget " << budget << ", caching " << caching << ", priority "
                                          << priority);
          SchedulerConfig config{.max_num_batched_tokens = budget, .priority_policy = priority};
          ASSERT_EQ(serve(config, blocks, caching), reference);
        }
      }
    }
  }
}

// Small requests keep coming for ever; a large one must still get through, in the order of arrival.
TEST(Scheduler, NobodyStarves) {
  SchedulerConfig config{.max_num_batched_tokens = 64, .max_num_seqs = 8};
  Scheduler scheduler(config, kv::BlockPool(20 + 1, true), kv::root_hash("test"));
  constexpr RequestId kLarge = 1'000'000;
  RequestId next = 0;
  for (int step = 0; step < 1000; ++step) {
    while (scheduler.num_waiting() < 4) {
      ASSERT_TRUE(scheduler.add(
          {.id = ++next, .prompt = std::vector<int32_t>(30, static_cast<int32_t>(next)), .max_tokens = 5, .cache_salt = {}}));
    }
    if (step == 10) {
      ASSERT_TRUE(scheduler.add({.id = kLarge, .prompt = std::vector<int32_t>(250, 1), .max_tokens = 20, .cache_salt = {}}));
    }
    StepPlan plan = scheduler.plan();
    scheduler.commit(plan,
                     std::vector<int32_t>(static_cast<size_t>(std::ranges::count_if(plan.seqs, &ScheduledSeq::samples)), 3));
    for (const ScheduledSeq& seq : plan.seqs) {
      auto view = *scheduler.view(seq.id);
      if (view.num_output < (seq.id == kLarge ? 20 : 5)) continue;
      scheduler.finish(seq.id);
      if (seq.id == kLarge) return;
    }
  }
  FAIL() << "the large request never finished";
}

// An engine may plan ahead of the step that runs. What comes back from before a preemption is a good token but says nothing about
// the blocks the request has now.
TEST(Scheduler, CommitOfAPlanFromBeforeAPreemption) {
  Scheduler scheduler({}, kv::BlockPool(4 + 1, true), kv::root_hash("test"));
  int32_t token[] = {7};
  ASSERT_TRUE(scheduler.add({.id = 1, .prompt = std::vector<int32_t>(32, 1), .max_tokens = 9, .cache_salt = {}}));
  StepPlan first = scheduler.plan();
  ASSERT_TRUE(scheduler.add({.id = 2, .prompt = std::vector<int32_t>(20, 2), .max_tokens = 9, .cache_salt = {}}));
  StepPlan second = scheduler.plan();
  ASSERT_EQ(second.seqs.size(), 1u);
  EXPECT_EQ(second.seqs[0].id, 2u);
  scheduler.commit(first, token);
  StepPlan third = scheduler.plan();  // request 1 needs a third block
  EXPECT_EQ(third.preempted, std::vector<RequestId>{2});
  scheduler.abort(1);
  StepPlan fourth = scheduler.plan();
  ASSERT_EQ(fourth.seqs.size(), 1u);
  EXPECT_EQ(fourth.seqs[0].id, 2u);

  int32_t cached = scheduler.pool().cached();
  scheduler.commit(second, token);
  EXPECT_EQ(scheduler.pool().cached(), cached) << "the fourth step has not run yet";
  EXPECT_EQ(scheduler.view(2)->num_output, 1);
  scheduler.commit(third, token);
  scheduler.commit(fourth, token);  // the same token again
  EXPECT_EQ(scheduler.view(2)->num_output, 1);
  EXPECT_EQ(scheduler.pool().cached(), cached + 1);
  StepPlan fifth = scheduler.plan();
  ASSERT_EQ(fifth.seqs.size(), 1u);
  EXPECT_EQ(fifth.seqs[0].first_position, 20);
}

}  // namespace
}  // namespace baton::sched
