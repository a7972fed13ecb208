#include "picker/metrics_scan.h"

namespace baton::picker {
namespace {

Scanned scan(std::string_view engine, std::string_view text, const route::SourceParams::Engine& custom = {}) {
  const auto scanner = MetricsScanner::make(engine, custom);
  EXPECT_TRUE(scanner);
  return scanner->scan(text);
}

TEST(MetricsScanner, ReadsWhatVllmWrites) {
  const auto got = scan("vllm", R"(# HELP vllm:num_requests_waiting Number of requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a } \" b"} 3.0
vllm:num_requests_waiting{engine="1",model_name="x"} 4
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99
vllm:num_requests_running{engine="0"} 1e+01
vllm:kv_cache_usage_perc{engine="0"} 0.25 1700000000000
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:cache_config_info{block_size="16",num_gpu_blocks="100",gpu_block_size="7"} 1.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="50"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="new, other",waiting_lora_adapters=""} 1.7e9
vllm:lora_requests_info{max_lora="2",running_lora_adapters="old",waiting_lora_adapters="w"} 1.6e9
vllm:prompt_tokens_total 5)");
  EXPECT_EQ(got.waiting, 7);
  EXPECT_EQ(got.running, 10);
  EXPECT_FLOAT_EQ(*got.kv_usage, 0.5f);
  EXPECT_FLOAT_EQ(*got.kv_usage_max, 0.75f);
  EXPECT_EQ(got.block_tokens, 16);
  EXPECT_EQ(got.blocks_total, 150) << "ranks add up";
  ASSERT_TRUE(got.lora);
  EXPECT_EQ(got.lora->max, 4) << "the latest series wins, whatever its place";
  EXPECT_EQ(got.lora->running, (std::vector<std::string>{"new", "other"}));
  EXPECT_TRUE(got.lora->waiting.empty());
}

TEST(MetricsScanner, UnusableValuesAreAbsent) {
  EXPECT_FALSE(scan("vllm", "").any());
  for (const char* bad :
       {"vllm:num_requests_waiting", "vllm:num_requests_waiting{", "vllm:num_requests_waiting NaN",
        "vllm:num_requests_waiting +Inf", "vllm:num_requests_waiting 5x", "vllm:num_requests_waiting{a=\"b} 5"}) {
    EXPECT_FALSE(scan("vllm", bad).waiting) << bad;
  }
  EXPECT_EQ(scan("vllm", "vllm:num_requests_waiting -5\r\nvllm:kv_cache_usage_perc 7").waiting, 0);
  EXPECT_EQ(scan("vllm", "vllm:num_requests_waiting 1e300").waiting, 1'000'000'000);
  EXPECT_EQ(scan("vllm", "vllm:gpu_cache_usage_perc 0.5").kv_usage, 0.5f) << "the older name";
}

TEST(MetricsScanner, KnowsOtherEngines) {
  const auto sglang = scan("sglang",
                           "sglang:num_queue_reqs 2\nsglang:num_running_reqs 3\nsglang:token_usage 0.1\n"
                           "sglang:cache_config_info{page_size=\"64\",num_pages=\"9\"} 1");
  EXPECT_EQ(sglang.waiting, 2);
  EXPECT_EQ(sglang.running, 3);
  EXPECT_EQ(sglang.block_tokens, 64);
  EXPECT_EQ(sglang.blocks_total, 9);
  const auto trt = scan("trtllm-serve",
                        "trtllm_num_requests_waiting 2\ntrtllm_num_requests_running 3\n"
                        "trtllm_kv_cache_utilization 0.1\ntrtllm_kv_cache_tokens_per_block 32\ntrtllm_kv_cache_max_blocks 7");
  EXPECT_TRUE(trt.complete());
  EXPECT_EQ(trt.block_tokens, 32);
  EXPECT_EQ(trt.blocks_total, 7);
  const auto triton = scan("triton-tensorrt-llm", R"(nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 5
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 6
nv_trt_llm_request_metrics{model="m",request_type="max",version="1"} 600
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m"} 0.25
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="m"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m"} 1000)");
  EXPECT_EQ(triton.waiting, 5);
  EXPECT_EQ(triton.running, 6);
  EXPECT_FLOAT_EQ(*triton.kv_usage, 0.25f);
  EXPECT_EQ(triton.block_tokens, 64);
  EXPECT_EQ(triton.blocks_total, 1000);
  EXPECT_EQ(scan("no such engine", "vllm:num_requests_waiting 1").waiting, 1);
}

TEST(MetricsScanner, TakesCustomNamesWithLabelFilters) {
  route::SourceParams::Engine custom;
  custom.waiting = R"(my_queue{state="waiting",tier=gold})";
  const auto got = scan("vllm",
                        "my_queue{state=\"running\",tier=\"gold\"} 9\nmy_queue{tier=\"gold\",state=\"waiting\"} 4\n"
                        "my_queue{tier=\"x,state=waiting\"} 100\nvllm:num_requests_waiting 7\nvllm:num_requests_running 1",
                        custom);
  EXPECT_EQ(got.waiting, 4);
  EXPECT_EQ(got.running, 1) << "what is not replaced stays";
  for (const char* bad : {"{a=b}", "name{a}", "name{a=b", "a b", "n\"ame"}) {
    custom.waiting = bad;
    EXPECT_FALSE(MetricsScanner::make("vllm", custom)) << bad;
  }
}

}  // namespace
}  // namespace baton::picker
