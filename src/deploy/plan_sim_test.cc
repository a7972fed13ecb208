// A plan against the simulator, which runs the picker's own decisions and the engine's own scheduler on virtual time: what the
// plan expects of its workers is what happens to them, and the rate it says they carry is one they carry.
#include <gtest/gtest.h>

#include "deploy/plan.h"
#include "route/config.h"
#include "sim/command.h"
#include "sim/profile.h"
#include "sim/simulator.h"

namespace baton::deploy {
namespace {

sim::SimReport simulated(const Plan& plan, double rate) {
  const sim::Profile* h100 = sim::find_profile("h100-llama-3.1-8b");  // measured; the plan's coefficients are a data sheet's
  sim::SimConfig config;
  for (int i = 0; i < plan.prefill.replicas; ++i)
    config.workers.push_back({route::Role::kPrefill, h100->worker, h100->kv_blocks});
  for (int i = 0; i < plan.decode.replicas; ++i) config.workers.push_back({route::Role::kDecode, h100->worker, h100->kv_blocks});
  config.link = h100->link;
  config.plan = route::load_config(sim::policy_config("least-loaded", true), {.allow_experimental = true}).plan;
  sim::WorkloadParams load{.shape = sim::Shape::kRandom, .rate = rate, .requests = 1'200};
  load.shared_tokens = plan.ask.prompt_tokens / 2, load.question_tokens = plan.ask.prompt_tokens / 2;
  load.output_tokens = plan.ask.output_tokens, load.spread = 0;
  return sim::simulate(config, sim::make_workload(load));
}

TEST(PlanAndSimulator, Agree) {
  PlanAsk ask{.environment = "default", .model = "Llama-3.1-8B-Instruct", .device = "h100", .devices = 16, .rate = 20};
  ask.prompt_tokens = 1000, ask.output_tokens = 400, ask.tpot_ms = 10, ask.ttft_ms = 500;
  ask.prefill_tp = ask.decode_tp = 1;
  const auto plan = make_plan(ask, find_shape(ask.model).value());
  ASSERT_TRUE(plan) << plan.error().reason;
  const sim::SimReport report = simulated(*plan, 20);
  EXPECT_EQ(report.refused + report.unfinished, 0);
  EXPECT_NEAR(report.tpot_ms.p50, plan->tpot_us / 1e3, 0.15 * plan->tpot_us / 1e3);
  EXPECT_NEAR(report.ttft_ms.mean, plan->ttft_us / 1e3, 0.35 * plan->ttft_us / 1e3);
  EXPECT_LE(report.tpot_ms.p95, ask.tpot_ms);
  // A third more than they are said to carry is more than they carry in time.
  EXPECT_GT(simulated(*plan, 1.33 * plan->rate_max).ttft_ms.mean, ask.ttft_ms);
}

}  // namespace
}  // namespace baton::deploy
