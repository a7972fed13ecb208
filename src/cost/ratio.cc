#include "cost/ratio.h"

#include <algorithm>
#include <numeric>

#include "base/result.h"

namespace baton::cost {
namespace {

constexpr double kPressedMin = 0.5;  // devices held: below it neither role is pressed, whatever the ratio
constexpr double kFlipGain = 0.1;    // ... and a change of role must lower the larger pressure by this part

struct Move {
  int prefill = 0, decode = 0;  // workers more or fewer
  int64_t after_ms = 0;
  const char* verdict = "";
  bool wanted = false, blocked = false;
  const char* blocked_by = "";
};

class Stepper {
 public:
  Stepper(const RatioPolicy& policy, const RoleNow& prefill, const RoleNow& decode)
      : policy_(policy), prefill_(prefill), decode_(decode) {}

  // In order of urgency; slots of RatioMemory::since_ms.
  std::array<Move, 4> moves() const { return policy_.devices > 0 ? held() : free(); }

 private:
  static bool known(const RoleNow& r) { return r.wanted >= 0; }
  static double pressure(double wanted, int replicas) { return wanted / std::max(1, replicas); }
  bool prefill_first() const {
    return pressure(prefill_.wanted, prefill_.replicas) >= pressure(decode_.wanted, decode_.replicas);
  }

  static void up(Move& move, const RoleNow& r, const RoleBounds& b, int64_t after_ms) {
    move.wanted = r.replicas > 0 && r.replicas < b.max && (r.replicas < b.min || (known(r) && r.wanted > r.replicas));
    move.after_ms = r.replicas < b.min ? 0 : after_ms;
    move.blocked = r.starting > 0, move.blocked_by = "the last worker is still starting";
  }
  void down(Move& move, const RoleNow& r, const RoleBounds& b) const {
    const bool spare = known(r) && r.wanted <= r.replicas - 1 - policy_.band;
    move.wanted = r.replicas > b.max || (r.replicas > b.min && spare);
    move.after_ms = r.replicas > b.max ? 0 : policy_.down_after_ms;
    move.blocked = r.leaving > 0, move.blocked_by = "the last worker is still draining";
  }

  std::array<Move, 4> free() const {
    std::array<Move, 4> out;
    Move &more_prefill = out[0], &more_decode = out[1];
    more_prefill = {.prefill = 1, .verdict = "prefill wants one more"};
    more_decode = {.decode = 1, .verdict = "decode wants one more"};
    up(more_prefill, prefill_, policy_.prefill, policy_.up_after_ms);
    up(more_decode, decode_, policy_.decode, policy_.up_after_ms);
    out[2] = {.prefill = -1, .verdict = "prefill can do with one less"};
    out[3] = {.decode = -1, .verdict = "decode can do with one less"};
    down(out[2], prefill_, policy_.prefill);
    down(out[3], decode_, policy_.decode);
    return out;
  }

  int used() const { return prefill_.replicas * policy_.prefill.devices + decode_.replicas * policy_.decode.devices; }
  static bool inside(int replicas, const RoleBounds& b) { return replicas >= b.min && replicas <= b.max; }

