#pragma once
// all(): runs tasks at the same time on this I/O thread and comes back when every one has ended, so that they may use the
// caller's locals. It ends none of them early: a task that should stop because another failed is given a Cancel.
#include <vector>

#include "net/http.h"

namespace baton::net {

Task<> all(std::vector<Task<>> tasks);
Task<> all(Task<> a, Task<> b);

}  // namespace baton::net
