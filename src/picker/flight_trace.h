#pragma once
// FlightTrace: a request's spans in the picker, under llm-d's names, with its attributes:
//   gateway.request > gateway.request_orchestration > produce_precise_prefix_cache, run_scheduler_profile > filter_endpoints,
//   llm_d.epp.scoring > llm_d.epp.scorer.<type>, pick_endpoints; pick_disagg_profile or pick_pd_profile, prepare_disaggregation
// The inner ones are made from a decision's StepLog once it is over, and only for a request that is sampled. Without a Tracer
// nothing happens. Owner: the Flight; its thread. Source: facts sheet "epp" 7.
#include <span>
#include <string>
#include <string_view>

#include "base/trace.h"
#include "picker/picker.h"
#include "picker/pool.h"
#include "route/decide.h"

namespace baton::picker {

class FlightTrace {
 public:
  void begin(Tracer* tracer, const Head& head, int64_t begin_ns);
  // What goes on with the request, "" = nothing (no tracer: its own passes through untouched).
  std::string downstream() const { return request_.exists() ? traceparent(request_.context()) : std::string(); }
  void orchestrate(std::string_view model, std::string_view target, int64_t priority, int64_t begin_ns);
  // One decision. ranked: in the view, of the primary profile, with scores by place.
  struct Decision {
    const route::StepLog& steps;
    const route::Plan& plan;
    const View& view;
    const route::Verdict* verdict = nullptr;  // none: it failed
    std::span<const float> scores{};
    std::string_view prefill{}, reason{};  // address, Why
  };
  void decided(const Decision& decision);
  void placed(std::string_view error = {});  // the orchestration is over
  struct Answer {
    int status = 0;
    int64_t input_tokens = 0, output_tokens = -1, cached_tokens = -1;
    double ttft_s = -1;
    std::string_view destination{};
  };
  void finish(const Answer& answer);

 private:
  size_t profile(const Decision& decision, size_t first);
  void handler(const Decision& decision, const route::StepLog::Step& step, int64_t begin_ns);
  std::string request_id_, model_;
  Span request_, orchestration_;
};

}  // namespace baton::picker
