#include "stack/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/file.h"
#include "net/all.h"
#include "net/http.h"
#include "stack/limits.h"
#include "stack/process.h"
#include "stack/pull.h"
#include "stack/status.h"
#include "stack/workers.h"

namespace baton::stack {
namespace fs = std::filesystem;

std::string default_state_dir() {
  if (const char* xdg = std::getenv("XDG_STATE_HOME")) return cat(xdg, "/baton");
  const char* home = std::getenv("HOME");
  return cat(home != nullptr ? home : "/tmp", "/.local/state/baton");
}

Options down_options(DownConfig& c) {
  Options o("baton down", "stop a stack that `baton up --detach` left running", "baton down [--port P]");
  o.add("port", &c.port, "port", "the gateway's port, which names the stack", 1, 65535);
  o.add("state-dir", &c.state_dir, "as given to `baton up`; empty = ~/.local/state/baton").env("BATON_STATE_DIR");
  return o;
}

namespace {

struct Worker {
  WorkerSpec spec;
  std::optional<Process> process;
  WorkerStatus status;
  std::ofstream log;
  std::deque<std::string> tail;  // last lines, shown if it cannot start
  bool was_ready = false, ready_this_life = false;
  int failed_starts = 0;
  int backoff_ms = kRestartBackoffMsMin;
  int64_t start_at_ms = 0, started_ms = 0;
};

class Supervisor {
 public:
  Supervisor(StackConfig config, StackPlan plan, std::string dir)
      : config_(std::move(config)), dir_(std::move(dir)), view_(isatty(1) == 1) {
    for (auto& spec : plan.workers) {
      Worker w{.spec = std::move(spec), .process = {}, .status = {}, .log = {}, .tail = {}};
      w.status.name = w.spec.name, w.status.port = w.spec.port, w.status.state = "starting";
      w.status.is_engine = w.spec.role != Role::kSidecar && w.spec.role != Role::kRouter;
      w.log.open(cat(dir_, "/", w.spec.name, ".log"));
      workers_.push_back(std::move(w));
    }
    url_ = cat("http://", config_.host, ":", plan.router_port);
  }

  // on_ready is called once, when every worker answered its health check and the router knows them all.
  Result<> run(const std::function<void()>& on_ready);

 private:
  Result<> start(Worker& w);
  Result<> reap();
  void take_line(Worker& w, std::string_view line);
  void write_workers() const;
  void check_health();
  net::Task<> check_health(net::Client& client, Worker& w);
  void stop_all();
  bool all_ready() const {
    return std::all_of(workers_.begin(), workers_.end(), [](const Worker& w) { return w.status.state == "ready"; });
  }
  int endpoints() const {
    return static_cast<int>(std::count_if(workers_.begin(), workers_.end(), [this](const Worker& w) {
      return config_.prefill > 0 ? w.spec.role == Role::kPrefill || w.spec.role == Role::kSidecar : w.status.is_engine;
    }));
  }
  void say(const std::string& line) { view_.event(line); }
  void draw();

