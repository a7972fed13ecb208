#pragma once
// Process: a child whose output we read line by line. It dies with us (parent-death signal), so nothing is left behind on kill
// -9. Owner: the supervisor's one thread.
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

namespace baton::stack {

class Process {
 public:
  static Result<Process> spawn(const std::vector<std::string>& argv);  // stdout and stderr into one pipe
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  ~Process();  // SIGKILL and reap if still running

  pid_t pid() const { return pid_; }
  int output_fd() const { return fd_; }                                // -1 once the child closed it
  void read_lines(const std::function<void(std::string_view)>& line);  // what is there now; never blocks
  void signal(int number) const;
  void reaped() { pid_ = -1; }  // somebody waited for it

 private:
  Process() = default;
  pid_t pid_ = -1;
  int fd_ = -1;
  std::string partial_;
};

std::string describe_exit(int wait_status);  // "exit status 2", "killed by signal 9"

}  // namespace baton::stack
