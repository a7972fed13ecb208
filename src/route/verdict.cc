#include "route/verdict.h"

namespace baton::route {

std::string_view why_name(Why why) {
  switch (why) {
    case Why::kRemotePrefill:
      return "remote-prefill";
    case Why::kDeciderNever:
      return "decider-never";
    case Why::kCachedOrShort:
      return "cached-or-short";
    case Why::kNoPrefillEndpoint:
      return "no-prefill-endpoint";
    case Why::kDecodeServesBoth:
      return "decode-serves-both";
    case Why::kPrefillServesAll:
      return "prefill-serves-all";
    case Why::kSingle:
      return "single";
    case Why::kNotAllowed:
      return "remote-prefill-not-allowed";
    case Why::kCheaperLocal:
      return "cheaper-local";
    case Why::kSplit:
      return "split";
  }
  return "";
}

}  // namespace baton::route