  StackConfig config_;
  std::string dir_, url_;
  SteadyClock clock_;
  StatusView view_;
  std::vector<Worker> workers_;
  int signals_ = -1;
  bool ready_told_ = false, router_knows_all_ = false;
  int64_t began_ms_ = 0, health_at_ms_ = 0;
};

Result<> Supervisor::start(Worker& w) {
  auto p = Process::spawn(w.spec.argv);
  if (!p) return std::unexpected(p.error());
  w.process = std::move(*p);
  w.started_ms = clock_.now_ms();
  w.status.state = "starting", w.ready_this_life = false;
  w.tail.clear();
  write_workers();
  return {};
}

// For `baton verify --faults`. Whoever reads it checks the process, so an old file harms nobody.
void Supervisor::write_workers() const {
  std::vector<RunningWorker> all;
  for (const auto& w : workers_) {
    if (w.process) all.push_back({.name = w.spec.name, .role = std::string(role_name(w.spec.role)), .pid = w.process->pid(), .port = w.spec.port});
  }
  if (auto r = write_file(workers_file(dir_), workers_text(all)); !r) fmt::print(stderr, "{}\n", r.error().message);
}

void Supervisor::take_line(Worker& w, std::string_view line) {
  w.log << line << '\n' << std::flush;
  if (size_t at = line.find("loading weights percent="); at != std::string_view::npos && w.status.state != "ready") {
    w.status.state = cat("loading ", line.substr(at + 24, line.find(' ', at + 24) - at - 24), "%");
  }
  w.tail.emplace_back(line);
  if (w.tail.size() > 12) w.tail.pop_front();
}

Result<> Supervisor::reap() {
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    for (auto& w : workers_) {
      if (!w.process || w.process->pid() != pid) continue;
      w.process->read_lines([&](std::string_view line) { take_line(w, line); });
      w.process->reaped();
      w.process.reset();
      w.status.state = "restarting";
      ++w.status.restarts;
      w.backoff_ms = w.ready_this_life ? kRestartBackoffMsMin : std::min(w.backoff_ms * 2, kRestartBackoffMsMax);
      w.start_at_ms = clock_.now_ms() + w.backoff_ms;
      if (!w.was_ready && ++w.failed_starts >= 2) {
        std::string lines;
        for (const auto& line : w.tail) lines += cat("\n  ", line);
        return fail(Code::kUnavailable, w.spec.name, " cannot start: ", describe_exit(status), ". Its last lines:", lines,
                    "\nWhole log: ", dir_, "/", w.spec.name, ".log");
      }
      say(cat(w.spec.name, " ended (", describe_exit(status), "), starting it again in ", w.backoff_ms, " ms"));
    }
  }
  return {};
}

void Supervisor::check_health() {
  net::run_task([this]() -> net::Task<> {
    net::Client client;
    std::vector<net::Task<>> all;  // at once: one that hangs holds up nobody's restart for longer than its own probe
    for (auto& w : workers_) {
      if (w.process) all.push_back(check_health(client, w));
    }
    co_await net::all(std::move(all));
  });
}

net::Task<> Supervisor::check_health(net::Client& client, Worker& w) {
  auto r = co_await ask_worker(client, config_.host, w.spec.port, "/health");
  bool ok = r && r->status == 200;
  if (ok && w.status.state != "ready") {
    view_.event(cat(w.spec.name, " ready on port ", w.spec.port, " after ",
                    static_cast<double>((clock_.now_ms() - w.started_ms) / 100) / 10, " s"));
    w.status.state = "ready", w.was_ready = w.ready_this_life = true;
  } else if (!ok && w.status.state == "ready") {
    w.status.state = "not answering";
  }
  const bool ask_router = w.spec.role == Role::kRouter && !ready_told_;
  if (!ok || !(w.status.is_engine || ask_router)) co_return;
  auto m = co_await ask_worker(client, config_.host, w.spec.port, "/metrics");
  if (m && ask_router) router_knows_all_ = endpoints_up(m->body) == endpoints();
  if (m && w.status.is_engine) read_metrics(m->body, w.status);
}

void Supervisor::draw() {
  std::vector<WorkerStatus> all;
  for (const auto& w : workers_) all.push_back(w.status);
  view_.draw(cat("baton  ", url_, "  ", fs::path(config_.model).filename().string(), "  up ",
                 (clock_.now_ms() - began_ms_) / 1000, " s   Ctrl-C drains and stops"),
             all);
}

// Router first so that nothing new comes in, then sidecars, then engines: reverse start order, each group drained by itself.
void Supervisor::stop_all() {
  int64_t deadline = clock_.now_ms() + kDrainMs;
  for (size_t i = workers_.size(); i-- > 0;) {
    Worker& w = workers_[i];
    if (!w.process) continue;
    w.process->signal(SIGTERM);
    bool killed = false;
    for (;;) {
      int status = 0;
      w.process->read_lines([&](std::string_view line) { take_line(w, line); });
      if (waitpid(w.process->pid(), &status, WNOHANG) != 0) break;
      if (!killed && clock_.now_ms() > deadline) {
        say(cat(w.spec.name, " did not drain in time, killed"));
        w.process->signal(SIGKILL);
        killed = true;
      }
      poll(nullptr, 0, 10);
    }
    w.process->reaped();
    w.process.reset();
    w.status.state = "stopped";
  }
}

Result<> Supervisor::run(const std::function<void()>& on_ready) {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&set, s);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  began_ms_ = clock_.now_ms();
  for (auto& w : workers_) {
    if (auto r = start(w); !r) return stop_all(), std::unexpected(r.error());
  }
  for (bool stopping = false; !stopping;) {
    std::vector<pollfd> fds{{signals_, POLLIN, 0}};
    for (auto& w : workers_) fds.push_back({w.process ? w.process->output_fd() : -1, POLLIN, 0});
    poll(fds.data(), fds.size(), 100);
    for (auto& w : workers_) {
      if (w.process) w.process->read_lines([&](std::string_view line) { take_line(w, line); });
    }
    signalfd_siginfo info;
    while (read(signals_, &info, sizeof info) == sizeof info) stopping |= info.ssi_signo != SIGCHLD;
    if (auto r = reap(); !r) return stop_all(), std::unexpected(r.error());
    int64_t now = clock_.now_ms();
    for (auto& w : workers_) {
      if (!w.process && !stopping && now >= w.start_at_ms) {
        if (auto r = start(w); !r) return stop_all(), std::unexpected(r.error());
      }
    }
    if (now >= health_at_ms_ && !stopping) {
      check_health();
      health_at_ms_ = clock_.now_ms() + (ready_told_ && all_ready() ? 1000 : 100);
      draw();
    }
    if (all_ready() && router_knows_all_ && !ready_told_) {
      ready_told_ = true;
      say(cat("stack ready: ", url_, "  logs: ", dir_));
      on_ready();
    }
  }
  view_.close();
  say("draining: no new requests, those in flight may end");
  stop_all();
  close(signals_);
  say("stopped");
  return {};
}

