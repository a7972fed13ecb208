#include "engine/config.h"

#include <gtest/gtest.h>

namespace baton::engine {
namespace {

struct Parsed {
  EngineConfig config;
  std::vector<std::string> warnings;
  std::string error;
};

Parsed parse(const std::vector<std::string>& args) {
  Parsed out;
  Options options = engine_options(out.config);
  auto parsed = options.parse(args);
  if (!parsed) return out.error = parsed.error().message, std::move(out);
  out.warnings = parsed->warnings;
  if (auto ok = finish_config(out.config, parsed->positional); !ok) out.error = ok.error().message;
  return out;
}

TEST(EngineConfig, ReadsAnLlmDCommandLine) {
  const Parsed p = parse({"serve",
                          "meta-llama/Llama-3.2-3B-Instruct",
                          "--host",
                          "0.0.0.0",
                          "--port=8200",
                          "--served-model-name",
                          "a",
                          "b",
                          "--max-model-len",
                          "16k",
                          "--max_num_seqs=8",
                          "--block-size",
                          "128",
                          "--no-enable-prefix-caching",
                          "--disable-log-requests",
                          "--disable-uvicorn-access-log",
                          "--enforce-eager",
                          "--scheduling-policy",
                          "priority",
                          "--kv-transfer-config",
                          R"({"kv_connector":"NixlConnector", "kv_role":"kv_both"})"});
  ASSERT_EQ(p.error, "");
  EXPECT_TRUE(p.warnings.empty()) << p.warnings[0];
  EXPECT_EQ(p.config.model, "meta-llama/Llama-3.2-3B-Instruct");
  EXPECT_EQ(p.config.served_model_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(p.config.port, 8200);
  EXPECT_EQ(p.config.max_model_len, 16000);
  EXPECT_EQ(p.config.max_num_seqs, 8);
  EXPECT_FALSE(p.config.prefix_caching);
  EXPECT_TRUE(p.config.kv_transfer);
  EXPECT_EQ(p.config.kv_port, 5600);  // vLLM's side channel
  EXPECT_EQ(p.config.kv_load_failure_policy, "recompute");
}

TEST(EngineConfig, Defaults) {
  const Parsed p = parse({"serve", "m.gguf"});
  EXPECT_EQ(p.error, "");
  EXPECT_EQ(p.config.served_model_names, std::vector<std::string>{"m.gguf"});
  EXPECT_FALSE(p.config.kv_transfer);
  EXPECT_EQ(p.config.port, 8000);
  EXPECT_TRUE(p.config.prefix_caching);
}

TEST(EngineConfig, UnknownVllmFlagsWarnByName) {
  const Parsed p = parse({"serve", "m", "--frobnication-size", "2", "--enable-frobnication"});
  EXPECT_EQ(p.error, "");
  ASSERT_EQ(p.warnings.size(), 2u);
  EXPECT_NE(p.warnings[0].find("--frobnication-size"), std::string::npos);
  EXPECT_NE(p.warnings[1].find("--enable-frobnication"), std::string::npos);
}

// Every flag that vLLM has means something here, is noted as changing nothing, or is refused with the reason.
TEST(EngineConfig, VllmFlagsThatChangeNothingSaySo) {
  const Parsed p = parse({"serve", "m", "-pp", "2", "--gpu_memory_utilization=0.9", "--cudagraph-capture-sizes", "1", "2", "4", "--enforce-eager", "--logprobs-mode", "raw_logprobs",
                          "--no-enable-log-deltas", "--shutdown-timeout", "7", "--limit-mm-per-prompt", R"({"image":0})", "--tokenizer", "m"});
  EXPECT_EQ(p.error, "");
  EXPECT_TRUE(p.warnings.empty());
  EXPECT_EQ(p.config.drain_s, 7);
  std::string notes;
  for (const std::string& note : p.config.flag_notes) notes += note + "\n";
  for (const char* flag : {"--pipeline-parallel-size", "--gpu-memory-utilization", "--cudagraph-capture-sizes", "--enforce-eager", "--limit-mm-per-prompt"})
    EXPECT_NE(notes.find(cat(flag, " changes nothing here: ")), std::string::npos) << flag;
  EXPECT_EQ(p.config.flag_notes.size(), 5u) << notes;
}

TEST(EngineConfig, VllmFlagsThatWouldChangeAnswersAreRefused) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--logprobs-mode", "processed_logits"}, "--logprobs-mode is not supported: "},
      {{"--middleware", "my.Auth"}, "--middleware is not supported: it names Python code"},
      {{"--rope-scaling", "{}"}, "--rope-scaling is not supported"},
      {{"--nnodes", "2"}, "one machine"},
      {{"--uds", "/s"}, "--uds is not supported"},
      {{"--tokenizer", "other"}, "--tokenizer: the model's own"},
      {{"--default-chat-template-kwargs", "[]"}, "--default-chat-template-kwargs wants a JSON object"},
      {{"--override-generation-config", R"({"temperature":9})"}, "--override-generation-config: temperature must be in [0, 2], got 9."},
      {{"--override-generation-config", R"({"top_k":-2})"}, "--override-generation-config: top_k must be 0 (disable), or at least 1, got -2."},
      {{"--override-generation-config", R"({"presence_penalty":-3})"}, "presence_penalty must be in [-2, 2], got -3."},
      {{"--override-generation-config", R"({"top_p":"x"})"}, "--override-generation-config: top_p: Input should be a valid number"},
      {{"--override-generation-config", R"({"max_new_tokens":0})"}, "max_new_tokens must be at least 1"},
      {{"--reasoning-config", R"({"end":"x"})"}, "--reasoning-config has an unknown key: end"},
      {{"--reasoning-config", R"({"reasoning_end_str":1})"}, "--reasoning-config wants a text as reasoning_end_str"},
      {{"--reasoning-config", R"({"reasoning_parser":"x"})"}, "--reasoning-config has an unknown reasoning_parser: x"},
      {{"--reasoning-config", "[]"}, "--reasoning-config wants a JSON object"},
      {{"--allowed-origins", "[1]"}, "--allowed-origins wants a JSON list of texts"},
  };
  for (const auto& [more, message] : cases) {
    std::vector<std::string> args = {"serve", "m"};
    args.insert(args.end(), more.begin(), more.end());
    EXPECT_NE(parse(args).error.find(message), std::string::npos) << message << ": " << parse(args).error;
  }
}

TEST(EngineConfig, DefaultsOfEveryRequest) {
  const Parsed p = parse({"serve", "m", "--default-chat-template-kwargs", R"({"enable_thinking":false})", "--override-generation-config",
                          R"({"temperature":0.5,"max_new_tokens":64,"do_sample":true})", "--allowed-origins", R"(["http://a","http://b"])", "--allowed-methods", "GET"});
  ASSERT_EQ(p.error, "");
  EXPECT_EQ(p.config.template_kwargs.find("enable_thinking")->as_bool(), false);
  EXPECT_EQ(p.config.generation.temperature, 0.5);
  EXPECT_EQ(p.config.generation.max_new_tokens, 64);
  EXPECT_EQ(p.config.flag_notes.size(), 1u) << "do_sample";
  EXPECT_EQ(p.config.allowed_origins, (std::vector<std::string>{"http://a", "http://b"}));
  EXPECT_EQ(p.config.allowed_methods, std::vector<std::string>{"GET"});
}

TEST(EngineConfig, LoraModulesInBothSpellings) {
  const Parsed p = parse({"serve", "m", "--enable-lora", "--lora-modules", "a=/x=1", R"({"name":"b","path":"/y","base_model_name":"m"})", "--max-loras", "2",
                          "--max-lora-rank", "64", "--max-cpu-loras", "8"});
  EXPECT_EQ(p.error, "");
  ASSERT_EQ(p.config.loras.size(), 2u);
  EXPECT_EQ(p.config.loras[0].name, "a");
  EXPECT_EQ(p.config.loras[0].path, "/x=1");
  EXPECT_EQ(p.config.loras[1].name, "b");
  EXPECT_EQ(p.config.loras[1].path, "/y");
  EXPECT_EQ(p.config.loras[1].base_model, "m");
  EXPECT_EQ(p.config.max_lora_rank, 64);
}

TEST(EngineConfig, TensorParallelSizeInBothSpellings) {
  EXPECT_EQ(parse({"serve", "m"}).config.tensor_parallel_size, 1);
  EXPECT_EQ(parse({"serve", "m", "--tensor-parallel-size", "2"}).config.tensor_parallel_size, 2);
  EXPECT_EQ(parse({"serve", "m", "-tp", "3"}).config.tensor_parallel_size, 3);
  EXPECT_NE(parse({"serve", "m", "-tp", "0"}).error, "");
}

TEST(EngineConfig, WrongValuesAreErrors) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"serve"}, "no model given"},
      {{"serve", "a", "b"}, "unexpected argument 'b'"},
      {{"serve", "m", "--port", "70000"}, "--port"},
      {{"serve", "m", "--max-num-seqs", "many"}, "--max-num-seqs"},
      {{"serve", "m", "--block-size", "24"}, "power of two"},
      {{"serve", "m", "--scheduling-policy", "random"}, "fcfs"},
      {{"serve", "m", "--kv-transport", "rdma"}, "--kv-transport"},
      {{"serve", "m", "--kv-transfer-config", "{"}, "JSON object"},
      {{"serve", "m", "--kv-transfer-config", R"({"kv_role":"both"})"}, "kv_role"},
      {{"serve", "m", "--kv-transfer-config", R"({"kv_load_failure_policy":"retry"})"}, "kv_load_failure_policy"},
      {{"serve", "m", "--kv-transfer-config", R"({"kv_connector_extra_config":{"kv_lease_duration":0}})"}, "kv_lease_duration"},
      {{"serve", "m", "--dtype", "int3"}, "--dtype"},
      {{"serve", "m", "--kv-cache-dtype", "nvfp4"}, "nvfp4"},
      {{"serve", "m", "--kv-cache-dtype", "fp8_inc"}, "int8_per_token_head"},
      {{"serve", "m", "--lora-modules", "a=/x"}, "--lora-modules wants --enable-lora"},
      {{"serve", "m", "--enable-lora", "--lora-modules", "a=/x", "a=/y"}, "names a twice"},
      {{"serve", "m", "--enable-lora", "--lora-modules", "just-a-path"}, "neither name=path nor"},
      {{"serve", "m", "--enable-lora", "--lora-modules", R"({"name":"a","path":"/x","rank":8})"}, "rank is not known"},
      {{"serve", "m", "--enable-lora", "--lora-modules", "=/x"}, "lacks a name"},
      {{"serve", "m", "--enable-lora", "--max-lora-rank", "24"}, "--max-lora-rank wants"},
      {{"serve", "m", "--enable-lora", "--max-loras", "0"}, "--max-loras"},
      {{"serve", "m", "--enable-lora", "--max-loras", "4", "--max-cpu-loras", "2"}, "max_cpu_loras (2) must be >= max_loras (4)"},
  };
  for (const auto& [args, message] : cases)
    EXPECT_NE(parse(args).error.find(message), std::string::npos) << message << ": " << parse(args).error;
}

