#pragma once
// What a placement of one request would cost, by the cost model: its own time to first token, and how long running streams on the
// decode worker are held up, weighted. Shared by baton-cost-decider and baton-pair-handler. Units: ms. Pure.
// Model: remote = prefill worker's queue + own prefill + hand-over of the KV the decode worker lacks + first decode step;
// local = decode worker's queue + own prefill, during which every running stream of it waits. docs/adr/0008.
#include <cstdint>
#include <vector>

#include "route/plugins.h"

namespace baton::route {

struct Estimate {
  double ttft_ms = 0, harm_ms = 0, cost_ms = 0;  // cost = ttft + weighted harm
  int64_t tail_tokens = 0;                       // split: what decode computes itself
};

Estimate estimate_local(const Scene& scene, int decode, double harm_weight);
// tail_max > 0: the decode worker may compute up to so many of the last tokens, if that is cheaper.
Estimate estimate_remote(const Scene& scene, int prefill, int decode, double harm_weight, int64_t tail_max = 0);

// Its parts, for a search over pairs: a prefill worker's own time, a decode worker's own, and the hand-over between them.
double prefill_ms(const Scene& scene, int prefill, int64_t tail_tokens);
double decode_ms(const Scene& scene, int decode);
double stream_harm_ms(const Scene& scene, int decode);  // one more stream among those that run, over its expected length
double transfer_ms(const Scene& scene, int prefill, int decode, int64_t tail_tokens);
double transfer_floor_ms(const Scene& scene, int decode);  // no prefill worker is nearer than this

struct RoleFlip {
  int endpoint = -1;  // index; -1 = leave it
  Role to = Role::kBoth;
  double prefill_pressure = 0, decode_pressure = 0;
};
// The one worker whose change of role would best even out the two stages: pressures are mean seconds of queued work (prefill) and
// mean share of KV and streams (decode); nothing is proposed unless one stage is `ratio` times as pressed as the other, and the
// giving stage keeps `keep_min` workers. A slow loop's input, for a person or an autoscaler: nothing here changes a role.
RoleFlip propose_role_flip(const Snapshot& snapshot, const Plan& plan, double ratio = 2, int keep_min = 1);

}  // namespace baton::route