  // Slots: a worker too few, one too many, to prefill, to decode.
  std::array<Move, 4> held() const {
    std::array<Move, 4> out;
    if (prefill_.replicas == 0 || decode_.replicas == 0) return out;
    const bool settled = prefill_.starting + decode_.starting == 0, drained = prefill_.leaving + decode_.leaving == 0;
    out[0] = missing(), out[1] = surplus();
    if (used() == policy_.devices) out[2] = flip(+1), out[3] = flip(-1);
    for (Move& m : out) {
      if (!settled) m.blocked = true, m.blocked_by = "the last worker is still starting";
      if (!drained) m.blocked = true, m.blocked_by = "the last worker is still draining";
    }
    return out;
  }
  Move missing() const {
    const int left = policy_.devices - used();
    const bool p = policy_.prefill.devices <= left && prefill_.replicas < policy_.prefill.max;
    const bool d = policy_.decode.devices <= left && decode_.replicas < policy_.decode.max;
    Move out{.verdict = "devices are left"};
    out.wanted = p || d;
    if (p && (!d || prefill_first())) {
      out.prefill = 1;
    } else {
      out.decode = 1;
    }
    return out;
  }
  Move surplus() const {
    const bool p = prefill_.replicas > policy_.prefill.min, d = decode_.replicas > policy_.decode.min;
    Move out{.verdict = "more devices are used than are to be"};
    out.wanted = used() > policy_.devices && (p || d);
    if (p && (!d || !prefill_first())) {
      out.prefill = -1;
    } else {
      out.decode = -1;
    }
    return out;
  }
  Move flip(int to_prefill) const {
    const int both = std::lcm(policy_.prefill.devices, policy_.decode.devices);
    Move out{.prefill = to_prefill * both / policy_.prefill.devices, .decode = -to_prefill * both / policy_.decode.devices};
    out.after_ms = policy_.up_after_ms;
    out.verdict = to_prefill > 0 ? "a decode worker is worth more as prefill" : "a prefill worker is worth more as decode";
    const int p = prefill_.replicas + out.prefill, d = decode_.replicas + out.decode;
    if (!inside(p, policy_.prefill) || !inside(d, policy_.decode)) return out;
    if (!known(prefill_) || !known(decode_)) return out;
    const double now = std::max(pressure(prefill_.wanted, prefill_.replicas), pressure(decode_.wanted, decode_.replicas));
    const double then = std::max(pressure(prefill_.wanted, p), pressure(decode_.wanted, d));
    out.wanted = now > kPressedMin && then <= now * (1 - kFlipGain);
    return out;
  }

  const RatioPolicy& policy_;
  const RoleNow &prefill_, &decode_;
};

}  // namespace

RatioStep ratio_step(const RatioPolicy& policy, const RoleNow& prefill, const RoleNow& decode, int64_t now_ms,
                     RatioMemory& memory) {
  RatioStep out{.prefill = prefill.replicas, .decode = decode.replicas};
  std::array<Move, 4> moves = Stepper(policy, prefill, decode).moves();
  const Move* chosen = nullptr;
  for (size_t i = 0; i < moves.size(); ++i) {
    const Move& m = moves[i];
    int64_t& since = memory.since_ms[i];
    if (!m.wanted) {
      since = -1;
      continue;
    }
    if (since < 0) since = now_ms;
    const bool ripe = now_ms - since >= m.after_ms, settled = now_ms - memory.stepped_ms >= policy.settle_ms;
    if (ripe && settled && !m.blocked && chosen == nullptr) chosen = &m;
    if (*out.verdict == '\0') out.verdict = m.blocked ? m.blocked_by : !ripe ? m.verdict : "the last step is still settling";
  }
  if (chosen != nullptr) {
    out.prefill += chosen->prefill, out.decode += chosen->decode;
    out.changed = true, out.verdict = chosen->verdict;
    memory = {.stepped_ms = now_ms};
  } else if (*out.verdict == '\0') {
    const bool unknown = prefill.wanted < 0 || decode.wanted < 0;
    const bool off = prefill.replicas == 0 || decode.replicas == 0;
    out.verdict = off ? "a role has no replicas: it is left alone" : unknown ? "the load is not known" : "as the load wants it";
  }
  return out;
}

std::string ratio_policy_error(const RatioPolicy& p) {
  const struct {
    const char* role;
    const RoleBounds& b;
  } rows[] = {{"prefill", p.prefill}, {"decode", p.decode}};
  for (const auto& [role, b] : rows) {
    if (b.min < 1 || b.max < b.min) return cat(role, ": 1 <= min <= max, not ", b.min, " and ", b.max);
    if (b.devices < 1) return cat(role, ": a worker has at least one device");
  }
  const int least = p.prefill.min * p.prefill.devices + p.decode.min * p.decode.devices;
  const int most = p.prefill.max * p.prefill.devices + p.decode.max * p.decode.devices;
  if (p.devices > 0 && (p.devices < least || p.devices > most))
    return cat("devices to hold: ", least, " to ", most, " by the bounds of the roles, not ", p.devices);
  if (!(p.band >= 0 && p.band <= 1)) return "band: 0 to 1 of a worker";
  return "";
}

}  // namespace baton::cost
