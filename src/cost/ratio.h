#pragma once
// The ratio of the roles: the next step from the workers there are to those that the load wants. One step at a time, and only
// after it was wanted without a break for a while; a role takes no step up while its last one is still starting, and none down
// while its last one is still draining. Guarantees: never outside the bounds (a role outside comes back, a step at a time); on a
// constant load a role moves in one direction only, then rests; with `devices` held their use never changes once it is that
// number. Pure.
#include <array>
#include <cstdint>
#include <string>

namespace baton::cost {

struct RoleBounds {
  int min = 1, max = 1;
  int devices = 1;  // of one worker
};

struct RatioPolicy {
  RoleBounds prefill, decode;
  int devices = 0;                                        // > 0: held; workers change their role, none comes or goes
  double band = 0.2;                                      // of a worker: how far below the smaller number the load must lie
  int64_t up_after_ms = 30'000, down_after_ms = 300'000;  // wanted for so long
  int64_t settle_ms = 60'000;                             // between steps
};

struct RoleNow {
  int replicas = 0;   // asked for; 0: a person switched the role off, it is left alone
  int starting = 0;   // of them, not ready
  int leaving = 0;    // beside them, still draining
  double wanted = 0;  // workers, by the load; negative: not known
};

// What the controller remembers from step to step; starts anew with {.stepped_ms = now}.
struct RatioMemory {
  std::array<int64_t, 4> since_ms{-1, -1, -1, -1};  // by move: how long it has been wanted; -1: it is not
  int64_t stepped_ms = 0;
};

struct RatioStep {
  int prefill = 0, decode = 0;  // replicas from now on
  bool changed = false;
  const char* verdict = "";  // short and without numbers
};
RatioStep ratio_step(const RatioPolicy& policy, const RoleNow& prefill, const RoleNow& decode, int64_t now_ms,
                     RatioMemory& memory);

// All that is wrong with a policy; "" = nothing.
std::string ratio_policy_error(const RatioPolicy& policy);

}  // namespace baton::cost
