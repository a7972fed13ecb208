#pragma once
// baton-pair-handler: the prefill and the decode worker chosen together. Cost of a pair = ttftWeight * TTFT (queue, prefill,
// hand-over, first step) + harmWeight * delay of running streams - scoreWeight * profile scores; local prefill on a decode worker
// is the pair (d, d). All pairs are considered, few are looked at: workers are sorted by their own part of the cost, so the
// search stops where the sum of two parts already exceeds the best pair. Equal costs are broken by the Prng.
#include "route/plugins.h"

namespace baton::route {

Result<> choose_pair(Scene& scene, const Plan::Policy& policy, const PairParams& params, std::span<float> scores,
                     Verdict& verdict);

}  // namespace baton::route
