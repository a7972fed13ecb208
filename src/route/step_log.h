#pragma once
// StepLog: what one decision spent its time on, step by step, for plugin_duration_seconds and for spans. decide() stays a function
// of its arguments: whoever wants times hands in a clock with the log. A step costs one look at the clock; its time is what passed
// since the step before. Steps beyond kStepsMax are not told apart (they count to the next that fits: none). One thread.
#include <array>
#include <cstdint>

#include "base/clock.h"

namespace baton::route {

// llm-d's extension points, and Decider, which is none there.
enum class Point : uint8_t { kDataProducer, kAdmission, kProfileHandler, kFilter, kScorer, kPicker, kDecider };
inline constexpr int kPoints = 7;
const char* point_name(Point point);  // as the label extension_point has it

class StepLog {
 public:
  static constexpr size_t kStepsMax = 96;
  struct Step {
    int64_t begin_ns = 0, end_ns = 0;
    int16_t plugin = -1;   // index into Plan::Policy::plugins
    int16_t profile = -1;  // index into Plan::Policy::profiles, -1 = none
    uint16_t candidates = 0;
    Point point = Point::kFilter;
  };

  explicit StepLog(const Clock& clock) : clock_(&clock) {}
  void start() { count_ = 0, at_ns_ = clock_->now_ns(); }
  // What passed since the last call was this plugin's; candidates: how many it left, or looked at.
  void done(Point point, int plugin, int profile = -1, size_t candidates = 0) {
    const int64_t now = clock_->now_ns();
    if (count_ < kStepsMax) {
      steps_[count_++] = {at_ns_, now, static_cast<int16_t>(plugin), static_cast<int16_t>(profile),
                          static_cast<uint16_t>(candidates), point};
    }
    at_ns_ = now;
  }
  size_t size() const { return count_; }
  const Step& operator[](size_t i) const { return steps_[i]; }

 private:
  const Clock* clock_;
  int64_t at_ns_ = 0;
  size_t count_ = 0;
  std::array<Step, kStepsMax> steps_;
};

}  // namespace baton::route
