#pragma once
// When requests are meant to be sent, in seconds from the start, ascending: fixed before the first is sent, so that a slow server
// cannot slow the arrivals down (coordinated omission). Pure: the same arguments give the same times. Gaps are gamma distributed
// with shape `burstiness` and mean 1/rate (1 = Poisson process); as in vllm bench serve the whole is scaled so that n requests
// take n/rate seconds.
#include <cstdint>
#include <vector>

namespace baton::loadgen {

std::vector<double> arrival_times(size_t n, double rate, double burstiness, uint64_t seed);  // rate inf: all 0

}  // namespace baton::loadgen
