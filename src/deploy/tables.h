#pragma once
// The tables behind a plan: environments of the guides, devices, models. A new one is a row. Data-sheet figures; GB = 1e9 bytes.
#include <cstdint>
#include <span>
#include <string_view>

namespace baton::deploy {

struct Device {
  std::string_view name, title;
  double memory_gb;  // of one
  double tflops;     // dense, bf16
  double gb_s;       // memory bandwidth
  double link_gb_s;  // to its neighbours in the node, one direction
  int node_devices;  // in a node, so the widest tensor parallelism
  double kv_gb = 0;  // what the environment's arguments give to KV; 0 = what is left
};

struct Environment {
  std::string_view name;                  // as the guides' helmfile -e
  std::string_view accelerator, gateway;  // the helmfile's two axes
  std::string_view values;                // its model server values, in guides/pd-disaggregation/ms-pd
  std::string_view device;                // unless --device
  int devices;                            // unless --devices: the guide's
  std::string_view model;                 // unless --model: the guide's
  int context;                            // tokens; --max-model-len of its values where they say one
  bool rdma;                              // its values ask for a network device
  bool baton_engine;                      // else vLLM, which wants prefill TP <= decode TP
};

struct ModelSizes {
  int64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0, context = 0;
  double weight = 2;  // bytes of one parameter
  bool tied = false;  // output head = embedding
  int64_t experts = 0, experts_used = 0, expert_ffn = 0, shared_ffn = 0;
};

struct KnownModel {
  std::string_view name;
  ModelSizes sizes;
};

std::span<const Device> devices();
std::span<const Environment> environments();
std::span<const KnownModel> known_models();
std::span<const std::string_view> gateways();
const Device* find_device(std::string_view name);            // nullptr: there is none, as below
const Environment* find_environment(std::string_view name);  // also ACCELERATOR alone: nvidia, tpu
const KnownModel* find_model(std::string_view name);         // whole, or its last part, any case

}  // namespace baton::deploy
