#include "stack/workers.h"

#include <filesystem>
#include <sstream>

#include "base/file.h"
#include "stack/limits.h"

namespace baton::stack {

std::string workers_file(const std::string& stack_dir) { return stack_dir + "/workers"; }

std::string workers_text(const std::vector<RunningWorker>& workers) {
  std::string out;
  for (const auto& w : workers) out += cat(w.name, ' ', w.role, ' ', w.pid, ' ', w.port, '\n');
  return out;
}

Result<std::vector<RunningWorker>> parse_workers(std::string_view text) {
  std::vector<RunningWorker> out;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    RunningWorker w;
    if (!(in >> w.name >> w.role >> w.pid >> w.port) || w.pid <= 1)
      return fail(Code::kInvalidArgument, "not a line of `baton up`: ", line.substr(0, 80));
    out.push_back(std::move(w));
  }
  return out;
}

Result<std::vector<RunningWorker>> read_workers(const std::string& stack_dir) {
  BATON_TRY(const std::string text, read_file(workers_file(stack_dir), kWorkersFileBytesMax));
  return parse_workers(text);
}

bool is_ours(pid_t pid) {
  std::error_code error;
  return std::filesystem::read_symlink(cat("/proc/", pid, "/exe"), error).filename().string().starts_with("baton");
}

net::Task<Result<net::Response>> ask_worker(net::Client& client, std::string host, int port, std::string target) {
  net::Call call;
  call.host = std::move(host), call.port = port, call.target = std::move(target);
  call.connect_timeout = call.first_byte_timeout = net::Millis(kHealthTimeoutMs);
  co_return co_await client.fetch(std::move(call));
}

}  // namespace baton::stack