TEST(EngineConfig, TrustInParams) {
  EXPECT_EQ(parse({"serve", "m"}).config.kv_params_trust, "any");
  Parsed p = parse({"serve", "m", "--kv-params-trust", "token", "--kv-params-token", "t"});
  EXPECT_EQ(p.config.kv_params_token, "t");
  EXPECT_NE(parse({"serve", "m", "--kv-params-trust", "token"}).error.find("--kv-params-token"), std::string::npos);
}

TEST(EngineConfig, TransferSettings) {
  Parsed p = parse({"serve", "m", "--kv-peers", "10.0.0.1:5600", "10.0.0.2:5600"});
  EXPECT_TRUE(p.config.kv_transfer);
  EXPECT_EQ(p.config.kv_peers.size(), 2u);
  p = parse({"serve", "m", "--kv-transfer-port", "0"});
  EXPECT_TRUE(p.config.kv_transfer);
  EXPECT_EQ(p.config.kv_port, 0);
  p = parse({"serve", "m", "--kv-transfer-config",
             R"({"kv_load_failure_policy":"fail","engine_id":"e1","kv_connector_extra_config":{"kv_lease_duration":7}})"});
  EXPECT_EQ(p.config.kv_load_failure_policy, "fail");
  EXPECT_EQ(p.config.kv_engine_id, "e1");
  EXPECT_EQ(p.config.kv_lease_s, 7);
  p = parse(
      {"serve", "m", "--kv-load-failure-policy", "recompute", "--kv-transfer-config", R"({"kv_load_failure_policy":"fail"})"});
  EXPECT_EQ(p.config.kv_load_failure_policy, "recompute");  // the flag wins
  p = parse({"serve", "m", "--kv-interface", "eth1", "--kv-transport", "ucx"});
  EXPECT_EQ(p.config.kv_interface, "eth1");
  EXPECT_EQ(p.config.kv_host, "") << "the interface's address, found when the engine starts";
}

