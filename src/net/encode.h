#pragma once
// Writes HTTP/1.1 heads and chunk frames. Guarantees: no field value written here can start a new line (CR, LF and NUL become
// spaces), so a handler that echoes a stranger's text cannot split a response.
#include <cstdint>
#include <string>
#include <string_view>

#include "net/http.h"

namespace baton::net {

void append_status_line(std::string& out, int status);
void append_field(std::string& out, std::string_view name, std::string_view value);
// All of `headers` but hop-by-hop fields, Content-Length and Date, which the caller decides.
void append_fields(std::string& out, const Headers& headers);

std::optional<uint64_t> declared_length(const Headers& headers);  // Content-Length, if it is one number

// "1f\r\n" for a chunk of 31 bytes.
class ChunkHead {
 public:
  explicit ChunkHead(size_t bytes);
  std::string_view text() const { return {text_, size_}; }

 private:
  char text_[20];
  size_t size_;
};

// "Sun, 06 Nov 1994 08:49:37 GMT", made anew once a second.
class HttpDate {
 public:
  std::string_view now();

 private:
  int64_t second_ = -1;
  char text_[32] = {};
};

}  // namespace baton::net
