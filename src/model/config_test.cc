#include <gtest/gtest.h>

#include <cmath>

#include "model/weight_data.h"

namespace baton::model {
namespace {

using ::testing::HasSubstr;

// A small valid config.json with more fields, which win over the first ones: find() returns the last.
std::string config_json(std::string_view more) {
  return cat(R"({"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,)",
             R"("num_key_value_heads":2,"vocab_size":300,"max_position_embeddings":2048,"rms_norm_eps":1e-5)",
             more.empty() ? "" : ",", more, "}");
}

ModelConfig parse(std::string_view more, std::string_view generation = "") {
  const auto out = parse_hf_config(config_json(more), generation);
  EXPECT_TRUE(out) << more << ": " << out.error().message;
  return out ? out->config : ModelConfig{};
}

TEST(HfConfig, Defaults) {
  const ModelConfig c = parse("");
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(std::tie(c.layers, c.hidden, c.heads, c.kv_heads, c.head_dim, c.ffn, c.vocab, c.context),
            std::make_tuple(2, 64, 4, 2, 16, 128, 300, 2048));
  EXPECT_EQ(c.rope_theta, 10000);
  EXPECT_EQ(c.rope_scaling, RopeScaling::kNone);
  EXPECT_EQ(c.sliding_window, 0);
  EXPECT_TRUE(c.eos_ids.empty());
  EXPECT_FALSE(c.gen_temperature);
  EXPECT_FALSE(parse_hf_config(config_json(""), "")->tied);
  EXPECT_EQ(parse_hf_config(config_json(R"("tie_word_embeddings":false)"), "")->tied, false);
  EXPECT_EQ(parse(R"("num_key_value_heads":null)").kv_heads, 4);
  EXPECT_EQ(parse(R"("head_dim":32)").head_dim, 32);
}

TEST(HfConfig, Families) {
  EXPECT_EQ(parse(R"("model_type":"mistral")").family, "llama");
  EXPECT_EQ(parse(R"("model_type":"mistral","sliding_window":4096)").sliding_window, 4096);
  EXPECT_EQ(parse(R"("model_type":"mistral","sliding_window":null)").sliding_window, 0);
  const std::string qwen = R"("model_type":"qwen2","sliding_window":1024,)";
  EXPECT_EQ(parse(qwen + R"("use_sliding_window":false)").sliding_window, 0);
  EXPECT_EQ(parse(qwen + R"("use_sliding_window":true,"max_window_layers":2)").sliding_window, 0);
  EXPECT_EQ(parse(qwen + R"("use_sliding_window":true,"max_window_layers":0)").sliding_window, 1024);
  EXPECT_EQ(parse(qwen + R"("layer_types":["full_attention","full_attention"])").sliding_window, 0);
  EXPECT_EQ(parse(qwen + R"("layer_types":["sliding_attention","sliding_attention"])").sliding_window, 1024);
  const ModelConfig mixed = parse(qwen + R"("use_sliding_window":true,"max_window_layers":1)");
  EXPECT_EQ(mixed.layer_kinds, (std::vector<LayerKind>{{}, {.window = 1024}}));
  EXPECT_EQ(parse(R"("sliding_window":8,"layer_types":["full_attention","sliding_attention"])").layer_kinds,
            (std::vector<LayerKind>{{}, {.window = 8}}));
}

// The shapes that published models state, without the keys that do not matter here.
TEST(HfConfig, PublishedModels) {
  ModelConfig c = parse(
      R"("model_type":"qwen3","head_dim":128,"num_attention_heads":16,"num_key_value_heads":8,"rope_theta":1000000,)"
      R"("rms_norm_eps":1e-06,"sliding_window":null,"use_sliding_window":false,"max_window_layers":28,"attention_bias":false)");
  EXPECT_EQ(std::tie(c.family, c.qk_norm, c.head_dim, c.sliding_window), std::make_tuple("qwen3", true, 128, 0));
  c = parse(
      R"("model_type":"gemma3_text","num_hidden_layers":7,"head_dim":256,"query_pre_attn_scalar":256,"rope_theta":1000000,)"
      R"("rope_local_base_freq":10000,"rope_scaling":null,"sliding_window":512,"sliding_window_pattern":6,)"
      R"("hidden_activation":"gelu_pytorch_tanh","attn_logit_softcapping":null,"final_logit_softcapping":null,"hidden_size":1024)");
  EXPECT_EQ(c.layer_kind(4), (LayerKind{512, LayerRope::kLocal}));
  EXPECT_EQ(c.layer_kind(5), LayerKind{});
  EXPECT_EQ(std::tie(c.embed_scale, c.attention_scale, c.norm_offset, c.attention_soft_cap, c.rope_local_theta),
            std::make_tuple(32.f, 1 / 16.f, 1.f, 0.f, 10000.0));
  c = parse(
      R"("model_type":"gemma3_text","rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":1e6},)"
      R"("sliding_attention":{"rope_type":"default","rope_theta":5000}},"layer_types":["sliding_attention","full_attention"])");
  EXPECT_EQ(std::tie(c.rope_theta, c.rope_factor, c.rope_local_theta), std::make_tuple(1e6, 8.0, 5000.0));
  EXPECT_EQ(c.layer_kinds, (std::vector<LayerKind>{{4096, LayerRope::kLocal}, {}}));
  // The models that see state little of their text model.
  const auto seeing = parse_hf_config(
      R"({"architectures":["Gemma3ForConditionalGeneration"],"boi_token_index":255999,"eos_token_id":[1,106],"model_type":"gemma3",)"
      R"("text_config":{"hidden_size":2560,"intermediate_size":10240,"model_type":"gemma3_text","num_hidden_layers":34,)"
      R"("rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024},"vision_config":{"hidden_size":1152}})",
      "");
  ASSERT_TRUE(seeing) << seeing.error().message;
  c = seeing->config;
  EXPECT_EQ(std::tie(c.hidden, c.heads, c.kv_heads, c.head_dim, c.vocab, c.context),
            std::make_tuple(2560, 8, 4, 256, 262208, 131072));
  EXPECT_EQ(std::tie(c.rope_theta, c.rope_factor, c.rope_local_theta, c.eos_ids),
            std::make_tuple(1e6, 8.0, 10000.0, std::vector<int32_t>{1, 106}));
  c = parse(R"("model_type":"gemma2","hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh","head_dim":256,)"
            R"("attn_logit_softcapping":50.0,"final_logit_softcapping":30.0,"query_pre_attn_scalar":144,"sliding_window":4096)");
  EXPECT_EQ(std::tie(c.attention_soft_cap, c.logit_soft_cap), std::make_tuple(50.f, 30.f));
  EXPECT_FLOAT_EQ(c.attention_scale, 1 / 12.f);
  EXPECT_EQ(c.layer_kinds, (std::vector<LayerKind>{{.window = 4096}, {}}));
  c = parse(R"("model_type":"smollm3","no_rope_layers":[1,0],"use_sliding_window":false,"sliding_window":null)");
  EXPECT_EQ(c.layer_kinds, (std::vector<LayerKind>{{}, {.rope = LayerRope::kNone}}));
  c = parse(
      R"("model_type":"qwen3_moe","num_experts":128,"num_experts_per_tok":8,"moe_intermediate_size":768,"norm_topk_prob":true,)"
      R"("decoder_sparse_step":1,"mlp_only_layers":[])");
  EXPECT_EQ(std::tie(c.experts, c.experts_used, c.ffn, c.expert_norm), std::make_tuple(128, 8, 768, true));
  EXPECT_TRUE(c.sparse(0) && c.sparse(1));
}

