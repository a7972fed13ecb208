#pragma once
// SseParser: server-sent events from bytes in pieces of any size. The same bytes give the same events however they are cut.
// Accepts LF, CRLF and CR line ends, comments, several data lines an event (joined with LF), a byte order mark at the start.
// An event that the stream leaves unfinished is dropped, as the standard says; unfinished() tells.
// Source: WHATWG HTML, "Interpreting an event stream".
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/limits.h"

namespace baton::net {

struct SseEvent {
  std::string event;  // "" = "message"
  std::string data;
  bool operator==(const SseEvent&) const = default;
};

class SseParser {
 public:
  explicit SseParser(size_t event_bytes_max = kSseEventBytesMax) : event_bytes_max_(event_bytes_max) {}
  // Appends the events that `bytes` completes. kResourceExhausted for an event over the limit; the parser is spent then.
  Result<> feed(std::string_view bytes, std::vector<SseEvent>& out);
  bool unfinished() const { return has_data_ || !line_.empty(); }

 private:
  void line(std::string_view text, std::vector<SseEvent>& out);
  size_t event_bytes_max_;
  std::string line_;  // the start of a line whose end has not come
  SseEvent event_;
  bool has_data_ = false, after_cr_ = false, first_line_ = true;
};

}  // namespace baton::net