// Every key that vLLM has is taken, and one that sets nothing of ours says what it comes to.
TEST(EngineConfig, TransferConfigOfVllm) {
  Parsed p =
      parse({"serve", "m", "--kv-transfer-config",
             R"({"kv_connector":"NixlConnector","kv_role":"kv_both","kv_buffer_device":"cpu","kv_load_failure_policy":"fail",
                        "enable_permute_local_kv":true,"kv_connector_extra_config":{"backends":["UCX"],"num_threads":4,
                        "kv_lease_duration":9,"decoder_kv_blocks_ttl":480,"bidirectional_kv_xfer":false,
                        "kv_recompute_threshold":64,"push_registration_timeout":480,"engine_ttl":3600,
                        "enforce_handshake_compat":true,"enable_cross_layers_blocks":false}})"});
  EXPECT_EQ(p.error, "");
  EXPECT_EQ(p.config.kv_lease_s, 9);
  EXPECT_EQ(p.config.kv_load_failure_policy, "fail");
  for (const auto* key : {"kv_role", "kv_buffer_device", "num_threads", "decoder_kv_blocks_ttl", "engine_ttl", "backends"}) {
    auto said = [&](const std::string& note) { return note.find(cat(key, ": ")) != note.npos; };
    EXPECT_EQ(std::count_if(p.config.kv_notes.begin(), p.config.kv_notes.end(), said), 1) << key;
  }
  for (const auto& note : p.config.kv_notes) EXPECT_EQ(note.find("not known"), note.npos) << note;
  p = parse(
      {"serve", "m", "--kv-transfer-config", R"({"kv_conector":"x","kv_connector_extra_config":{"backends":["LIBFABRIC"]}})"});
  EXPECT_EQ(p.error, "");
  EXPECT_NE(p.config.kv_notes.at(0).find("kv_conector: not known"), std::string::npos);
  EXPECT_NE(p.config.kv_notes.at(1).find("only UCX"), std::string::npos);
  for (const auto* bad : {R"({"kv_buffer_device":"floppy"})", R"({"kv_connector_extra_config":[]})", R"({"kv_role":""})",
                          R"({"kv_connector_extra_config":{"backends":"UCX"}})"})
    EXPECT_NE(parse({"serve", "m", "--kv-transfer-config", bad}).error, "") << bad;
}

