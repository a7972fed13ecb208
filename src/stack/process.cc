#include "stack/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "stack/limits.h"

namespace baton::stack {

Result<Process> Process::spawn(const std::vector<std::string>& argv) {
  int out[2], err[2];  // err: tells the parent why exec failed; closed by a successful exec
  if (pipe2(out, O_CLOEXEC) != 0) return fail(Code::kResourceExhausted, "pipe: ", std::strerror(errno));
  if (pipe2(err, O_CLOEXEC) != 0) {
    close(out[0]), close(out[1]);
    return fail(Code::kResourceExhausted, "pipe: ", std::strerror(errno));
  }
  std::vector<char*> args;
  for (const auto& a : argv) args.push_back(const_cast<char*>(a.c_str()));
  args.push_back(nullptr);
  pid_t pid = fork();
  if (pid == 0) {  // only async-signal-safe calls from here on
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    setpgid(0, 0);  // a terminal's Ctrl-C is for the supervisor, which drains in order
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0), dup2(out[1], 1), dup2(out[1], 2);
    execv(args[0], args.data());
    int code = errno;
    [[maybe_unused]] ssize_t n = write(err[1], &code, sizeof code);
    _exit(127);
  }
  close(out[1]), close(err[1]);
  int code = 0;
  bool failed = pid < 0 || read(err[0], &code, sizeof code) == sizeof code;
  close(err[0]);
  if (failed) {
    close(out[0]);
    if (pid > 0) waitpid(pid, nullptr, 0);
    return fail(Code::kNotFound, "cannot start ", argv[0], ": ", std::strerror(pid < 0 ? errno : code));
  }
  fcntl(out[0], F_SETFL, O_NONBLOCK);
  Process p;
  p.pid_ = pid, p.fd_ = out[0];
  return p;
}

Process::Process(Process&& o) noexcept
    : pid_(std::exchange(o.pid_, -1)), fd_(std::exchange(o.fd_, -1)), partial_(std::move(o.partial_)) {}

Process& Process::operator=(Process&& o) noexcept {
  std::swap(pid_, o.pid_), std::swap(fd_, o.fd_), std::swap(partial_, o.partial_);
  return *this;
}

Process::~Process() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (fd_ >= 0) close(fd_);
}

void Process::read_lines(const std::function<void(std::string_view)>& line) {
  char buf[8192];
  while (fd_ >= 0) {
    ssize_t n = read(fd_, buf, sizeof buf);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    if (n == 0) {
      if (!partial_.empty()) line(std::exchange(partial_, {}));
      close(std::exchange(fd_, -1));
      return;
    }
    partial_.append(buf, static_cast<size_t>(n));
    size_t from = 0;
    for (size_t end; (end = partial_.find('\n', from)) != std::string::npos; from = end + 1) {
      line(std::string_view(partial_).substr(from, end - from));
    }
    partial_.erase(0, from);
    if (partial_.size() > kLogLineBytesMax) line(std::exchange(partial_, {}));
  }
}

void Process::signal(int number) const {
  if (pid_ > 0) kill(pid_, number);
}

std::string describe_exit(int status) {
  if (WIFEXITED(status)) return cat("exit status ", WEXITSTATUS(status));
  if (WIFSIGNALED(status)) return cat("killed by signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)), ")");
  return "stopped";
}

}  // namespace baton::stack