// Which layers of a Qwen3-MoE have experts, as transformers chooses them; the others are as wide as intermediate_size says.
TEST(HfConfig, LayersWithoutExperts) {
  const auto layers = [](const ModelConfig& c) {
    std::string out;
    for (int i = 0; i < c.layers; i++) out += c.sparse(i) ? 'x' : '.';
    return out;
  };
  constexpr std::string_view kMoe = R"("model_type":"qwen3_moe","num_hidden_layers":6,"num_experts":8,"moe_intermediate_size":96)";
  ModelConfig c = parse(cat(kMoe, R"(,"decoder_sparse_step":2)"));
  EXPECT_EQ(layers(c), ".x.x.x");
  EXPECT_EQ(std::tie(c.experts, c.ffn, c.dense_ffn), std::make_tuple(8, 96, 128));
  EXPECT_EQ(c.ffn_of(0), 128);
  EXPECT_EQ(c.ffn_of(1), 96);
  c = parse(cat(kMoe, R"(,"decoder_sparse_step":2,"mlp_only_layers":[3,5,5,99,-1])"));
  EXPECT_EQ(layers(c), ".x....");
  c = parse(cat(kMoe, R"(,"mlp_only_layers":[0])"));
  EXPECT_EQ(layers(c), ".xxxxx");
  c = parse(cat(kMoe, R"(,"mlp_only_layers":null)"));
  EXPECT_EQ(layers(c), "xxxxxx");
  EXPECT_TRUE(c.dense_layers.empty());
  for (const char* none : {R"(,"decoder_sparse_step":7)", R"(,"mlp_only_layers":[0,1,2,3,4,5])", R"(,"num_experts":0)"}) {
    c = parse(cat(kMoe, none));
    EXPECT_EQ(layers(c), "......") << none;
    EXPECT_EQ(std::tie(c.experts, c.ffn), std::make_tuple(0, 128)) << none;
  }
}

