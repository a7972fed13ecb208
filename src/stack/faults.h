#pragma once
// survive_faults(): while greedy requests are answered by a stack that `baton up` runs on this machine, its workers are killed and
// frozen, one at a time. Every request must end in the text of a quiet run or in one clear error; afterwards everybody must be back,
// answer, and hold no block and no grant. tests/chaos has the long form, with a broken wire too. One I/O thread; it forks a child
// that thaws what it froze, so that nothing stays frozen if we are stopped.
#include <vector>

#include "base/checks.h"
#include "stack/asker.h"

namespace baton::stack {

net::Task<std::vector<CheckResult>> survive_faults(const VerifyConfig& config, const Url& url, Asker& asker);

}  // namespace baton::stack
