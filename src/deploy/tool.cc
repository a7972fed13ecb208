#include "deploy/tool.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/clock.h"

extern char** environ;

namespace baton::deploy {
namespace {

class Tool {
 public:
  ~Tool() {
    for (const pollfd& p : outputs_) {
      if (p.fd >= 0) ::close(p.fd);
    }
    if (pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  Result<> start(std::vector<std::string> argv) {
    int ends[2][2];
    for (size_t i = 0; i < 2; ++i) {
      if (::pipe2(ends[i], O_CLOEXEC) != 0) return fail(Code::kResourceExhausted, "no pipe for ", argv[0]);
      outputs_[i] = {ends[i][0], POLLIN, 0};
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    for (int i = 0; i < 2; ++i) posix_spawn_file_actions_adddup2(&actions, ends[i][1], i + 1);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    std::vector<char*> words;
    for (std::string& word : argv) words.push_back(word.data());
    words.push_back(nullptr);
    const int error = ::posix_spawnp(&pid_, words[0], &actions, &attributes, words.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    for (auto& end : ends) ::close(end[1]);
    if (error == 0) return {};
    pid_ = -1;
    return fail(Code::kNotFound, "cannot run ", argv[0]);
  }

  // texts: standard output and error, until both are closed.
  Result<> read(std::string (&texts)[2], int64_t end_ms, size_t bytes_max) {
    const SteadyClock clock;
    std::vector<char> part(64 << 10);
    while (outputs_[0].fd >= 0 || outputs_[1].fd >= 0) {
      const int64_t left = end_ms - clock.now_ms();
      if (left <= 0) return fail(Code::kDeadlineExceeded, "took too long");
      if (::poll(outputs_, 2, static_cast<int>(left)) <= 0) continue;
      for (size_t i = 0; i < 2; ++i) {
        if (outputs_[i].fd < 0 || outputs_[i].revents == 0) continue;
        const ssize_t n = ::read(outputs_[i].fd, part.data(), part.size());
        if (n > 0) texts[i].append(part.data(), static_cast<size_t>(n));
        if (n <= 0) ::close(std::exchange(outputs_[i].fd, -1));
        if (texts[i].size() > bytes_max) return fail(Code::kResourceExhausted, "wrote over ", bytes_max, " bytes");
      }
    }
    return {};
  }

  bool succeeded() {
    int status = 0;
    const bool reaped = ::waitpid(pid_, &status, 0) == pid_;
    pid_ = -1;
    return reaped && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

 private:
  pid_t pid_ = -1;
  pollfd outputs_[2] = {{-1, 0, 0}, {-1, 0, 0}};
};

}  // namespace

Result<std::string> run_tool(const std::vector<std::string>& argv, int timeout_ms, size_t bytes_max) {
  Tool tool;
  BATON_OK(tool.start(argv));
  std::string texts[2];
  const std::string name = argv[0].substr(argv[0].rfind('/') + 1);
  if (auto read = tool.read(texts, SteadyClock().now_ms() + timeout_ms, bytes_max); !read)
    return within(name, std::move(read).error());
  if (tool.succeeded()) return std::move(texts[0]);
  std::string& said = texts[1].empty() ? texts[0] : texts[1];
  while (said.ends_with('\n')) said.pop_back();
  return fail(Code::kFailedPrecondition, name, ": ", said);
}

std::string find_tool(const std::string& name) {
  if (name.find('/') != name.npos) return ::access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = std::getenv("PATH");
  for (std::string_view rest = path == nullptr ? "" : path; !rest.empty();) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(folder.size() + 1, rest.size()));
    std::string file = cat(folder, "/", name);
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

}  // namespace baton::deploy
