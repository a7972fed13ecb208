#include "discovery/file_discovery.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "base/file.h"
#include "base/log.h"
#include "discovery/limits.h"

namespace baton::discovery {

FileDiscovery::FileDiscovery(std::string path, std::chrono::milliseconds poll) : path_(std::move(path)), poll_(poll) {}

FileDiscovery::~FileDiscovery() { stop(); }

Result<> FileDiscovery::load() {
  BATON_TRY(std::string text, read_file(path_, kFileBytesMax));
  if (current_ && text == last_text_) return {};
  last_text_ = text;  // a bad text is reported once, not at every look
  BATON_TRY(std::vector<Member> members, parse_members(text));
  std::shared_ptr<const Membership> next;
  {
    std::lock_guard lock(mutex_);
    if (current_ && current_->members == members) return {};
    next = std::make_shared<const Membership>(Membership{current_ ? current_->generation + 1 : 1, std::move(members)});
    current_ = next;
  }
  log_info("endpoints", "file={} generation={} count={}", path_, next->generation, next->members.size());
  if (on_change_) on_change_(next);
  return {};
}

Result<> FileDiscovery::start(OnChange on_change) {
  on_change_ = std::move(on_change);
  // The watch comes first: a change between it and the first read is then read twice, not missed.
  inotify_fd_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  const std::filesystem::path parent = std::filesystem::path(path_).parent_path();
  if (inotify_fd_ >= 0) {
    inotify_add_watch(inotify_fd_, parent.empty() ? "." : parent.c_str(), IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE);
  }
  BATON_OK(load());
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { watch(); });
  return {};
}

void FileDiscovery::watch() {
  std::array<pollfd, 2> fds = {{{stop_fd_, POLLIN, 0}, {inotify_fd_, POLLIN, 0}}};
  bool failing = false;
  for (;;) {
    poll(fds.data(), inotify_fd_ >= 0 ? 2 : 1, static_cast<int>(poll_.count()));
    if (fds[0].revents != 0) return;
    std::array<char, 4096> events;
    while (inotify_fd_ >= 0 && read(inotify_fd_, events.data(), events.size()) > 0) {
    }
    const std::string before = last_text_;
    const Result<> loaded = load();
    if (!loaded && (!failing || last_text_ != before)) {
      ++rejected_;
      log_error("endpoints file refused, keeping the last good one", "file={} error=\"{}\"", path_, loaded.error().message);
    }
    failing = !loaded;
  }
}

void FileDiscovery::stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    if (write(stop_fd_, &one, sizeof one) < 0) log_error("cannot wake the endpoints watcher");
    thread_.join();
  }
  for (int* fd : {&stop_fd_, &inotify_fd_}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
}

std::shared_ptr<const Membership> FileDiscovery::current() const {
  std::lock_guard lock(mutex_);
  return current_;
}

Result<> start_cluster(FileDiscovery& files, std::string pool, std::string pool_namespace, OnClusterState on_change) {
  return files.start([pool = std::move(pool), ns = std::move(pool_namespace),
                      on_change = std::move(on_change)](std::shared_ptr<const Membership> membership) {
    auto state = std::make_shared<ClusterState>();
    state->generation = membership->generation;
    state->synced = true;
    state->pool = pool;
    state->pool_namespace = ns;
    state->members = membership->members;
    on_change(std::move(state));
  });
}

}  // namespace baton::discovery
