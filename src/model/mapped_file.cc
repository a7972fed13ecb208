#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace baton::model {
namespace {

Code errno_code(int e) {
  if (e == ENOENT || e == ENOTDIR) return Code::kNotFound;
  if (e == EACCES || e == EPERM) return Code::kPermissionDenied;
  return Code::kUnavailable;
}

std::unexpected<Error> errno_fail(const std::string& path, std::string_view what) {
  const int e = errno;
  return fail(errno_code(e), path, ": cannot ", what, ": ", std::strerror(e));
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno_fail(path, "open");
  struct stat st{};
  if (::fstat(fd, &st) != 0) {
    auto error = errno_fail(path, "stat");
    ::close(fd);
    return error;
  }
  if (!S_ISREG(st.st_mode) || st.st_size == 0) {
    ::close(fd);
    return fail(Code::kInvalidArgument, path, S_ISREG(st.st_mode) ? ": is empty" : ": is not a regular file");
  }
  const size_t size = static_cast<size_t>(st.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (address == MAP_FAILED) {
    auto error = errno_fail(path, "map");
    ::close(fd);
    return error;
  }
  ::close(fd);
  ::madvise(address, size, MADV_WILLNEED);  // a hint: failure only costs time
  return MappedFile({static_cast<const std::byte*>(address), size});
}

void MappedFile::release(std::span<const std::byte> part) const {
  if (part.empty() || part.data() < bytes_.data() || part.data() + part.size() > bytes_.data() + bytes_.size()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);  // a hint: failure only costs memory
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace baton::model