// The detached child's standard output is a pipe to us: we show its lines until it says it is ready, or ends.
Result<> follow_until_ready(int fd, pid_t child) {
  std::string text;
  char buf[1024];
  for (ssize_t n; (n = read(fd, buf, sizeof buf)) > 0;)
    text.append(buf, static_cast<size_t>(n)), fwrite(buf, 1, static_cast<size_t>(n), stdout), fflush(stdout);
  int status = 0;
  if (waitpid(child, &status, WNOHANG) == 0) return {};
  return fail(Code::kUnavailable, "the stack did not start");
}

}  // namespace

Result<> up(StackConfig config) {
  if (config.bin_dir.empty()) config.bin_dir = fs::read_symlink("/proc/self/exe").parent_path().string();
  if (config.state_dir.empty()) config.state_dir = default_state_dir();
  if (config.model.empty()) {
    BATON_TRY(config.model,
              pull(std::string(known_models()[0].name), {.model_dir = config.model_dir, .sha256 = "", .quiet = false}));
  }
  if (!fs::exists(config.model)) {
    return fail(Code::kNotFound, "no model at ", config.model,
                ": give a GGUF file or a Hugging Face directory, or `baton pull` one");
  }
  BATON_TRY(std::vector<int> ports, free_ports(ports_needed(config)));
  if (config.port != 0) ports[0] = config.port;
  std::string dir = cat(config.state_dir, "/", ports[0]);
  std::error_code ec;
  fs::create_directories(dir, ec);
  if (ec) return fail(Code::kPermissionDenied, "cannot make ", dir, ": ", ec.message());
  std::string endpoints = cat(dir, "/endpoints.json");
  BATON_TRY(StackPlan plan, make_plan(config, ports, endpoints, static_cast<int>(std::thread::hardware_concurrency())));
  BATON_OK(write_file(endpoints, plan.endpoints));
  auto supervise = [&](const std::function<void()>& on_ready) -> Result<> {
    BATON_OK(write_file(cat(dir, "/supervisor.pid"), cat(getpid(), "\n")));
    Supervisor supervisor(config, std::move(plan), dir);
    auto r = supervisor.run(on_ready);
    fs::remove(cat(dir, "/supervisor.pid"), ec);
    fs::remove(workers_file(dir), ec);
    return r;
  };
  if (!config.detach) return supervise([] {});
  int out[2];
  if (pipe2(out, O_CLOEXEC) != 0) return fail(Code::kResourceExhausted, "no pipe");
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) return fail(Code::kResourceExhausted, "cannot fork");
  if (child > 0) {
    close(out[1]);
    return follow_until_ready(out[0], child);
  }
  setsid();
  dup2(out[1], 1);
  close(out[1]);
  int log = open(cat(dir, "/up.log").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(null, 0);
  auto r = supervise([&] { fflush(stdout), dup2(log, 1), dup2(log, 2); });
  if (!r) fmt::print(stdout, "{}\n", r.error().message), fflush(stdout);
  _exit(r ? 0 : 1);
}

Result<> down(const DownConfig& config) {
  std::string state = config.state_dir.empty() ? default_state_dir() : config.state_dir;
  std::string path = cat(state, "/", config.port, "/supervisor.pid");
  std::ifstream in(path);
  pid_t pid = 0;
  if (!(in >> pid) || pid <= 1 || kill(pid, 0) != 0) {
    return fail(Code::kNotFound, "no detached stack on port ", config.port, " (looked at ", path, ")");
  }
  if (!is_ours(pid)) return fail(Code::kNotFound, "process ", pid, " is no program of ours; remove ", path);
  kill(pid, SIGTERM);
  for (int waited_ms = 0; kill(pid, 0) == 0; waited_ms += 50) {
    if (waited_ms > kDrainMs + 5000) return fail(Code::kDeadlineExceeded, "process ", pid, " does not stop");
    poll(nullptr, 0, 50);
  }
  fmt::print("stopped the stack on port {}\n", config.port);
  return {};
}

}  // namespace baton::stack
