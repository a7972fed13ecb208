#include "sim/worker.h"

#include <algorithm>

namespace baton::sim {

SimWorker::SimWorker(const cost::WorkerCost& cost, int32_t blocks, const sched::SchedulerConfig& config, Callbacks callbacks)
    : cost_(cost), callbacks_(std::move(callbacks)), scheduler_(config, kv::BlockPool(blocks, true), kv::root_hash("sim")) {}

Result<> SimWorker::add(sched::NewRequest request) {
  const Live live{.prompt = static_cast<int>(request.prompt.size()), .output = 0, .output_max = request.max_tokens};
  const sched::RequestId id = request.id;
  BATON_OK(scheduler_.add(std::move(request)));
  live_.emplace(id, live);
  return {};
}

void SimWorker::end(sched::RequestId id) {
  scheduler_.finish(id);
  live_.erase(id);
  callbacks_.on_done(id);
}

void SimWorker::fetched(sched::RequestId id, int32_t tokens, int32_t first_token) {
  if (!scheduler_.remote_done(id, tokens, first_token)) return;
  Live& live = live_.at(id);
  callbacks_.on_token(id, ++live.output);
  if (live.output >= live.output_max) end(id);
}

double SimWorker::step_us(const sched::StepPlan& plan) {
  int64_t prefill = 0, streams = 0;
  double prefill_context = 0, stream_context = 0;
  for (const sched::ScheduledSeq& seq : plan.seqs) {
    Live& live = live_.at(seq.id);
    if (!live.counted) {
      live.counted = true;
      const auto view = scheduler_.view(seq.id);
      prompt_tokens_ += live.prompt;
      cached_tokens_ += view ? view->num_cached : 0;
    }
    if (seq.first_position < live.prompt) {
      prefill += seq.n_tokens;
      computed_tokens_ += seq.n_tokens;
      prefill_context += seq.n_tokens * (seq.first_position + seq.n_tokens / 2.0);
    } else {
      ++streams;
      stream_context += seq.first_position;
    }
  }
  double us = 0;
  if (prefill > 0) us += cost_.prefill.step_us(prefill, prefill_context / static_cast<double>(prefill));
  if (streams > 0) {
    us += cost_.decode.step_us(streams, stream_context / static_cast<double>(streams));
    if (prefill > 0) us -= std::min(cost_.decode.fixed_us, cost_.prefill.step_us(prefill, 0));  // one pass over the weights
  }
  return us;
}

std::optional<double> SimWorker::start_us() {
  while (!step_ && scheduler_.has_work()) {
    sched::StepPlan plan = scheduler_.plan();
    for (const sched::RemoteFetch& fetch : plan.fetches) callbacks_.on_fetch(fetch);
    for (sched::RequestId id : plan.exhausted) end(id);
    if (plan.seqs.empty()) continue;
    const double us = step_us(plan);
    step_ = std::move(plan);
    busy_us_ += us;
    return us;
  }
  return std::nullopt;
}

void SimWorker::finish_step() {
  const sched::StepPlan plan = *std::move(step_);
  step_.reset();
  std::vector<int32_t> sampled;
  std::vector<sched::RequestId> ids;
  for (const sched::ScheduledSeq& seq : plan.seqs) {
    if (!seq.samples) continue;
    const Live& live = live_.at(seq.id);
    sampled.push_back(callbacks_.token_of(seq.id, live.prompt + live.output));
    ids.push_back(seq.id);
  }
  scheduler_.commit(plan, sampled);
  for (sched::RequestId id : ids) {
    Live& live = live_.at(id);
    callbacks_.on_token(id, ++live.output);
    if (live.output >= live.output_max) end(id);
  }
}

}  // namespace baton::sim
