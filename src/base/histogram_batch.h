#pragma once
// Many observations at once, for those that are counted where a lock a value would be too dear. increments: one number a bucket,
// the last for values over every bound (not cumulative); sum: of the values. Any thread.
#include <vector>

#include "base/metrics.h"

namespace baton {

void observe_batch(Histogram& histogram, const std::vector<double>& increments, double sum);

}  // namespace baton
