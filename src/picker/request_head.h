#pragma once
// RequestHead: what a request's headers say to the picker, today's names and their aliases alike. Views point into the Head.
// Numbers that are none, and values over kHeaderValueBytesMax, count as absent. Source: facts sheet "epp" 1.4.
#include <span>
#include <string_view>

#include "picker/picker.h"
#include "route/plan.h"

namespace baton::picker {

struct RequestHead {
  std::string_view objective;      // InferenceObjective's name
  std::string_view fairness_id;    // "" = not said
  std::string_view model_rewrite;  // the proxy's own rewrite
  std::string_view session_token;  // base64 of an endpoint's name
  std::string_view session_id;     // by Plan::session
  double ttft_slo_ms = 0, tpot_slo_ms = 0;
  size_t body_bytes = 0;      // claimed by content-length; 0 = not said
  bool if_available = false;  // Prefer: if-available
};

RequestHead read_head(std::span<const HeaderField> headers, const route::Plan& plan);

std::string base64_encode(std::string_view bytes);
std::string base64_decode(std::string_view text);  // "" if it is none

}  // namespace baton::picker
