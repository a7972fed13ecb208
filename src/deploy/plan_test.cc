// Plans: each guide's environment has one; load, targets and memory move it the way they must; what cannot be says what can.
#include "deploy/plan.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "cost/workers.h"
#include "deploy/plan_view.h"

namespace baton::deploy {
namespace {

Plan made(PlanAsk ask) {
  const Environment* e = find_environment(ask.environment);
  auto plan = make_plan(ask, find_shape(ask.model.empty() ? std::string(e->model) : ask.model).value());
  if (!plan) ADD_FAILURE() << ask.environment << ": " << plan.error().reason;
  return plan.value_or(Plan{});
}
NoPlan refused(PlanAsk ask) {
  const Environment* e = find_environment(ask.environment);
  auto plan = make_plan(ask, find_shape(ask.model.empty() ? std::string(e->model) : ask.model).value());
  EXPECT_FALSE(plan);
  return plan ? NoPlan{} : plan.error();
}
bool advises(const NoPlan& no, std::string_view words) {
  for (const std::string& line : no.advice) {
    if (line.find(words) != line.npos) return true;
  }
  return false;
}

TEST(Plan, EveryEnvironmentOfTheGuidesHasOne) {
  for (const Environment& e : environments()) {
    SCOPED_TRACE(e.name);
    const Plan plan = made({.environment = std::string(e.name), .prompt_tokens = 500, .output_tokens = 200, .tpot_ms = 100});
    EXPECT_GE(plan.prefill.replicas, 1);
    EXPECT_GE(plan.decode.replicas, 1);
    EXPECT_LE(plan.devices_used(), e.devices);
    EXPECT_GE(plan.prefill.kv_tokens, plan.ask.context);
    EXPECT_LE(plan.ttft_us, 2e6);
    EXPECT_LE(plan.tpot_us, 1e5 * 1.0001);
    if (!e.baton_engine) EXPECT_LE(plan.prefill.tp, plan.decode.tp) << "vLLM";
    const std::string screen = plan_screen(plan, false);
    EXPECT_LE(std::count(screen.begin(), screen.end(), '\n'), 24) << "one screen";
    EXPECT_TRUE(parse_json(plan_json(plan))) << plan_json(plan);
  }
}

TEST(Plan, TheGuidesOwnNumbersFit) {
  // environment, prefill, TP, decode, TP: the table of the guides.
  const struct {
    const char* name;
    int p, ptp, d, dtp;
  } rows[] = {{"default", 4, 1, 1, 4}, {"gke_tpu", 2, 8, 1, 8}, {"xpu", 2, 1, 1, 2},
              {"hpu", 1, 1, 1, 1},     {"amd", 4, 1, 1, 4},     {"kind", 1, 1, 1, 1}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.name);
    const Plan plan = made({.environment = row.name,
                            .prompt_tokens = 500,
                            .output_tokens = 200,
                            .tpot_ms = 100,
                            .prefill_replicas = row.p,
                            .prefill_tp = row.ptp,
                            .decode_replicas = row.d,
                            .decode_tp = row.dtp});
    EXPECT_EQ(plan.devices_used(), row.p * row.ptp + row.d * row.dtp);
    EXPECT_GT(plan.rate_max, 0);
  }
}

TEST(Plan, TheLoadDecidesTheRatio) {
  PlanAsk ask{.environment = "default", .model = "Llama-3.1-8B-Instruct", .device = "h100", .devices = 16};
  ask.prompt_tokens = 8000, ask.output_tokens = 100;
  const Plan reads = made(ask);
  ask.prompt_tokens = 200, ask.output_tokens = 2000;
  const Plan writes = made(ask);
  EXPECT_GT(reads.prefill.replicas * reads.prefill.tp, reads.decode.replicas * reads.decode.tp);
  EXPECT_LT(writes.prefill.replicas * writes.prefill.tp, writes.decode.replicas * writes.decode.tp);
  EXPECT_GT(reads.devices_used(), 12);
}

// What an ideal scheduler reaches on the same 16 H100 with 1,000 tokens in and out (facts sheet "performance" 4.5): 2P14D 42.9
// requests a second at a TPOT of 8 ms, 3P13D 88.5 at 20 ms.
TEST(Plan, FindsThePublishedOptimum) {
  PlanAsk ask{.environment = "default",
              .model = "Llama-3.1-8B-Instruct",
              .device = "h100",
              .devices = 16,
              .prefill_tp = 1,
              .decode_tp = 1};
  ask.tpot_ms = 8;
  const Plan fast = made(ask);
  EXPECT_EQ(fast.prefill.replicas, 2);
  EXPECT_NEAR(fast.rate, 42.9, 5);
  ask.tpot_ms = 20;
  const Plan full = made(ask);
  EXPECT_NEAR(full.prefill.replicas, 3, 1);
  EXPECT_NEAR(full.rate, 88.5, 10);
}

TEST(Plan, ARateTakesTheFewestDevices) {
  PlanAsk ask{.environment = "default", .devices = 64};
  ask.rate = 2;
  const Plan small = made(ask);
  ask.rate = 40;
  const Plan large = made(ask);
  EXPECT_LT(small.devices_used(), large.devices_used());
  EXPECT_GE(small.rate_max, 2);
  EXPECT_GE(large.rate_max, 40);
  EXPECT_LE(large.prefill.busy, cost::kPrefillBusyMax + 1e-9);
}

TEST(Plan, WithoutRdmaTheHandOverIsDearer) {
  PlanAsk ask{.environment = "default", .rdma = "yes"};
  const double fast = made(ask).hand_over_us;
  ask.rdma = "no";
  EXPECT_GT(made(ask).hand_over_us, 5 * fast);
}

TEST(Plan, ACacheOfEightBitsHoldsTwiceTheTokens) {
  PlanAsk ask{.environment = "default"};
  const Plan wide = made(ask);
  ask.kv_cache_dtype = "fp8";
  const Plan half = made(ask);
  EXPECT_EQ(half.shape.kv_bytes_per_token * 2, wide.shape.kv_bytes_per_token);
  EXPECT_GE(half.rate_max, wide.rate_max);
  EXPECT_NE(render_flags(half).find("--kv-cache-dtype fp8"), std::string::npos);
  EXPECT_EQ(render_flags(wide).find("--kv-cache-dtype"), std::string::npos);
  ask.kv_cache_dtype = "int8_per_token_head";  // and a scale of 4 bytes for each of 128 dims
  EXPECT_EQ(made(ask).shape.kv_bytes_per_token * 64, wide.shape.kv_bytes_per_token * 33);
}

TEST(Plan, WhatCannotBeSaysWhatCan) {
  NoPlan no = refused({.environment = "default", .model = "meta-llama/Llama-3.3-70B-Instruct", .device = "l4", .memory_gb = 16});
  EXPECT_NE(no.reason.find("141 GB of weights"), no.reason.npos) << no.reason;
  EXPECT_TRUE(advises(no, "FP8"));
  EXPECT_TRUE(advises(no, "--device h200"));
  no = refused({.environment = "kind", .context = 8000});
  EXPECT_TRUE(advises(no, "--context 5")) << no.reason;
  no = refused({.environment = "default", .devices = 1});
  EXPECT_TRUE(advises(no, "--devices 2")) << no.reason;
  no = refused({.environment = "default", .devices = 8, .rate = 1000});
  EXPECT_TRUE(advises(no, "--devices ")) << no.reason;
  EXPECT_TRUE(advises(no, "--rate ")) << no.reason;
  no = refused({.environment = "default", .prompt_tokens = 30'000, .ttft_ms = 50});
  EXPECT_TRUE(advises(no, "--ttft ")) << no.reason;
  no = refused({.environment = "default", .tpot_ms = 0.5});
  EXPECT_TRUE(advises(no, "--tpot ")) << no.reason;
  no = refused({.environment = "default", .prompt_tokens = 40'000});
  EXPECT_TRUE(advises(no, "--context 41000")) << no.reason;
  EXPECT_TRUE(advises(refused({.environment = "kind", .prompt_tokens = 3000, .output_tokens = 3000}), "--context 6000"));
  // The advice is true: what it names fits.
  EXPECT_GE(made({.environment = "default", .devices = 2}).devices_used(), 2);
}

TEST(Shape, IsThatOfThePublishedModels) {
  const Shape llama = find_shape("llama-3.1-8b-instruct").value();
  EXPECT_NEAR(llama.parameters + llama.head_parameters + llama.embed_parameters, 8.03e9, 0.01e9);
  EXPECT_EQ(llama.kv_bytes_per_token, 131'072);
  EXPECT_NEAR(llama.work().weight_bytes, 15.01e9, 0.02e9);
  const Shape fp8 = find_shape("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic").value();
  EXPECT_NEAR(fp8.weight_bytes, 72.7e9, 1e9);
  EXPECT_NEAR(find_shape("smollm2").value().parameters + find_shape("smollm2").value().head_parameters, 134.5e6, 0.5e6);
}

TEST(Shape, ReadsConfigJson) {
  const auto qwen =
      parse_shape(R"({"architectures":["Qwen3ForCausalLM"],"hidden_size":1024,"intermediate_size":3072,"head_dim":128,
    "num_hidden_layers":28,"num_attention_heads":16,"num_key_value_heads":8,"vocab_size":151936,"max_position_embeddings":40960,
    "tie_word_embeddings":true,"torch_dtype":"bfloat16"})",
                  "q");
  ASSERT_TRUE(qwen);
  EXPECT_DOUBLE_EQ(qwen->weight_bytes, find_shape("Qwen/Qwen3-0.6B")->weight_bytes);
  const auto moe = parse_shape(R"({"hidden_size":2048,"intermediate_size":6144,"moe_intermediate_size":768,"num_experts":128,
    "num_experts_per_tok":8,"num_hidden_layers":48,"num_attention_heads":32,"num_key_value_heads":4,"head_dim":128,"vocab_size":151936})",
                               "moe");
  ASSERT_TRUE(moe);
  EXPECT_NEAR(moe->parameters, 29.9e9, 0.5e9);
  EXPECT_NEAR(moe->active_parameters, 2.7e9, 0.3e9);
  const auto inside =
      parse_shape(R"({"quantization_config":{"quant_method":"fp8"},"text_config":{"hidden_size":64,"num_hidden_layers":2,
    "num_attention_heads":4,"vocab_size":300}})",
                  "v");
  ASSERT_TRUE(inside);
  EXPECT_EQ(inside->parameter_bytes, 1);
}

TEST(Shape, RefusesWhatItCannotKnow) {
  for (
      const char* text :
      {"", "[]", "{}", R"({"hidden_size":0})", R"({"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4})",
       R"({"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":9,"kv_lora_rank":512})",
       R"({"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":9,"num_key_value_heads":8})",
       R"({"hidden_size":999999999,"num_hidden_layers":999999999,"num_attention_heads":1,"vocab_size":999999999})",
       R"({"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":9,"quantization_config":{"quant_method":"x"}})"})
    EXPECT_FALSE(parse_shape(text, "m")) << text;
  EXPECT_NE(find_shape("no-such-model").error().message.find("smollm2"), std::string::npos);
}

}  // namespace
}  // namespace baton::deploy
