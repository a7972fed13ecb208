#include "sim/ratio.h"

namespace baton::sim {

cost::RatioStep RatioSim::look(const RatioCounts& now, cost::RoleNow prefill, cost::RoleNow decode) {
  prefill.wanted = decode.wanted = -1;
  window_.push_back(now);
  while (window_.size() > 2 && window_[1].at_s <= now.at_s - config_.window_s) window_.pop_front();
  const RatioCounts& then = window_.front();
  if (const double seconds = now.at_s - then.at_s; seconds > 0) {
    const double prompts = now.prompts - then.prompts, answers = now.answers - then.answers;
    cost::PoolLoad load;
    load.prompts_s = prompts / seconds;
    if (prompts > 0) load.prompt_tokens = (now.computed_tokens - then.computed_tokens) / prompts;
    load.answer_tokens_s = (now.answer_tokens - then.answer_tokens) / seconds;
    if (answers > 0) load.answer_tokens = (now.answer_tokens - then.answer_tokens) / answers;
    load.prompts_waiting = now.prompts_waiting, load.streams_waiting = now.streams_waiting;
    load.context = now.context > 0 ? now.context : load.prompt_tokens;
    const cost::Wanted wanted = cost::wanted_workers(config_.worker, config_.worker, load, config_.targets);
    prefill.wanted = wanted.prefill, decode.wanted = wanted.decode;
  }
  return cost::ratio_step(config_.policy, prefill, decode, static_cast<int64_t>(1e3 * now.at_s), memory_);
}

}  // namespace baton::sim
