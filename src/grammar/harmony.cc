#include "grammar/harmony.h"

#include "base/result.h"

namespace baton::grammar {
namespace {

constexpr std::string_view kStart = kHarmonyTokens[0], kChannel = kHarmonyTokens[1], kMessage = kHarmonyTokens[2],
                           kConstrain = kHarmonyTokens[3], kEnd = kHarmonyTokens[4];

ExprId token(Rules& r, std::string_view text) { return r.bytes(special_bytes(text)); }

// A message of free text that may come before, and the beginning of the next.
ExprId before(Rules& r, std::string_view channel) {
  return r.optional(r.seq({token(r, kChannel), r.bytes(channel), token(r, kMessage), r.free({}, false), token(r, kEnd),
                           token(r, kStart), r.bytes("assistant")}));
}

ExprId is_json(Rules& r) { return r.alt({r.bytes(" json"), r.seq({r.bytes(" "), token(r, kConstrain), r.bytes("json")})}); }

}  // namespace

std::string special_bytes(std::string_view token) { return cat('\xFF', token); }

ExprId harmony_final(Rules& r, ExprId inside, bool json) {
  const ExprId form = json ? r.optional(is_json(r)) : r.bytes("");
  return r.seq({before(r, "analysis"), token(r, kChannel), r.bytes("final"), form, token(r, kMessage), inside});
}

ExprId harmony_call(Rules& r, const std::vector<HarmonyCall>& calls) {
  std::vector<ExprId> ways;
  const ExprId form = r.rule("harmony_form", is_json(r));
  const ExprId channel =
      r.rule("harmony_channel", r.seq({token(r, kChannel), r.alt({r.bytes("commentary"), r.bytes("analysis")})}));
  for (const HarmonyCall& call : calls) {
    const ExprId to = r.bytes(cat(" to=functions.", call.name));
    ways.push_back(r.seq({r.alt({r.seq({to, channel}), r.seq({channel, to})}), form, token(r, kMessage), call.arguments}));
  }
  return r.seq({before(r, "analysis"), before(r, "commentary"), r.alt(std::move(ways))});
}

}  // namespace baton::grammar
