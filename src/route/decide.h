#pragma once
// decide(): the one decision of a Plan: which workers serve a request. Pure: equal arguments and equal Prng state give the equal
// Verdict, so ext_proc, gateway and simulator share it and a bad choice is a seed. Order: candidates (healthy, model, subset, not
// excluded) -> admitters -> profile handler, which runs profiles: filters -> weighted sum of clamped scores -> picker; decode
// first, then the deciders, then encode and prefill (or prefill first, or the pair jointly, as the plan says). Guarantees: no
// allocation that grows with endpoints; never an unhealthy or excluded endpoint; when a role is missing the request is still
// served where the plan allows it (Why tells). Source: facts sheet "epp" 3.6, 4.1-4.8.
#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/prng.h"
#include "base/result.h"
#include "route/endpoint.h"
#include "route/plan.h"
#include "route/prefix_index.h"
#include "route/step_log.h"
#include "route/verdict.h"

namespace baton::route {

struct Inquiry {              // what is known of the request
  std::string_view model;     // after rewrites; empty = any
  int64_t prompt_tokens = 0;  // estimate
  int64_t output_tokens = 0;  // expected, from max_tokens or history; 0 = not known
  size_t blocks_total = 0;    // hash blocks of the prompt
  int block_tokens = 16;
  const PrefixMatch* match = nullptr;   // leading blocks held, by slot; nullptr = no prefix knowledge
  bool subset_given = false;            // then only endpoints whose host is in `subset`; empty = none
  std::span<const std::string> subset;  // hosts, or host:port of which the port is ignored (as llm-d does)
  std::bitset<kEndpointsMax> excluded;  // by index: tried before and failed
  bool remote_prefill_allowed = true;
  bool multimodal = false;
  int64_t media_total = 0;                 // size of the request's media, and by slot what of it an endpoint holds encoded
  std::span<const int64_t> media_matched;  // may be empty
  int priority = 0;
  double ttft_slo_ms = 0, tpot_slo_ms = 0;  // 0 = none
  int session_slot = -1;                    // endpoint the session is bound to; -1 = none
  std::span<const uint32_t> cold_order;     // by slot: when it last took a request without prefix hit (0 = never); may be empty
  std::span<const std::pair<std::string_view, std::string_view>> headers;  // lower-case names; for the plugins that name one
  int64_t stale_after_ms = 2'000;  // scraped numbers older than this score 0 (all are older: all equal, in-flight decides)
};

struct StageResult {
  Ranked ranked;              // best first; more than `listed`, for retries
  int listed = 1;             // how many of them the destination header names (maxNumOfEndpoints)
  float score = 0;            // of the first
  int64_t cached_tokens = 0;  // of the first, by prefix knowledge
};

struct Verdict {
  StageResult primary, prefill, encode;  // prefill and encode: count 0 = not used
  Why why = Why::kRemotePrefill;
  int destination_port = 0;        // data-parallel handler: replaces the primary's port; 0 = its own
  std::string_view profile;        // name of the primary's profile
  int64_t decode_tail_tokens = 0;  // kSplit: so many of the prompt's last tokens are better computed by the decode worker
  bool cold = false;               // no candidate held any of the prompt
  double estimated_ttft_ms = -1;   // by the cost model, where the plan uses it
};

// scores: if not empty, scores[i] gets the primary profile's total of endpoint i, or -1 where it was no candidate.
// steps: if given and started, gets a step for each plugin that ran.
// Errors: kNotFound no endpoint serves the model; kUnavailable no candidates (503); kResourceExhausted the filters left none
// (429); kFailedPrecondition, kPermissionDenied, ... from admitters.
Result<Verdict> decide(const Snapshot& snapshot, const Inquiry& inquiry, const Plan& plan, Prng& prng,
                       std::span<float> scores = {}, StepLog* steps = nullptr);

// Saturation of the pool for flow control: 1 = full; values over 1 are legal; with P/D roles the larger of the two stages'.
double saturation(const Snapshot& snapshot, const DetectorParams& detector);
struct StageSaturation {
  double prefill = 0, decode = 0;  // 0 where the stage has no workers of its own
  double effective = 1;            // what saturation() says
};
StageSaturation saturation_by_stage(const Snapshot& snapshot, const DetectorParams& detector);

}  // namespace baton::route
