#pragma once
// AccessLog: one JSON line a request, appended to a file that may be rotated away (it is opened again by its name) or to standard
// output. Lines wait in memory for flush(), which the gateway calls ten times a second; over kAccessLogBytesMax of them lines are
// dropped and counted: a full disk must not stop requests. Threads: any.
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "base/result.h"

namespace baton::gateway {

class AccessLog {
 public:
  AccessLog() = default;
  ~AccessLog();
  Result<> open(const std::string& path);  // "-" = standard output
  bool on() const { return fd_ >= 0; }
  void line(std::string_view json);
  void flush();
  uint64_t dropped() const { return dropped_; }

 private:
  void reopen_if_moved();
  std::string path_;
  int fd_ = -1;  // changed only by open() and flush()
  std::mutex mutex_, write_mutex_;
  std::string waiting_;
  uint64_t dropped_ = 0;
};

}  // namespace baton::gateway
