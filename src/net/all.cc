#include "net/all.h"

#include "net/scope.h"

namespace baton::net {
namespace {

struct Running {
  size_t left;
  Event ended;
};

Task<> counted(Task<> task, Running& running) {
  co_await std::move(task);
  if (--running.left == 0) running.ended.set();
}

}  // namespace

Task<> all(std::vector<Task<>> tasks) {
  if (tasks.empty()) co_return;
  Task<> last = std::move(tasks.back());
  tasks.pop_back();
  Running running{.left = tasks.size(), .ended = {}};
  for (auto& task : tasks) spawn_here(counted(std::move(task), running));
  co_await std::move(last);  // needs no task of its own
  if (running.left > 0) co_await running.ended.wait();
}

Task<> all(Task<> a, Task<> b) {
  std::vector<Task<>> tasks;
  tasks.push_back(std::move(a));
  tasks.push_back(std::move(b));
  co_await all(std::move(tasks));
}

}  // namespace baton::net
