#include "net/sse.h"

#include <utility>

namespace baton::net {

Result<> SseParser::feed(std::string_view bytes, std::vector<SseEvent>& out) {
  while (!bytes.empty()) {
    if (std::exchange(after_cr_, false) && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      continue;
    }
    size_t end = bytes.find_first_of("\r\n");
    size_t taken = end == std::string_view::npos ? bytes.size() : end;
    if (line_.size() + event_.data.size() + taken > event_bytes_max_) {
      return fail(Code::kResourceExhausted, "server-sent event is over the limit of ", event_bytes_max_, " bytes");
    }
    if (end == std::string_view::npos) {
      line_ += bytes;
      return {};
    }
    if (line_.empty()) {
      line(bytes.substr(0, end), out);
    } else {
      line_ += bytes.substr(0, end);
      line(line_, out);
      line_.clear();
    }
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
  }
  return {};
}

void SseParser::line(std::string_view text, std::vector<SseEvent>& out) {
  if (std::exchange(first_line_, false) && text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  if (text.empty()) {
    if (has_data_) out.push_back(std::move(event_));
    event_ = {};
    has_data_ = false;
    return;
  }
  size_t colon = text.find(':');
  std::string_view name = text.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "data") {
    if (std::exchange(has_data_, true)) event_.data += '\n';
    event_.data += value;
  } else if (name == "event") {
    event_.event = value;
  }
  // Comments (empty name), id, retry and unknown fields: nobody here resumes a stream.
}

}  // namespace baton::net
