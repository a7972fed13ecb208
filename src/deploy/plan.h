#pragma once
// Plan: how many prefill and decode workers of how many devices serve a load within its targets, and why. Memory decides which
// tensor parallelism can be; the latency model that router and simulator use (src/cost) decides the rest. Pure.
//   rate given:  the fewest devices that serve it.     rate 0:  the highest rate that the devices serve.
// Prefill waits as M/D/1 (facts sheet "performance" 5.2); all times are means. Units: us, tokens, bytes, requests a second.
#include <string>
#include <vector>

#include "base/result.h"
#include "deploy/shape.h"
#include "deploy/tables.h"

namespace baton::deploy {

struct PlanAsk {
  std::string environment = "", model = "", device = "", gateway = "";  // "" = the environment's
  int devices = 0;                                                      // that there are; 0 = the guide's
  double memory_gb = 0;                                                 // of one; 0 = its data sheet's
  double rate = 0;                                                      // requests a second; 0 = as many as can be
  int prompt_tokens = 1000, output_tokens = 1000;
  int context = 0;  // longest request; 0 = the environment's
  double ttft_ms = 2000, tpot_ms = 50;
  std::string rdma = "auto";  // KV over a network device: auto = as the environment, yes, no
  std::string kv_cache_dtype = "auto";  // the engines' flag: one of kv::cache_dtypes()
  // What is settled already; 0 = the plan's.
  int prefill_replicas = 0, prefill_tp = 0, decode_replicas = 0, decode_tp = 0;
};

struct PhasePlan {
  int replicas = 0, tp = 0;
  double weight_bytes = 0;  // on each device
  int64_t kv_tokens = 0;    // room of one worker
  double step_us = 0;       // prefill: a prompt; decode: a token
  double busy = 0;          // 0 to 1 of what its target allows
  double streams = 0;       // decode: of one worker at a time
  int batch_max = 0;        // decode: with which the target is met
};

struct Plan {
  PlanAsk ask;  // with every default filled in
  Shape shape;
  const Environment* environment = nullptr;
  const Device* device = nullptr;
  bool rdma = false;
  PhasePlan prefill, decode;
  double rate = 0, rate_max = 0;  // planned for; what these workers could carry
  double wait_us = 0, hand_over_us = 0, ttft_us = 0, tpot_us = 0;
  int devices_used() const { return prefill.replicas * prefill.tp + decode.replicas * decode.tp; }
};

// Why not, and what would; the first line is the reason, the rest is advice.
struct NoPlan {
  std::string reason;
  std::vector<std::string> advice;
};
using PlanResult = std::expected<Plan, NoPlan>;

PlanResult make_plan(const PlanAsk& ask, const Shape& shape);

inline constexpr double kMemoryPartUsed = 0.9;  // vLLM's --gpu-memory-utilization
inline constexpr int kStreamsMax = 256;         // vLLM's --max-num-seqs
inline constexpr double kRdmaBytesUs = 46'000, kTcpBytesUs = 2'600, kLocalBytesUs = 5'000;  // 400 Gb/s, 25 Gb/s, shared memory
inline constexpr double kHandOverUs = 2'000;                                                // what is not the moving itself

}  // namespace baton::deploy
