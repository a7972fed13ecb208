#include "net/encode.h"

#include <charconv>
#include <ctime>

#include "base/clock.h"
#include "wire/errors.h"

namespace baton::net {

void append_status_line(std::string& out, int status) {
  out += "HTTP/1.1 ";
  out += std::to_string(status);
  out += ' ';
  out += wire::reason_phrase(status);
  out += "\r\n";
}

void append_field(std::string& out, std::string_view name, std::string_view value) {
  out += name;
  out += ": ";
  for (char c : value) out += c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
  out += "\r\n";
}

void append_fields(std::string& out, const Headers& headers) {
  for (const auto& [name, value] : headers.fields()) {
    if (is_hop_by_hop(name) || same_header_name(name, "content-length") || same_header_name(name, "date")) continue;
    if (name.find_first_of("\r\n: ") != std::string::npos || name.empty()) continue;
    append_field(out, name, value);
  }
}

std::optional<uint64_t> declared_length(const Headers& headers) {
  auto text = headers.get("content-length");
  uint64_t n = 0;
  if (!text) return std::nullopt;
  auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), n);
  if (ec != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return n;
}

ChunkHead::ChunkHead(size_t bytes) {
  auto [end, ec] = std::to_chars(text_, text_ + 16, bytes, 16);
  *end++ = '\r';
  *end++ = '\n';
  size_ = static_cast<size_t>(end - text_);
}

std::string_view HttpDate::now() {
  if (int64_t now = unix_seconds(); now != second_) {
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    second_ = now;
    std::time_t t = now;
    std::tm tm{};
    gmtime_r(&t, &tm);
    std::snprintf(text_, sizeof text_, "%s, %02d %s %04d %02d:%02d:%02d GMT", kDays[tm.tm_wday], tm.tm_mday, kMonths[tm.tm_mon],
                  tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
  }
  return text_;
}

}  // namespace baton::net