TEST(HfConfig, GptOss) {
  const auto fields = [](const ModelConfig& c) {
    return std::tie(c.experts, c.experts_used, c.expert_bias, c.attention_sinks, c.head_dim, c.vocab, c.rope_theta, c.rope_factor,
                    c.rope_original_context, c.yarn_truncate);
  };
  ModelConfig c = parse(
      R"("model_type":"gpt_oss","head_dim":64,"num_local_experts":32,"num_experts_per_tok":4,"experts_per_token":4,"sliding_window":128,)"
      R"("layer_types":["sliding_attention","full_attention"],"swiglu_limit":7.0,"attention_bias":true,"rope_theta":150000,)"
      R"("rope_scaling":{"beta_fast":32.0,"beta_slow":1.0,"factor":32.0,"original_max_position_embeddings":4096,"rope_type":"yarn",)"
      R"("truncate":false},"quantization_config":{"modules_to_not_convert":["lm_head"],"quant_method":"mxfp4"})");
  EXPECT_EQ(c.family, "gpt-oss");
  EXPECT_EQ(c.activation, tensor::GatedUnit::kSwigluClamped);
  EXPECT_EQ(fields(c), std::make_tuple(32, 4, true, true, 64, 300, 150000.0, 32.0, 4096.0, false));
  EXPECT_EQ(c.layer_kinds, (std::vector<LayerKind>{{.window = 128}, {}}));
  c = parse(R"("model_type":"gpt_oss")");  // all else is transformers' defaults
  EXPECT_EQ(fields(c), std::make_tuple(128, 4, true, true, 64, 300, 150000.0, 32.0, 4096.0, false));
  EXPECT_EQ(c.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(c.layer_kinds, (std::vector<LayerKind>{{.window = 128}, {}}));
}

TEST(HfConfig, PhiAndItsLongRope) {
  ModelConfig c = parse(
      R"("model_type":"phi3","hidden_size":256,"partial_rotary_factor":0.75,"sliding_window":262144,"max_position_embeddings":131072,)"
      R"("original_max_position_embeddings":4096,"rope_scaling":{"type":"longrope","short_factor":)"
      R"([1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"long_factor":[1,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2]})");
  EXPECT_EQ(std::tie(c.rope_scaling, c.rope_dims, c.rope_factor, c.rope_original_context, c.sliding_window),
            std::make_tuple(RopeScaling::kLongRope, 48, 32.0, 4096.0, 262144));
  EXPECT_EQ(c.rope_long[1], 2);
  c = parse(
      R"("model_type":"phi3","rope_scaling":{"type":"su","short_factor":[1,1,1,1,1,1,1,1],"long_factor":[1,2,2,2,2,2,2,2]})");
  EXPECT_EQ(c.rope_scaling, RopeScaling::kLongRope);
}

// They say of themselves what they are: Qwen2.5 and Llama 3.1 with other weights.
TEST(HfConfig, DeepSeekDistillationsAreTheirBaseFamilies) {
  ModelConfig c = parse(
      R"("architectures":["Qwen2ForCausalLM"],"model_type":"qwen2","attention_dropout":0.0,"hidden_act":"silu","rope_theta":10000,)"
      R"("max_window_layers":21,"sliding_window":4096,"use_mrope":false,"use_sliding_window":false,"tie_word_embeddings":false)");
  EXPECT_EQ(std::tie(c.family, c.sliding_window, c.rope_theta), std::make_tuple("qwen2", 0, 10000.0));
  c = parse(
      R"("architectures":["LlamaForCausalLM"],"model_type":"llama","attention_bias":false,"mlp_bias":false,"pretraining_tp":1,)"
      R"("rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192,)"
      R"("rope_type":"llama3"},"rope_theta":500000.0)");
  EXPECT_EQ(std::tie(c.family, c.rope_scaling, c.rope_factor), std::make_tuple("llama", RopeScaling::kLlama3, 8.0));
}