TEST(EngineConfig, ParsersAreNamed) {
  const Parsed p = parse({"serve", "m", "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser=qwen3"});
  EXPECT_EQ(p.error, "");
  EXPECT_TRUE(p.warnings.empty());
  EXPECT_TRUE(p.config.auto_tool_choice);
  EXPECT_EQ(p.config.tool_call_parser, "hermes");
  EXPECT_EQ(parse({"serve", "m", "--enable-auto-tool-choice"}).error, "--enable-auto-tool-choice requires --tool-call-parser");
  EXPECT_EQ(parse({"serve", "m", "--tool-call-parser", "x"}).error,
            "invalid tool call parser: x (chose from { apertus, cohere_command3, cohere_command4, deepseek_v3, deepseek_v31, deepseek_v32, deepseek_v4, deepseek_v41, dots, ernie45, functiongemma, gemma4, gigachat3, glm45, glm47, granite, granite-20b-fc, granite4, hermes, hunyuan_a13b, hy_v3, hy_v4, internlm, jamba, k2_horizon, kimi_k2, kimi_k3, lfm2, ling3, llama3_json, llama4_json, llama4_pythonic, longcat, mimo, minicpm5, minimax_m2, minimax_m3, mistral, olmo3, openai, phi4_mini_json, plamo3, poolside_v1, pythonic, qwen3_coder, qwen3_json, qwen3_xml, seed_oss, step3, step3p5, xlam })");
  EXPECT_EQ(parse({"serve", "m", "--reasoning-parser", "x"}).error, "invalid reasoning parser: x (chose from { cohere_command3, cohere_command4, deepseek_r1, deepseek_v3, deepseek_v4, deepseek_v41, ernie45, gemma4, glm45, glm47, granite, granite_thinking_parser, holo2, hunyuan_a13b, hy_v3, hy_v4, k2_horizon, kimi_k2, kimi_k3, ling3, mimo, minimax_m2, minimax_m2_append_think, minimax_m3, mistral, nemotron_v3, olmo3, openai_gptoss, plamo3, poolside_v1, qwen3, seed_oss, step3, step3p5 })");
}

