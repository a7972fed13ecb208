#pragma once
// WatchDecoder: the events of a Kubernetes watch, one JSON object a line, from bytes cut anywhere.
// Guarantees: an event is given out once, when its line is complete; at most event_bytes_max bytes are kept; after an error it
// stays in error. A last line without its newline is no event: the connection was cut.
// Source: Kubernetes API concepts, "Efficient detection of changes".
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace baton::discovery {

struct WatchEvent {
  enum class Type { kPut, kErase, kBookmark, kError };
  Type type = Type::kPut;
  Json object;          // the object, or the Status of kError
  std::string version;  // metadata.resourceVersion, never empty but for kError
  int error_code = 0;   // of the Status: 410 = the version is too old
};

class WatchDecoder {
 public:
  explicit WatchDecoder(size_t event_bytes_max) : event_bytes_max_(event_bytes_max) {}
  Result<> feed(std::string_view bytes, std::vector<WatchEvent>& out);
  size_t kept_bytes() const { return line_.size(); }

 private:
  Result<> event(std::string_view line, std::vector<WatchEvent>& out);
  size_t event_bytes_max_;
  std::string line_;  // begun, not ended
  bool failed_ = false;
};

}  // namespace baton::discovery
