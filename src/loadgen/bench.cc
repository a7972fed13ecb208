#include "loadgen/bench.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "base/clock.h"
#include "loadgen/arrivals.h"
#include "loadgen/limits.h"
#include "loadgen/runner.h"

namespace baton::loadgen {
namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::string date_text() {
  const std::time_t now = unix_seconds();
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &local);
  return text;
}

net::Task<Result<BenchReport>> run(const BenchConfig& config, const BenchPlan& plan, const OnProgress& on_progress) {
  const SteadyClock clock;
  Runner runner(config, plan, clock, on_progress);
  BATON_CO_TRY(const std::string model, co_await runner.find_model());
  runner.set_model(model);
  std::vector<Prompt> prompts;
  if (config.dataset_path.empty()) {
    prompts = random_prompts(config);
    co_await runner.align(prompts);
  } else {
    BATON_CO_TRY(prompts, load_dataset(config));
  }
  for (int i = 0; i < config.num_warmups; ++i)
    (void)co_await runner.send(prompts[i % prompts.size()], cat("warmup-", i), clock.now_ns());
  const auto due = arrival_times(prompts.size(), config.request_rate, config.burstiness, static_cast<uint64_t>(config.seed));
  const double cpu_before = cpu_seconds();
  const int64_t begin = clock.now_ns();
  auto outcomes = co_await runner.load(prompts, due, config.max_concurrency);
  const double seconds = static_cast<double>(clock.now_ns() - begin) * 1e-9;
  const double cpu = cpu_seconds() - cpu_before;
  BenchReport report = make_report(std::move(outcomes), seconds, plan);
  report.client_cpu_share = seconds > 0 ? cpu / seconds : 0;
  report.model = model;
  report.date = date_text();
  co_return report;
}

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60) : fmt::format("{:02}:{:02}", s / 60, s % 60);
}

// A bar on a terminal, at most ten lines anywhere else.
class ProgressLine {
 public:
  explicit ProgressLine(bool off) : off_(off), terminal_(isatty(STDERR_FILENO) != 0) {}
  void show(const Progress& p) {
    if (off_ || p.total == 0) return;
    const bool last = p.done == p.total;
    const int tenth = p.done * 10 / p.total;
    if (!last && (terminal_ ? p.elapsed_s < shown_s_ + 0.1 : tenth == tenth_)) return;
    shown_s_ = p.elapsed_s;
    tenth_ = tenth;
    const double rate = p.elapsed_s > 0 ? p.done / p.elapsed_s : 0;
    const std::string left = rate > 0 ? clock_text((p.total - p.done) / rate) : "?";
    const std::string failed = p.failed > 0 ? fmt::format(", {} failed", p.failed) : "";
    const std::string counts =
        fmt::format("{}/{} [{}<{}, {:.2f}it/s{}]", p.done, p.total, clock_text(p.elapsed_s), left, rate, failed);
    if (!terminal_) {
      fmt::print(stderr, "{}\n", counts);
      return;
    }
    constexpr int kWidth = 30;
    const int full = p.done * kWidth / p.total;
    std::string bar;
    for (int i = 0; i < kWidth; ++i) bar += i < full ? "█" : " ";
    fmt::print(stderr, "\r\x1b[K{:3}%|{}| {}{}", p.done * 100 / p.total, bar, counts, last ? "\n" : "");
    std::fflush(stderr);
  }

 private:
  bool off_, terminal_;
  double shown_s_ = -1;
  int tenth_ = -1;
};

void print_errors(const BenchReport& report) {
  std::map<std::string, int> counts;
  for (const Outcome& o : report.outcomes) {
    if (!o.ok) ++counts[o.error];
  }
  size_t shown = 0;
  for (const auto& [error, n] : counts) {
    if (shown++ == kDistinctErrorsShown) break;
    fmt::print(stderr, "{} request(s) failed: {}\n", n, error);
  }
}

Result<> save(const BenchReport& report, const BenchConfig& config, const BenchPlan& plan) {
  const std::string path = result_filename(report, config);
  std::error_code ec;
  if (!config.result_dir.empty()) std::filesystem::create_directories(config.result_dir, ec);
  const bool more = config.append_result && std::filesystem::exists(path, ec) && std::filesystem::file_size(path, ec) > 0;
  std::ofstream out(path, config.append_result ? std::ios::app : std::ios::trunc);
  if (more) out << "\n";
  out << report_json(report, config, plan);
  out.flush();
  if (!out) return fail(Code::kUnavailable, "cannot write ", path);
  fmt::print("saved {}\n", path);
  return {};
}

}  // namespace

Result<BenchReport> run_bench(const BenchConfig& config, const OnProgress& on_progress) {
  BATON_TRY(const BenchPlan plan, check_config(config));
  Result<BenchReport> report = fail(Code::kCancelled, "stopped");
  net::run_task([&]() -> net::Task<> { report = co_await run(config, plan, on_progress); });
  return report;
}

Result<> bench(const BenchConfig& config) {
  BATON_TRY(const BenchPlan plan, check_config(config));
  ProgressLine line(config.disable_tqdm);
  BATON_TRY(const BenchReport report, run_bench(config, [&](const Progress& p) { line.show(p); }));
  std::fputs(report_text(report, config, plan).c_str(), stdout);
  print_errors(report);
  if (config.save_result || config.append_result) BATON_OK(save(report, config, plan));
  if (report.completed == 0) return fail(Code::kUnavailable, "no request succeeded");
  return {};
}

}  // namespace baton::loadgen