TEST(EngineConfig, SpeculativeConfigIsVllms) {
  const auto with = [](const std::string& json) { return parse({"serve", "m.gguf", "--speculative-config", json}); };
  const Parsed p = with(R"({"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":4,"prompt_lookup_min":2})");
  ASSERT_EQ(p.error, "");
  ASSERT_TRUE(p.config.speculation);
  EXPECT_EQ(p.config.speculation->num_speculative_tokens, 4);
  EXPECT_EQ(p.config.speculation->prompt_lookup_min, 2);
  EXPECT_EQ(p.config.speculation->prompt_lookup_max, 4);
  const auto lookups = [&](const std::string& rest) {
    const auto c = with(R"({"model":"ngram","num_speculative_tokens":1)" + rest + "}").config.speculation;
    return c ? std::pair(c->prompt_lookup_min, c->prompt_lookup_max) : std::pair(-1, -1);
  };
  EXPECT_EQ(lookups(""), std::pair(5, 5));
  EXPECT_EQ(lookups(R"(,"prompt_lookup_max":3)"), std::pair(3, 3));
  EXPECT_EQ(lookups(R"(,"prompt_lookup_min":2,"disable_by_batch_size":8)"), std::pair(2, 2));
  EXPECT_FALSE(parse({"serve", "m.gguf"}).config.speculation);

  const std::pair<const char*, const char*> wrong[] = {
      {"7", "a JSON object is wanted"},
      {R"({"num_speculative_tokens":4})", "no method is given"},
      {R"({"method":"eagle3","num_speculative_tokens":4})", R"(method "eagle3" is not supported)"},
      {R"({"model":"tiny/draft","num_speculative_tokens":4})", R"(draft models are not supported: model "tiny/draft")"},
      {R"({"method":"ngram"})", "num_speculative_tokens must be provided"},
      {R"({"method":"ngram","num_speculative_tokens":0})", "Expected num_speculative_tokens to be greater than zero (0)."},
      {R"({"method":"ngram","num_speculative_tokens":65})", "at most 64"},
      {R"({"method":"ngram","num_speculative_tokens":"x"})", "num_speculative_tokens must be a whole number"},
      {R"({"method":"ngram","num_speculative_tokens":4,"prompt_lookup_min":0})", "prompt_lookup_min=0 must be > 0"},
      {R"({"method":"ngram","num_speculative_tokens":4,"prompt_lookup_min":5,"prompt_lookup_max":3})",
       "prompt_lookup_min=5 must be <= prompt_lookup_max=3"},
      {R"({"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":33})", "at most 32"},
      {R"({"method":"ngram","num_speculative_tokens":4,"disable_by_batch_size":1})", "is > 1, but got 1"},
      {R"({"method":"ngram","num_speculative_tokens":4,"draft_tensor_parallel_size":1})", "draft_tensor_parallel_size"},
  };
  for (const auto& [json, message] : wrong) {
    const std::string error = with(json).error;
    EXPECT_NE(error.find(message), std::string::npos) << json << ": " << error;
    EXPECT_NE(error.find("--speculative-config"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace baton::engine
