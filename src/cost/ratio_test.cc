// The ratio controller's decision: never outside its bounds, at rest on a constant load, devices held if told to, slow to take
// away.
#include "cost/ratio.h"

#include <gtest/gtest.h>

#include <set>

#include "base/prng.h"
#include "base/result.h"
#include "cost/workers.h"

namespace baton::cost {
namespace {

constexpr int64_t kLook = 15'000;

// A pool that starts a worker in `start` looks and drains one in `drain`.
struct Pool {
  RatioPolicy policy;
  RoleNow prefill, decode;
  RatioMemory memory{};
  int64_t now_ms = 0;
  int steps = 0;

  int used() const { return prefill.replicas * policy.prefill.devices + decode.replicas * policy.decode.devices; }
  RatioStep look(double prefill_wanted, double decode_wanted) {
    now_ms += kLook;
    prefill.wanted = prefill_wanted, decode.wanted = decode_wanted;
    const RatioStep step = ratio_step(policy, prefill, decode, now_ms, memory);
    steps += step.changed ? 1 : 0;
    for (auto [role, to] : {std::pair(&prefill, step.prefill), std::pair(&decode, step.decode)}) {
      role->starting = std::max(0, role->starting - 1) + std::max(0, to - role->replicas);
      role->leaving = std::max(0, role->leaving - 1) + std::max(0, role->replicas - to);
      role->replicas = to;
    }
    return step;
  }
};

Pool random_pool(Prng& prng, bool held) {
  Pool out;
  for (RoleBounds* b : {&out.policy.prefill, &out.policy.decode}) {
    b->min = static_cast<int>(prng.between(1, 3));
    b->max = b->min + static_cast<int>(prng.between(0, 9));
    b->devices = held ? static_cast<int>(1 << prng.between(0, 2)) : 1;
  }
  out.prefill.replicas = static_cast<int>(prng.between(out.policy.prefill.min, out.policy.prefill.max));
  out.decode.replicas = static_cast<int>(prng.between(out.policy.decode.min, out.policy.decode.max));
  if (held) out.policy.devices = out.used();
  return out;
}

TEST(Ratio, ALoadThatStaysMovesEachRoleOneWayThenNeverAgain) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    Prng prng(seed);
    const bool held = seed % 2 == 0;
    Pool pool = random_pool(prng, held);
    ASSERT_EQ("", ratio_policy_error(pool.policy)) << seed;
    const double p = prng.uniform() * 14, d = prng.uniform() * 14;
    std::set<std::pair<int, int>> seen = {{pool.prefill.replicas, pool.decode.replicas}};
    int directions[2] = {0, 0};
    for (int look = 0; look < 1'500; ++look) {
      const int before[2] = {pool.prefill.replicas, pool.decode.replicas};
      if (!pool.look(p, d).changed) continue;
      ASSERT_TRUE(seen.insert({pool.prefill.replicas, pool.decode.replicas}).second) << "seed " << seed << ": was here before";
      const int moved[2] = {pool.prefill.replicas - before[0], pool.decode.replicas - before[1]};
      for (int i = 0; i < 2; ++i) {
        ASSERT_GE(directions[i] * moved[i], 0) << "seed " << seed << ": turned round";
        if (moved[i] != 0) directions[i] = moved[i];
      }
      ASSERT_LT(look, 1'000) << "seed " << seed << ": does not come to rest";
    }
    if (held) continue;
    // Where it rests: room for the load where the bounds give it, and no more than a worker and the band beyond.
    const RoleBounds &bp = pool.policy.prefill, &bd = pool.policy.decode;
    EXPECT_TRUE(pool.prefill.replicas >= p || pool.prefill.replicas == bp.max) << seed;
    EXPECT_TRUE(pool.decode.replicas >= d || pool.decode.replicas == bd.max) << seed;
    EXPECT_TRUE(pool.prefill.replicas < p + 1 + pool.policy.band || pool.prefill.replicas == bp.min) << seed;
    EXPECT_TRUE(pool.decode.replicas < d + 1 + pool.policy.band || pool.decode.replicas == bd.min) << seed;
  }
}

TEST(Ratio, WhateverTheLoadDoesTheBoundsHoldAndSoDoTheDevices) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Prng prng(seed);
    const bool held = seed % 2 == 0;
    Pool pool = random_pool(prng, held);
    for (int look = 0; look < 600; ++look) {
      const RoleNow prefill = pool.prefill, decode = pool.decode;
      const auto load = [&] { return prng.below(10) == 0 ? -1.0 : prng.uniform() * 15; };
      const RatioStep step = pool.look(load(), load());
      for (const auto& [now, before, b] :
           {std::tuple(step.prefill, prefill, pool.policy.prefill), std::tuple(step.decode, decode, pool.policy.decode)}) {
        ASSERT_GE(now, b.min) << seed;
        ASSERT_LE(now, b.max) << seed;
        if (now > before.replicas) ASSERT_EQ(before.starting, 0) << seed;
        if (now < before.replicas) ASSERT_EQ(before.leaving, 0) << seed;
        if (!held) ASSERT_LE(std::abs(now - before.replicas), 1) << seed;
      }
      if (!held) ASSERT_LE(std::abs(step.prefill - prefill.replicas) + std::abs(step.decode - decode.replicas), 1) << seed;
      if (held) ASSERT_EQ(pool.used(), pool.policy.devices) << seed;
    }
  }
}

