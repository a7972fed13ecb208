#pragma once
// run_bench(): makes the prompts, loads the server, returns the report. bench(): the command: that, the progress, the table, the
// file. Closed loop (max_concurrency): that many requests are kept going. Open loop (request_rate): requests are due at times
// fixed before the start; one that finds no free place waits, and its wait is reported, not hidden. One I/O thread (the caller's)
// drives everything; blocks until done. Source: facts sheet "performance" 6.
#include <functional>

#include "base/result.h"
#include "loadgen/config.h"
#include "loadgen/report.h"

namespace baton::loadgen {

struct Progress {
  int done = 0, total = 0, failed = 0;
  double elapsed_s = 0;
};
using OnProgress = std::function<void(const Progress&)>;

Result<BenchReport> run_bench(const BenchConfig& config, const OnProgress& on_progress = nullptr);
Result<> bench(const BenchConfig& config);

}  // namespace baton::loadgen
