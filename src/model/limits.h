#pragma once
// Largest sizes a weight file may claim, each beside what happens beyond it: loading fails with an error that names the key or
// tensor. They bound the work and memory a hostile file can cause before its own length does; real files lie far below.
#include <cstddef>
#include <cstdint>

namespace baton::model {

constexpr uint64_t kGgufKeysMax = 4096;                 // real files: 20 to 60
constexpr uint64_t kGgufTensorsMax = 65536;             // Llama 405B: 1138
constexpr uint64_t kGgufNameBytesMax = 1024;            // a key or a tensor name; ggml itself stops at 64
constexpr uint64_t kGgufStringBytesMax = 4u << 20;      // the longest: chat templates of some 10 KiB
constexpr uint64_t kGgufArrayMax = 8u << 20;            // merges of a 256 k vocabulary: about 0.5 M
constexpr uint64_t kGgufAlignmentMax = 64u << 10;       // general.alignment; 32 everywhere
constexpr uint64_t kSafetensorsHeaderMax = 100u << 20;  // the reference reader's own limit
constexpr size_t kShardsMax = 1024;                     // files of one Hugging Face directory; Llama 405B: 191
constexpr size_t kConfigBytesMax = 4u << 20;            // config.json, generation_config.json, chat_template.jinja
constexpr size_t kTokenizerBytesMax = 128u << 20;       // tokenizer.json; Llama 3: 9 MiB, 256 k vocabularies: 34 MiB
constexpr size_t kIndexBytesMax = 64u << 20;            // model.safetensors.index.json

constexpr int32_t kLoraRankMax = 512;      // the largest --max-lora-rank
constexpr size_t kLoraPatternsMax = 2048;  // members of target_modules, rank_pattern, alpha_pattern; Llama 405B: 882 matrices

constexpr int64_t kElementsMax = int64_t{1} << 40;  // of one tensor: times the widest element it still fits 63 bits
constexpr int32_t kLayersMax = 1024;
constexpr int32_t kHiddenMax = 1 << 18;
constexpr int32_t kFfnMax = 1 << 21;
constexpr int32_t kHeadsMax = 1 << 12;
constexpr int32_t kHeadDimMax = 1024;
constexpr int32_t kVocabMax = 4 << 20;
constexpr int32_t kContextMax = 1 << 27;  // positions; angles stay exact enough in double far beyond
constexpr size_t kEosIdsMax = 64;
constexpr int32_t kExpertsMax = 1024;    // Qwen3-MoE and gpt-oss: 128
constexpr int32_t kExpertsUsedMax = 32;  // of a token; real models: 4 to 8

constexpr int64_t kSliceTokens = 256;        // rows that pass the layers together: activations of 256 (576 wide: 0.6 MB a phase) stay
                                             // in L2 while the weights pass once
constexpr int32_t kRanksMax = 64;            // of tensor parallelism: refused at start beyond it
constexpr int64_t kRankPatienceMs = 60'000;  // ranks meet many times a step; one that is so late is taken for dead

}  // namespace baton::model