TEST(HfConfig, RopeScalings) {
  auto c = parse(
      R"("rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
      R"("original_max_position_embeddings":8192})");
  EXPECT_EQ(c.rope_scaling, RopeScaling::kLlama3);
  EXPECT_EQ(std::tie(c.rope_theta, c.rope_factor, c.rope_low_freq_factor, c.rope_high_freq_factor, c.rope_original_context),
            std::make_tuple(500000.0, 8.0, 1.0, 4.0, 8192.0));
  c = parse(R"("rope_scaling":{"type":"linear","factor":2})");  // the old spelling of rope_type
  EXPECT_EQ(c.rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(c.rope_factor, 2);
  c = parse(
      R"("rope_parameters":{"rope_type":"yarn","rope_theta":1e6,"factor":4,"original_max_position_embeddings":512,"beta_fast":16})");
  EXPECT_EQ(c.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(std::tie(c.rope_theta, c.rope_original_context, c.yarn_beta_fast, c.yarn_beta_slow, c.rope_attention_factor),
            std::make_tuple(1e6, 512.0, 16.0, 1.0, 0.0));
  c = parse(R"("rope_scaling":{"type":"yarn","factor":4,"mscale":1.0,"mscale_all_dim":0.5})");
  EXPECT_NEAR(c.rope_attention_factor, (0.1 * std::log(4) + 1) / (0.05 * std::log(4) + 1), 1e-12);
  EXPECT_EQ(c.rope_original_context, 2048);
  EXPECT_EQ(parse(R"("rope_scaling":null)").rope_scaling, RopeScaling::kNone);
  EXPECT_EQ(parse(R"("rope_parameters":{"rope_type":"default","rope_theta":7777})").rope_theta, 7777);
}

TEST(HfConfig, GenerationConfigWins) {
  const ModelConfig c =
      parse(R"("eos_token_id":5)", R"({"eos_token_id":[7,8,7],"temperature":0.6,"top_p":0.9,"top_k":20,"repetition_penalty":1.1,)"
                                   R"("max_new_tokens":50,"do_sample":true})");
  EXPECT_EQ(c.eos_ids, (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(c.gen_temperature, 0.6);
  EXPECT_EQ(c.gen_top_p, 0.9);
  EXPECT_EQ(c.gen_top_k, 20);
  EXPECT_EQ(c.gen_repetition_penalty, 1.1);
  EXPECT_EQ(c.gen_max_new_tokens, 50);
  EXPECT_EQ(parse(R"("eos_token_id":5)", "{}").eos_ids, (std::vector<int32_t>{5}));
  EXPECT_EQ(parse(R"("eos_token_id":5)", R"({"eos_token_id":null})").eos_ids, (std::vector<int32_t>{5}));
}

TEST(HfConfig, RefusesWhatItDoesNotImplement) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {R"("model_type":"mamba")", "model_type \"mamba\" is not supported; supported: llama, mistral, qwen2"},
      {R"("model_type":"gemma2","hidden_activation":"silu")", "\"hidden_activation\" is \"silu\"; only gelu_pytorch_tanh"},
      {R"("model_type":"gemma3_text","use_bidirectional_attention":true)", "\"use_bidirectional_attention\" must be false"},
      {R"("model_type":"gemma3_text","sliding_window_pattern":0)", "\"sliding_window_pattern\" must be at least 1"},
      {R"("model_type":"smollm3","no_rope_layers":[1])", "\"no_rope_layers\" must have one entry a layer"},
      {R"("model_type":"qwen3_moe","mlp_only_layers":["0"])", "\"mlp_only_layers\" must be a list of layers"},
      {R"("model_type":"qwen3_moe","mlp_only_layers":0)", "\"mlp_only_layers\" must be a list of layers"},
      {R"("model_type":"qwen3_moe","decoder_sparse_step":0)", "\"decoder_sparse_step\" must be at least 1"},
      {R"("model_type":"gpt_oss","swiglu_limit":8.0)", "\"swiglu_limit\" must be 7 here"},
      {R"("model_type":"gpt_oss","num_local_experts":0)", "\"num_local_experts\" must be at least 1"},
      {R"("model_type":"qwen3_moe","num_experts_per_tok":0)", "the number of experts used is 0"},
      {R"("model_type":"qwen3_moe","num_experts":4)", "the number of experts used is 8"},
      {R"("model_type":"phi3","rope_scaling":{"type":"longrope","short_factor":[1],"long_factor":[1]})",
       "short factors has 1 entries"},
      {R"("model_type":"phi3","rope_scaling":{"type":"longrope","short_factor":["a"],"long_factor":[1]})",
       "\"short_factor\" must be an array of numbers"},
      {R"("model_type":7)", "\"model_type\" must be a string"},
      {R"("hidden_size":null)", "\"hidden_size\" is missing"},
      {R"("hidden_size":"64")", "\"hidden_size\" must be a 32-bit integer"},
      {R"("hidden_size":1e300)", "\"hidden_size\" must be a 32-bit integer"},
      {R"("num_hidden_layers":-1)", "the number of layers is -1"},
      {R"("num_attention_heads":0)", "number of attention heads is 0"},
      {R"("num_key_value_heads":3)", "cannot share 3 key/value heads"},
      {R"("head_dim":15)", "is odd"},
      {R"("vocab_size":0)", "the vocabulary is 0"},
      {R"("rms_norm_eps":7)", "RMS norm epsilon is 7"},
      {R"("hidden_act":"gelu")", "\"hidden_act\" is \"gelu\"; only silu"},
      {R"("quantization_config":{"quant_method":"bitsandbytes"})", "quant_method \"bitsandbytes\" is not supported"},
      {R"("rope_scaling":{"type":"dynamic","factor":2})",
       "\"rope_type\" is \"dynamic\"; default, linear, llama3, yarn and longrope"},
      {R"("rope_scaling":{"type":"linear"})", "rope_scaling: \"factor\" is missing"},
      {R"("rope_scaling":{"type":"linear","factor":0})", "rope scaling factor is 0"},
      {R"("rope_scaling":{"type":"yarn","factor":2,"truncate":1})", "\"truncate\" must be true or false"},
      {R"("rope_scaling":{"rope_type":"llama3","factor":2,"low_freq_factor":4,"high_freq_factor":4})",
       "high_freq_factor must be above"},
      {R"("rope_scaling":[])", "rope_scaling must be an object"},
      {R"("rope_parameters":{"full_attention":{}})", "must hold full_attention and sliding_attention"},
      {R"("rope_parameters":{"full_attention":{},"sliding_attention":{"rope_type":"yarn"}})",
       "sliding layers turn by default rules"},
      {R"("partial_rotary_factor":0.5)", "\"partial_rotary_factor\" must be 1"},
      {R"("layer_types":["full_attention"])", "\"layer_types\" must have one entry a layer"},
      {R"("layer_types":["full_attention","linear_attention"])", "\"layer_types\" has \"linear_attention\""},
      {R"("eos_token_id":300)", "an end token id is 300"},
      {R"("eos_token_id":"x")", "\"eos_token_id\" must be a token id or a list"},
      {R"("tie_word_embeddings":"yes")", "\"tie_word_embeddings\" must be true or false"},
  };
  for (const auto& [more, expected] : cases) {
    const auto out = parse_hf_config(config_json(more), "");
    ASSERT_FALSE(out) << more;
    EXPECT_THAT(out.error().message, HasSubstr(expected)) << more;
    EXPECT_THAT(out.error().message, HasSubstr("config.json")) << more;
  }
  EXPECT_FALSE(parse_hf_config("[]", ""));
  EXPECT_FALSE(parse_hf_config(config_json(""), "[]"));
  EXPECT_FALSE(parse_hf_config(config_json(""), R"({"top_k":"many"})"));
}

}  // namespace
}  // namespace baton::model
