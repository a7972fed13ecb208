// What the ratio controller reads: counters of model servers to loads, Scales, pods, autoscalers; flags that contradict
// themselves.
#include "deploy/ratio.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "deploy/plan.h"
#include "deploy/ratio_load.h"
#include "deploy/ratio_objects.h"

namespace baton::deploy {
namespace {

using testing::HasSubstr;

struct Fake {
  double requests = 0, prompt = 0, cached = 0, answer = 0, step_s = 0, steps = 0;
  int waiting = 0, running = 0;
  double kv = 0;
  std::string text() const {
    return cat("vllm:request_success_total{finished_reason=\"stop\"} ", requests - 1,
               "\nvllm:request_success_total{finished_reason=\"length\"} 1\n", "vllm:prompt_tokens_total ", prompt,
               "\nvllm:prefix_cache_hits_total ", cached, "\nvllm:generation_tokens_total ", answer,
               "\nvllm:inter_token_latency_seconds_sum ", step_s, "\nvllm:inter_token_latency_seconds_count ", steps,
               "\nvllm:num_requests_waiting ", waiting, "\nvllm:num_requests_running ", running, "\nvllm:kv_cache_usage_perc ",
               kv, "\nvllm:cache_config_info{engine=\"0\",gpu_block_size=\"7\",block_size=\"16\",num_gpu_blocks=\"1000\"} 1\n");
  }
  ServerNumbers read(std::string pod) const { return read_server(std::move(pod), text()).value(); }
};

TEST(RatioLoad, RatesAreWhatGrewOverTheWindow) {
  LoadMeter meter(60'000);
  Fake a{.requests = 1'000, .prompt = 5e6}, b{.requests = 10, .prompt = 1e4};
  meter.look(0, {a.read("a"), b.read("b")});
  EXPECT_FALSE(meter.load()) << "one look is no rate";
  for (int i = 1; i <= 10; ++i) {
    a.requests += 20, a.prompt += 20'000, a.cached += 5'000, a.answer += 400;
    b.requests += 10, b.prompt += 40'000, b.answer += 200;
    a.running = 3, b.running = 1, a.waiting = 2, a.kv = 0.5, b.kv = 0.1;
    meter.look(10'000 * i, {a.read("a"), b.read("b")});
  }
  const RoleLoad load = meter.load().value();
  EXPECT_DOUBLE_EQ(load.requests_s, 3);
  EXPECT_DOUBLE_EQ(load.prompt_tokens, 55'000.0 / 30) << "what was cached is not computed";
  EXPECT_DOUBLE_EQ(load.answer_tokens_s, 60);
  EXPECT_DOUBLE_EQ(load.answer_tokens, 20);
  EXPECT_DOUBLE_EQ(load.waiting, 2);
  EXPECT_EQ(load.kv_tokens, 16'000);
  EXPECT_DOUBLE_EQ(load.context, (0.5 + 0.1) * 16'000 / 4);
}

TEST(RatioLoad, AServerThatComesGoesOrStartsAnewMakesNoRateJump) {
  LoadMeter meter(1'000'000);
  Fake a{.requests = 100, .prompt = 100'000};
  meter.look(0, {a.read("a")});
  meter.look(10'000, {a.read("a"), Fake{.requests = 1e6, .prompt = 1e9}.read("b")});
  EXPECT_EQ(meter.load()->requests_s, 0) << "b has worked before it was seen";
  meter.look(20'000, {Fake{.requests = 7, .prompt = 7'000}.read("a")});
  EXPECT_EQ(meter.load()->requests_s, 0) << "a started anew, b is gone";
  meter.look(30'000, {Fake{.requests = 37, .prompt = 37'000}.read("a")});
  EXPECT_DOUBLE_EQ(meter.load()->requests_s, 1);
}

TEST(RatioLoad, StepsAreSampledWhereTheyCanBeSeen) {
  LoadMeter meter(60'000);
  Fake a{.requests = 10, .prompt = 1'000, .running = 2, .kv = 0.5};
  meter.look(0, {a.read("a")});
  a.step_s += 1, a.steps += 100, a.requests += 5, a.prompt += 5'000;
  meter.look(10'000, {a.read("a")});
  ASSERT_EQ(meter.decode_samples().size(), 1U);
  EXPECT_EQ(meter.decode_samples()[0].new_tokens, 2);
  EXPECT_DOUBLE_EQ(meter.decode_samples()[0].us, 10'000);
  EXPECT_DOUBLE_EQ(meter.decode_samples()[0].mean_context, 4'000);
  EXPECT_TRUE(meter.prefill_samples().empty()) << "a worker that nobody waits for may have been idle";
  for (int look = 2; look <= 3; ++look) {
    a.waiting = 4, a.requests += 5, a.prompt += 5'000;
    meter.look(10'000 * look, {a.read("a")});
  }
  ASSERT_EQ(meter.prefill_samples().size(), 1U);
  EXPECT_EQ(meter.prefill_samples()[0].new_tokens, 1'000);
  EXPECT_DOUBLE_EQ(meter.prefill_samples()[0].us, 2e6);
}

TEST(RatioLoad, WhatIsMissingIsNamed) {
  EXPECT_THAT(read_server("p", "").error().message, HasSubstr("vllm:request_success_total"));
  std::string text = Fake{.requests = 2}.text();
  text.replace(text.find("vllm:generation"), 4, "xllm");
  EXPECT_THAT(read_server("p", text).error().message, HasSubstr("vllm:generation_tokens_total"));
}

// The controller wants of a load what the planner plans for it.
TEST(RatioLoad, AgreesWithThePlan) {
  for (double rate : {5.0, 20.0, 60.0}) {
    PlanAsk ask{.environment = "default", .model = "Llama-3.1-8B-Instruct", .device = "h100", .devices = 64, .rate = rate};
    ask.prompt_tokens = 2'000, ask.output_tokens = 300, ask.prefill_tp = ask.decode_tp = 1;
    const Plan plan = make_plan(ask, find_shape(ask.model).value()).value();
    RatioCommand command{.model = ask.model, .device = ask.device, .hand_over_ms = plan.hand_over_us / 1e3};
    const auto [prefill, decode] = command.costs().value();
    cost::LoadTargets targets = command.targets();
    targets.kv_tokens = plan.decode.kv_tokens;
    const cost::PoolLoad load{
        .prompts_s = rate, .prompt_tokens = 2'000, .answer_tokens_s = 300 * rate, .answer_tokens = 300, .context = 2'150};
    const cost::Wanted wanted = cost::wanted_workers(prefill, decode, load, targets);
    EXPECT_EQ(std::max(1, static_cast<int>(std::ceil(wanted.prefill - 1e-9))), plan.prefill.replicas) << rate;
    EXPECT_EQ(std::max(1, static_cast<int>(std::ceil(wanted.decode - 1e-9))), plan.decode.replicas) << rate;
  }
}

TEST(RatioObjects, ScalesAreReadAndWritten) {
  const auto scale = parse_scale(R"({"kind":"Scale","metadata":{"name":"d","resourceVersion":"17"},"spec":{"replicas":3},
      "status":{"replicas":2,"selector":"a=b,c=d"}})");
  EXPECT_EQ(scale.value(), (Scale{3, "a=b,c=d", "17"}));
  EXPECT_EQ(parse_scale(R"({"metadata":{},"spec":{},"status":{"selector":"a=b"}})")->replicas, 0) << "0 is left away";
  EXPECT_FALSE(parse_scale(R"({"spec":{"replicas":3},"status":{}})"));
  EXPECT_FALSE(parse_scale(R"({"spec":{"replicas":-1},"status":{"selector":"a=b"}})"));
  EXPECT_EQ(
      scale_text("ns", "d", *scale),
      R"({"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d","namespace":"ns","resourceVersion":"17"},"spec":{"replicas":3}})");
  EXPECT_EQ(deletion_cost_patch(false), R"({"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":null}}})");
}

TEST(RatioObjects, PodsAndAutoscalers) {
  const auto pod = [](const char* more) {
    return parse_model_pod(*parse_json(cat(R"({"metadata":{"name":"p",)", more,
                                           R"("annotations":{"controller.kubernetes.io/pod-deletion-cost":"-1000"}},
        "spec":{"containers":[{"name":"vllm","ports":[{"name":"metrics","containerPort":8200}]}]},
        "status":{"podIP":"10.0.0.1","conditions":[{"type":"Ready","status":"True"}]}})")),
                           8000);
  };
  EXPECT_EQ(pod("").value(), (ModelPod{"p", "10.0.0.1", 8200, true, false, false, true}));
  EXPECT_EQ(pod(R"("deletionTimestamp":"2026-01-01T00:00:00Z",)").value(),
            (ModelPod{"p", "10.0.0.1", 8200, false, true, false, true}));
  const auto list =
      parse_json(R"({"items":[{"metadata":{"name":"h"},"spec":{"scaleTargetRef":{"kind":"Deployment","name":"d"}}}]})");
  EXPECT_EQ(autoscaler_of(*list, "d"), "h");
  EXPECT_EQ(autoscaler_of(*list, "e"), "");
}

TEST(RatioCommand, WhatContradictsItselfIsSaidAtOnce) {
  const auto error = [](RatioCommand c) {
    c.port = 0;
    return RatioController(std::move(c)).start().error().message;
  };
  const std::string all = error({});
  EXPECT_THAT(all, HasSubstr("--prefill and --decode"));
  EXPECT_THAT(all, HasSubstr("--prefill-max"));
  EXPECT_THAT(all, HasSubstr("--model"));
  RatioCommand c{.prefill = "p",
                 .decode = "d",
                 .prefill_max = 2,
                 .decode_max = 2,
                 .hold_devices = 9,
                 .model = "smollm2",
                 .device = "abacus"};
  EXPECT_THAT(error(c), HasSubstr("no device \"abacus\": one of h200"));
  EXPECT_THAT(error(c), HasSubstr("devices to hold: 2 to 4"));
  c.prefill_cost = "1,2";
  c.decode_cost = "1,x,3";
  EXPECT_THAT(error(c), HasSubstr("PER_1024_CONTEXT"));
  c.prefill_cost = "0,28,1", c.decode_cost = "5550,0,68.3";
  EXPECT_EQ(c.costs()->second.decode, (cost::LinearCost{5550, 0, 68.3}));
}

}  // namespace
}  // namespace baton::deploy
