#pragma once
// Predictor: what a request would take on each worker, by the cost model fitted to what finished requests took there: TTFT
// samples give the prefill line, TPOT samples the decode line, refitted every kRefitEvery samples. A worker without samples of
// its own starts from the plan's figures. Any thread; a short lock per sample, none per prediction. Source: src/cost/cost.h;
// facts sheet "epp" 4.7 predicted-latency-producer.
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "cost/cost.h"
#include "picker/pool.h"

namespace baton::picker {

class Predictor {
 public:
  void set_prior(const cost::WorkerCost& prior);
  void adopt(EndpointState& state) const;  // a new endpoint
  void forget(const EndpointState& state);
  // queued_tokens: prompt tokens that were there before ours; new_tokens: ours that were not cached.
  void prefilled(EndpointState& state, int64_t queued_tokens, int64_t new_tokens, int64_t cached_tokens, double ttft_us);
  void decoded(EndpointState& state, int running, double mean_context, double tpot_us);

  static constexpr int kRefitEvery = 32;
  static constexpr size_t kSamplesKept = 256;

 private:
  struct Samples {
    std::vector<cost::Sample> ring;
    size_t next = 0;
    void add(const cost::Sample& sample);
  };
  struct Worker {
    Samples prefill, decode;
    int since_fit = 0;
  };
  void refit(EndpointState& state, Worker& worker) const;

  mutable std::mutex mutex_;
  cost::WorkerCost prior_;
  std::unordered_map<const EndpointState*, Worker> workers_;
};

}  // namespace baton::picker
