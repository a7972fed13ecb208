#pragma once
// The file in which `baton up` keeps which processes make its stack, for those who look after it by hand: a line a process,
// "name role pid port". Pure but for the functions that say so. A pid may be of yesterday: is_ours() first, then a signal.
#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/http.h"

namespace baton::stack {

struct RunningWorker {
  std::string name, role;  // "prefill-0", "prefill"
  pid_t pid = 0;
  int port = 0;
  bool operator==(const RunningWorker&) const = default;
};

std::string workers_file(const std::string& stack_dir);
std::string workers_text(const std::vector<RunningWorker>& workers);
Result<std::vector<RunningWorker>> parse_workers(std::string_view text);
Result<std::vector<RunningWorker>> read_workers(const std::string& stack_dir);  // reads the file
bool is_ours(pid_t pid);                                                        // asks the system: it runs, and is a program of ours
// GET of a worker itself, which has kHealthTimeoutMs to answer.
net::Task<Result<net::Response>> ask_worker(net::Client& client, std::string host, int port, std::string target);

}  // namespace baton::stack
