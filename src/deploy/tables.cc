#include "deploy/tables.h"

#include <algorithm>

namespace baton::deploy {
namespace {

// name, title, GB, TFLOP/s, GB/s, link GB/s, in a node, GB of KV
constexpr Device kDevices[] = {
    {"h200", "NVIDIA H200", 141, 989, 4'800, 450, 8},
    {"h100", "NVIDIA H100", 80, 989, 3'350, 450, 8},
    {"b200", "NVIDIA B200", 180, 2'250, 8'000, 900, 8},
    {"a100", "NVIDIA A100 80GB", 80, 312, 2'039, 300, 8},
    {"l40s", "NVIDIA L40S", 48, 362, 864, 32, 8},
    {"l4", "NVIDIA L4", 24, 121, 300, 32, 8},
    {"mi300x", "AMD Instinct MI300X", 192, 1'307, 5'300, 448, 8},
    {"mi325x", "AMD Instinct MI325X", 256, 1'307, 6'000, 448, 8},
    {"gaudi2", "Intel Gaudi 2", 96, 432, 2'450, 262, 8},
    {"gaudi3", "Intel Gaudi 3", 128, 1'835, 3'700, 525, 8},
    {"max1550", "Intel Data Center GPU Max 1550", 128, 839, 3'277, 200, 8},
    {"v6e", "Google TPU v6e", 32, 918, 1'640, 448, 8},
    {"tpu7x", "Google TPU7x", 192, 2'307, 7'380, 600, 4},
    // Workers of baton-engine, by the values' cores and memory; rates of AVX-512 cores by model_bench (bench/README.md).
    {"cpu8", "worker of 8 CPU cores", 8.6, 2, 100, 0, 1, 4.3},
    {"cpu2", "worker of 2 CPU cores", 1.07, 0.5, 27, 0, 1, 0.134},
};

constexpr std::string_view kFp8 = "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic";
// name, accelerator, gateway, values, device, devices, model, context, RDMA, Baton's engine
constexpr Environment kEnvironments[] = {
    {"default", "cuda", "istio", "values.yaml", "h200", 8, kFp8, 32'000, true, false},
    {"istio", "cuda", "istio", "values.yaml", "h200", 8, kFp8, 32'000, true, false},
    {"istioBench", "cuda", "istio", "values.yaml", "h200", 8, kFp8, 32'000, true, false},
    {"kgateway", "cuda", "kgateway", "values.yaml", "h200", 8, kFp8, 32'000, true, false},
    {"agentgateway", "cuda", "agentgateway", "values.yaml", "h200", 8, kFp8, 32'000, true, false},
    {"gke", "cuda", "gke", "values.yaml", "h200", 8, kFp8, 32'000, false, false},
    {"gke_tpu", "tpu", "gke", "values_tpu.yaml", "v6e", 24, "meta-llama/Llama-3.3-70B-Instruct", 32'000, false, false},
    {"xpu", "xpu", "istio", "values_xpu.yaml", "max1550", 4, "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 32'000, false, false},
    {"hpu", "hpu", "kgateway", "values_hpu.yaml", "gaudi2", 2, "meta-llama/Llama-3.2-3B-Instruct", 32'000, false, false},
    {"amd", "amd", "istio", "values_amd.yaml", "mi300x", 8, "amd/Llama-3.3-70B-Instruct-FP8-KV", 32'000, true, false},
    {"aks", "cuda", "istio", "values.yaml", "h200", 8, kFp8, 32'000, true, false},
    {"digitalocean", "cuda", "istio", "values.yaml", "h200", 8, kFp8, 32'000, false, false},
    {"cpu", "cpu", "istio", "values_cpu.yaml", "cpu8", 4, "smollm2", 8'192, false, true},
    {"kind", "kind", "builtin", "values_kind.yaml", "cpu2", 2, "smollm2", 4'096, false, true},
};

// name, layers, hidden, heads, KV heads, head size, ffn, vocabulary, context, bytes a parameter, tied
constexpr KnownModel kModels[] = {
    {kFp8, {80, 8192, 64, 8, 128, 28672, 128256, 131072, 1, false}},
    {"amd/Llama-3.3-70B-Instruct-FP8-KV", {80, 8192, 64, 8, 128, 28672, 128256, 131072, 1, false}},
    {"meta-llama/Llama-3.3-70B-Instruct", {80, 8192, 64, 8, 128, 28672, 128256, 131072, 2, false}},
    {"meta-llama/Llama-3.1-8B-Instruct", {32, 4096, 32, 8, 128, 14336, 128256, 131072, 2, false}},
    {"meta-llama/Llama-3.2-3B-Instruct", {28, 3072, 24, 8, 128, 8192, 128256, 131072, 2, true}},
    {"deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", {28, 1536, 12, 2, 128, 8960, 151936, 131072, 2, false}},
    {"Qwen/Qwen3-0.6B", {28, 1024, 16, 8, 128, 3072, 151936, 40960, 2, true}},
    {"smollm2", {30, 576, 9, 3, 64, 1536, 49152, 8192, 0.625, true}},  // the demo model: Q4_1, 5 bits a parameter
};

constexpr std::string_view kGateways[] = {"istio", "kgateway", "agentgateway", "gke", "builtin"};

bool same(std::string_view a, std::string_view b) {
  const auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::ranges::equal(a, b, {}, low, low);
}

template <class T>
const T* find(std::span<const T> rows, std::string_view name) {
  const auto at = std::ranges::find_if(rows, [&](const T& row) { return same(row.name, name); });
  return at == rows.end() ? nullptr : &*at;
}

}  // namespace

std::span<const Device> devices() { return kDevices; }
std::span<const Environment> environments() { return kEnvironments; }
std::span<const KnownModel> known_models() { return kModels; }
std::span<const std::string_view> gateways() { return kGateways; }
const Device* find_device(std::string_view name) { return find(devices(), name); }

const Environment* find_environment(std::string_view name) {
  if (same(name, "nvidia")) name = "default";
  if (same(name, "tpu")) name = "gke_tpu";
  return find(environments(), name);
}

const KnownModel* find_model(std::string_view name) {
  if (const KnownModel* row = find(known_models(), name)) return row;
  const auto at =
      std::ranges::find_if(kModels, [&](const KnownModel& m) { return same(m.name.substr(m.name.rfind('/') + 1), name); });
  return at == std::end(kModels) ? nullptr : &*at;
}

}  // namespace baton::deploy
