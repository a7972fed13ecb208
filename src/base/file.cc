#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace baton {
namespace {

std::unexpected<Error> errno_fail(const std::string& path) {
  const int e = errno;
  const Code code = e == ENOENT || e == ENOTDIR ? Code::kNotFound
                    : e == EACCES || e == EPERM ? Code::kPermissionDenied
                                                : Code::kUnavailable;
  return fail(code, "cannot read ", path, ": ", std::strerror(e));
}

}  // namespace

Result<std::string> read_file(const std::string& path, size_t bytes_max) {
  constexpr size_t kFirstBytes = 16 << 10;  // of what does not say its size: /proc, pipes
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno_fail(path);
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat st{};
  if (::fstat(fd, &st) != 0) return errno_fail(path);
  if (S_ISDIR(st.st_mode)) return fail(Code::kInvalidArgument, "cannot read ", path, ": it is a directory");
  const auto size = static_cast<size_t>(std::max<off_t>(st.st_size, 0));
  if (size > bytes_max) return fail(Code::kResourceExhausted, path, " has ", size, " bytes, the limit is ", bytes_max);
  std::string text(std::max(size, std::min(kFirstBytes, bytes_max)) + 1, '\0');  // one more, to see the end
  size_t have = 0;
  for (;;) {
    const ssize_t n = ::read(fd, text.data() + have, text.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_fail(path);
    if (n == 0) break;
    have += static_cast<size_t>(n);
    if (have > bytes_max) return fail(Code::kResourceExhausted, path, " is over ", bytes_max, " bytes");
    if (have == text.size()) text.resize(std::min(2 * have, bytes_max + 1));
  }
  text.resize(have);
  return text;
}

Result<> write_file(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) return fail(Code::kPermissionDenied, "cannot write ", path);
  return {};
}

}  // namespace baton
