#include "gateway/access_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "gateway/limits.h"

namespace baton::gateway {

AccessLog::~AccessLog() {
  flush();
  if (fd_ > 2) ::close(fd_);
}

Result<> AccessLog::open(const std::string& path) {
  path_ = path;
  fd_ = path == "-" ? 1 : ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fd_ < 0) return fail(Code::kPermissionDenied, "cannot open the access log ", path, ": ", std::strerror(errno));
  return {};
}

void AccessLog::line(std::string_view json) {
  std::lock_guard lock(mutex_);
  if (waiting_.size() + json.size() > kAccessLogBytesMax) {
    ++dropped_;
    return;
  }
  waiting_ += json;
  waiting_ += '\n';
}

void AccessLog::reopen_if_moved() {
  struct stat here{}, there{};
  if (fd_ <= 2 || ::fstat(fd_, &here) != 0) return;
  if (::stat(path_.c_str(), &there) == 0 && here.st_ino == there.st_ino && here.st_dev == there.st_dev) return;
  const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fd < 0) return;  // goes on where it was
  ::close(fd_);
  fd_ = fd;
}

void AccessLog::flush() {
  std::lock_guard writing(write_mutex_);
  std::string lines;
  {
    std::lock_guard lock(mutex_);
    lines = std::exchange(waiting_, {});
  }
  if (lines.empty() || fd_ < 0) return;
  reopen_if_moved();
  for (std::string_view rest = lines; !rest.empty();) {
    const ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      log_warn("access log lines lost", "bytes={} error={}", rest.size(), std::strerror(errno));
      return;
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace baton::gateway