TEST(Ratio, AWorkerComesSoonAndGoesLate) {
  Pool pool{.policy = {.prefill = {1, 4}, .decode = {1, 4}}, .prefill = {.replicas = 1}, .decode = {.replicas = 2}};
  const auto looks_until = [&](double p, double d) {
    for (int look = 1; look < 100; ++look) {
      if (pool.look(p, d).changed) return look;
    }
    return 0;
  };
  EXPECT_EQ(looks_until(1.4, 1.5), 60'000 / kLook) << "up_after counts while the start settles";
  EXPECT_EQ(pool.prefill.replicas, 2);
  EXPECT_EQ(looks_until(0.5, 1.5), 300'000 / kLook + 1) << "one look to see it, down_after later it goes";
  EXPECT_EQ(pool.prefill.replicas, 1);
  for (int look = 0; look < 200; ++look)
    EXPECT_FALSE(pool.look(look % 2 == 0 ? 1.0 : 1.5, 1.5).changed) << "never twice in a row";
}

TEST(Ratio, WaitsForWhatItBeganAndLeavesAloneWhatItDoesNotKnow) {
  Pool pool{
      .policy = {.prefill = {1, 4}, .decode = {1, 4}}, .prefill = {.replicas = 2, .starting = 1'000}, .decode = {.replicas = 2}};
  for (int look = 0; look < 100; ++look) EXPECT_FALSE(pool.look(3, 2).changed);
  EXPECT_STREQ(pool.look(3, 2).verdict, "the last worker is still starting");
  pool.prefill.starting = 0, pool.decode.leaving = 1'000;
  for (int look = 0; look < 100; ++look) EXPECT_FALSE(pool.look(2, 0.1).changed);
  EXPECT_STREQ(pool.look(2, 0.1).verdict, "the last worker is still draining");
  pool.decode.leaving = 0;
  for (int look = 0; look < 100; ++look) EXPECT_FALSE(pool.look(-1, -1).changed);
  EXPECT_STREQ(pool.look(-1, -1).verdict, "the load is not known");
  pool.prefill.replicas = 0;
  for (int look = 0; look < 100; ++look) EXPECT_EQ(pool.look(9, 2).prefill, 0) << "somebody switched it off";
}

TEST(Ratio, WhatIsOutsideComesBack) {
  Pool pool{.policy = {.prefill = {2, 3}, .decode = {1, 2}}, .prefill = {.replicas = 1}, .decode = {.replicas = 5}};
  for (int look = 0; look < 100; ++look) pool.look(-1, -1);
  EXPECT_EQ(pool.prefill.replicas, 2);
  EXPECT_EQ(pool.decode.replicas, 2);
  // Held: a worker that was lost half-way through a change of role is made good.
  Pool held{.policy = {.prefill = {1, 4}, .decode = {1, 4}, .devices = 5}, .prefill = {.replicas = 2}, .decode = {.replicas = 2}};
  for (int look = 0; look < 50; ++look) held.look(1.5, 2.5);
  EXPECT_EQ(held.used(), 5);
  EXPECT_EQ(held.decode.replicas, 3) << "the role that is more pressed";
}

TEST(Ratio, HeldDevicesGoWhereTheyAreWorthMore) {
  Pool pool{
      .policy = {.prefill = {1, 8}, .decode = {1, 8, 4}, .devices = 16}, .prefill = {.replicas = 8}, .decode = {.replicas = 2}};
  for (int look = 0; look < 200; ++look) pool.look(3, 2.9);
  EXPECT_EQ(pool.prefill.replicas, 4) << "four workers of one device are one of four";
  EXPECT_EQ(pool.decode.replicas, 3);
  for (int look = 0; look < 200; ++look) pool.look(1, 0.9);
  EXPECT_EQ(pool.decode.replicas, 3) << "nobody is pressed";
}

TEST(Ratio, PoliciesThatCannotBe) {
  EXPECT_NE("", ratio_policy_error({.prefill = {0, 1}, .decode = {1, 1}}));
  EXPECT_NE("", ratio_policy_error({.prefill = {2, 1}, .decode = {1, 1}}));
  EXPECT_NE("", ratio_policy_error({.prefill = {1, 2}, .decode = {1, 2, 4}, .devices = 4})) << "five at least";
  EXPECT_NE("", ratio_policy_error({.prefill = {1, 2}, .decode = {1, 2}, .band = 2}));
  EXPECT_EQ("", ratio_policy_error({.prefill = {1, 2}, .decode = {1, 2, 4}, .devices = 6}));
}

constexpr WorkerCost kH100{{0, 28.27, 1.085}, {5'550, 0, 68.3}, 131'072};

TEST(Wanted, MoreLoadWantsMoreWorkersOfTheRoleItIsFor) {
  const PoolLoad load{.prompts_s = 10, .prompt_tokens = 4'000, .answer_tokens_s = 2'000, .answer_tokens = 200, .context = 4'100};
  const LoadTargets targets;
  const Wanted base = wanted_workers(kH100, kH100, load, targets);
  EXPECT_GT(base.prefill, 1);
  EXPECT_LT(base.prefill, 3);
  EXPECT_GT(base.decode, 0);
  EXPECT_LT(base.decode, 2);
  PoolLoad prompts = load, answers = load, waiting = load;
  prompts.prompts_s *= 2, answers.answer_tokens_s *= 2, waiting.prompts_waiting = 100, waiting.streams_waiting = 100;
  EXPECT_NEAR(wanted_workers(kH100, kH100, prompts, targets).prefill, 2 * base.prefill, 1e-9);
  EXPECT_DOUBLE_EQ(wanted_workers(kH100, kH100, prompts, targets).decode, base.decode);
  EXPECT_NEAR(wanted_workers(kH100, kH100, answers, targets).decode, 2 * base.decode, 1e-9);
  EXPECT_GT(wanted_workers(kH100, kH100, waiting, targets).prefill, base.prefill);
  EXPECT_GT(wanted_workers(kH100, kH100, waiting, targets).decode, base.decode);
  LoadTargets hard = targets, room = targets;
  hard.tpot_us = 7'000, room.kv_tokens = 20'000;
  EXPECT_GT(wanted_workers(kH100, kH100, load, hard).decode, base.decode);
  EXPECT_GT(wanted_workers(kH100, kH100, load, room).decode, base.decode);
  hard.tpot_us = 1, hard.ttft_us = 1;
  EXPECT_LT(wanted_workers(kH100, kH100, load, hard).prefill, 10) << "a target out of reach does not want the world";
  EXPECT_EQ(wanted_workers(kH100, kH100, {}, targets).decode, 0);
  EXPECT_EQ(wanted_workers(kH100, kH100, {}, targets).prefill, 0);
}

TEST(Wanted, StreamsAreThoseTheTargetAllows) {
  for (double tpot : {1'000.0, 6'000.0, 20'000.0, 1e6}) {
    const int n = streams_max(kH100, 2'000, tpot, 256);
    const auto step = [](int streams) {
      return tpot_us(kH100, {.queued_tokens = 0, .running = streams, .mean_context = 2'000}, 0);
    };
    if (n > 0) EXPECT_LE(step(n), tpot);
    if (n < 256) EXPECT_GT(step(n + 1), tpot);
  }
  EXPECT_EQ(prefill_busy_max(1'000, -1), 0);
  EXPECT_EQ(prefill_busy_max(1'000, 1e9), kPrefillBusyMax);
  EXPECT_DOUBLE_EQ(prefill_busy_max(1'000, 500), 0.5);
}

TEST(Calibrated, FollowsOneFactorAndNoOutlier) {
  std::vector<Sample> samples;
  for (int i = 0; i < 7; ++i) samples.push_back({.new_tokens = 1, .mean_context = 0, .us = 2 * kH100.decode.step_us(1, 0)});
  EXPECT_EQ(calibrated(kH100.decode, samples), kH100.decode) << "too few";
  for (int i = 0; i < 4; ++i) samples.push_back({.new_tokens = 1, .mean_context = 0, .us = 1e9});
  const LinearCost twice = calibrated(kH100.decode, samples);
  EXPECT_DOUBLE_EQ(twice.fixed_us, 2 * kH100.decode.fixed_us);
  EXPECT_DOUBLE_EQ(twice.per_ctx_us, 2 * kH100.decode.per_ctx_us);
  for (Sample& s : samples) s.us = 1e12;
  EXPECT_DOUBLE_EQ(calibrated(kH100.decode, samples).fixed_us, 8 * kH100.decode.fixed_us) << "bounded";
}

}  // namespace
}  // namespace baton::cost
