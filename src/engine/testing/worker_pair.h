#pragma once
// WorkerPair: a prefill and a decode Worker that know each other's node. Tests add how their legs begin.
#include "base/log.h"
#include "engine/testing/worker.h"

namespace baton::engine::testing {

struct WorkerPair {
  explicit WorkerPair(const WorkerSetup& decode_setup = {}, const WorkerSetup& prefill_setup = {})
      : prefill(prefill_setup), decode(decode_setup) {
    log_setup("engine_test", LogLevel::kError);  // failed fetches are what we ask for
    decode.node.join(prefill.node);
  }
  // Until neither has anything to do; what one did may give the other work.
  void settle() {
    for (int round = 0; round < 3; ++round) {
      decode.run();
      prefill.run();
    }
  }
  void expect_clean() {
    settle();
    EXPECT_EQ(prefill.usage(), 0);
    EXPECT_EQ(decode.usage(), 0);
    EXPECT_TRUE(prefill.node.offers.empty());
    EXPECT_TRUE(prefill.core->idle() && decode.core->idle());
  }
  Worker prefill, decode;
};

}  // namespace baton::engine::testing
