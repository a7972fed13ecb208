#pragma once
// How many workers a load wants, by the latency model: what planner, ratio controller and simulator share. Numbers of workers are
// real, so that a caller sees how near the next one is. Prefill waits as M/D/1 (facts sheet "performance" 5.2); all times are
// means. Units: us, tokens, requests a second. Pure.
#include "cost/cost.h"

namespace baton::cost {

inline constexpr double kPrefillBusyMax = 0.8;  // beyond it the wait grows without measure

// The part of its time that a prefill worker may compute if prompts of step_us each are to wait spare_us; 0: none would do.
double prefill_busy_max(double step_us, double spare_us);
// Streams of this context that one worker carries within tpot_us, at most `most`; 0: not even one.
int streams_max(const WorkerCost& cost, double context, double tpot_us, int most);
// Workers that write so many tokens a second, each with `streams` (at least 1) of them at a time.
double decode_workers(const WorkerCost& cost, double tokens_s, double context, int streams);

struct PoolLoad {
  double prompts_s = 0, prompt_tokens = 0;          // prompts a second; tokens of one that are to be computed
  double answer_tokens_s = 0, answer_tokens = 0;    // written a second by all; of one answer
  double context = 0;                               // mean of a running stream
  double prompts_waiting = 0, streams_waiting = 0;  // requests that wait for a worker of the role
};
struct LoadTargets {
  double ttft_us = 2e6, tpot_us = 50e3;
  double hand_over_us = 0;  // of the first token's time, what is neither waiting nor computing
  double catch_up_s = 30;   // by when those that wait are to be served
  int streams_max = 256;    // of one worker, as its --max-num-seqs
  int64_t kv_tokens = 0;    // room of one decode worker; 0: not known
};
struct Wanted {
  double prefill = 0, decode = 0;
};
// A target that no number of workers meets is left aside: workers are then counted as half busy (prefill) or full (decode).
Wanted wanted_workers(const WorkerCost& prefill, const WorkerCost& decode, const PoolLoad& load, const LoadTargets& targets);

// `prior` times the one factor that explains the samples best (their median, 1/8 to 8): how a worker that is as its data sheet
// says but slower or faster is followed. Fewer than 8 samples keep it. Unlike fit(), a constant load cannot mislead it about
// others.
LinearCost calibrated(const LinearCost& prior, std::span<const Sample> samples);

}  // namespace baton::cost
