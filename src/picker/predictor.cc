#include "picker/predictor.h"

namespace baton::picker {

void Predictor::Samples::add(const cost::Sample& sample) {
  if (ring.size() < kSamplesKept)
    ring.push_back(sample);
  else
    ring[next++ % kSamplesKept] = sample;
}

void Predictor::set_prior(const cost::WorkerCost& prior) {
  std::lock_guard lock(mutex_);
  prior_ = prior;
}

void Predictor::adopt(EndpointState& state) const {
  std::lock_guard lock(mutex_);
  state.set_cost(prior_);
}

void Predictor::forget(const EndpointState& state) {
  std::lock_guard lock(mutex_);
  workers_.erase(&state);
}

void Predictor::refit(EndpointState& state, Worker& worker) const {
  worker.since_fit = 0;
  state.set_cost({.prefill = cost::fit(worker.prefill.ring, prior_.prefill),
                  .decode = cost::fit(worker.decode.ring, prior_.decode),
                  .kv_bytes_per_token = prior_.kv_bytes_per_token});
}

void Predictor::prefilled(EndpointState& state, int64_t queued_tokens, int64_t new_tokens, int64_t cached_tokens,
                          double ttft_us) {
  if (state.removed || ttft_us <= 0) return;
  std::lock_guard lock(mutex_);
  Worker& worker = workers_[&state];
  const int64_t tokens = std::max<int64_t>(1, queued_tokens + new_tokens);
  worker.prefill.add({.new_tokens = tokens,
                      .mean_context = static_cast<double>(cached_tokens) + static_cast<double>(tokens) / 2,
                      .us = ttft_us});
  if (++worker.since_fit >= kRefitEvery) refit(state, worker);
}

void Predictor::decoded(EndpointState& state, int running, double mean_context, double tpot_us) {
  if (state.removed || tpot_us <= 0) return;
  std::lock_guard lock(mutex_);
  Worker& worker = workers_[&state];
  worker.decode.add({.new_tokens = std::max(1, running), .mean_context = mean_context, .us = tpot_us});
  if (++worker.since_fit >= kRefitEvery) refit(state, worker);
}

}  // namespace baton::picker
