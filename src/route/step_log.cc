#include "route/step_log.h"

namespace baton::route {

const char* point_name(Point point) {
  switch (point) {
    case Point::kDataProducer:
      return "DataProducer";
    case Point::kAdmission:
      return "Admission";
    case Point::kProfileHandler:
      return "ProfileHandler";
    case Point::kFilter:
      return "Filter";
    case Point::kScorer:
      return "Scorer";
    case Point::kPicker:
      return "Picker";
    case Point::kDecider:
      return "Decider";
  }
  return "";
}

}  // namespace baton::route
