#include "stack/faults.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/prng.h"
#include "net/all.h"
#include "stack/limits.h"
#include "stack/status.h"
#include "stack/supervisor.h"
#include "stack/workers.h"

namespace baton::stack {
namespace {

using Verdict = CheckResult::Verdict;

struct Fault {
  std::string_view name, role;
  int signal;  // SIGSTOP: for kFreezeMs
};
constexpr Fault kFaults[] = {
    {"kill prefill", "prefill", SIGKILL},  {"kill decode", "decode", SIGKILL},     {"kill sidecar", "sidecar", SIGKILL},
    {"kill engine", "engine", SIGKILL},    {"freeze prefill", "prefill", SIGSTOP}, {"freeze decode", "decode", SIGSTOP},
    {"freeze engine", "engine", SIGSTOP},
};
constexpr int kFreezeMs = 2000, kStrikeEveryMs = 3000;
constexpr int kAskers = 4, kPrompts = 8, kPromptWords = 60, kMaxTokens = 24;
constexpr int kAfterErrorMs = 500;
constexpr int kSettleMs = 60'000;  // longer than a lease and its grace
constexpr int kLookEveryMs = 100;

// The child lives on when we are stopped, in a session of its own: Ctrl-C does not reach it.
void freeze(pid_t pid) {
  const pid_t child = fork();
  if (child > 0) waitpid(child, nullptr, 0);
  if (child != 0) return;
  setsid();
  if (fork() == 0) {  // nobody has to wait for it
    kill(pid, SIGSTOP);
    poll(nullptr, 0, kFreezeMs);
    kill(pid, SIGCONT);
  }
  _exit(0);
}

class FaultRun {
 public:
  FaultRun(const VerifyConfig& config, const Url& url, Asker& asker)
      : config_(config), url_(url), asker_(asker),
        dir_(cat(config.state_dir.empty() ? default_state_dir() : config.state_dir, "/", url.port)) {}

  net::Task<std::vector<CheckResult>> run();

 private:
  net::Task<bool> quiet();
  net::Task<> strike();
  net::Task<> ask_on(uint64_t seed);
  net::Task<> ask(size_t prompt, bool streamed);
  // What must be so, soon after the last fault.
  struct Aftermath {
    std::string_view name, good, advice;
    net::Task<std::string> (FaultRun::*missing)();  // "": nothing is
  };
  net::Task<> settle(const Aftermath& aftermath);  // asks until nothing is missing, for kSettleMs at most
  net::Task<std::string> late();                   // who has not come back
  net::Task<std::string> held();                   // by whom, and what
  static const Aftermath kAftermath[];

  void result(Verdict verdict, std::string name, std::string detail, std::string advice = "") {
    results_.push_back({.verdict = verdict, .name = std::move(name), .detail = std::move(detail), .advice = std::move(advice)});
  }
  void ended(size_t prompt, bool streamed, int status, const std::string& text, const std::string& error);
  void broken(std::string what) {
    if (broken_++ == 0) first_broken_ = std::move(what);
  }
  std::string struck() const;
  bool over() const { return clock_.now_ms() >= ends_ms_; }

  const VerifyConfig& config_;
  const Url& url_;
  Asker& asker_;
  std::string dir_;
  SteadyClock clock_;
  net::Client client_;
  std::vector<std::string> prompts_, texts_;
  std::map<std::string_view, int> faults_;
  int64_t ends_ms_ = 0;
  int right_ = 0, errors_ = 0, broken_ = 0;
  std::string first_broken_;
  std::vector<CheckResult> results_;
};

const FaultRun::Aftermath FaultRun::kAftermath[] = {
    {"everybody comes back", "all workers, and the right texts", "its log is in ", &FaultRun::late},
    {"nothing is left behind", "no block, no grant, no request", "report this, with the logs in ", &FaultRun::held},
};

net::Task<std::vector<CheckResult>> FaultRun::run() {
  if (auto workers = read_workers(dir_); !workers || workers->empty()) {
    result(Verdict::kFailed, "survives faults", workers ? "no worker runs" : workers.error().message,
           cat("--faults is for a stack that `baton up` runs on this machine, as this user; looked at ", dir_, " (--state-dir)"));
    co_return results_;
  }
  if (!co_await quiet()) co_return results_;
  ends_ms_ = clock_.now_ms() + int64_t{1000} * config_.faults_s;
  std::vector<net::Task<>> all;
  all.push_back(strike());
  for (int i = 0; i < kAskers; ++i) all.push_back(ask_on(secure_random_u64()));
  co_await net::all(std::move(all));
  const std::string detail = fmt::format("{} right, {} clear errors; {}", right_, errors_, struck());
  if (broken_ > 0) {
    result(Verdict::kFailed, "survives faults", cat(detail, "; ", broken_, " wrong or broken: ", first_broken_),
           cat("report this, with the logs in ", dir_));
  } else if (right_ == 0) {
    result(Verdict::kFailed, "survives faults", detail, "nothing was answered: too few workers for this? baton up --prefill 2 --decode 2");
  } else {
    result(Verdict::kOk, "survives faults", detail);
  }
  for (const Aftermath& aftermath : kAftermath) co_await settle(aftermath);
  co_return results_;
}

net::Task<> FaultRun::settle(const Aftermath& aftermath) {
  const int64_t began = clock_.now_ms();
  std::string missing;
  do {
    missing = co_await (this->*aftermath.missing)();
    if (missing.empty()) {
      const auto took_s = static_cast<double>(clock_.now_ms() - began) / 1000;
      co_return result(Verdict::kOk, std::string(aftermath.name), fmt::format("{}, after {:.1f} s", aftermath.good, took_s));
    }
    co_await net::sleep_for(net::Millis(kLookEveryMs));
  } while (clock_.now_ms() - began < kSettleMs);
  result(Verdict::kFailed, std::string(aftermath.name), cat("after ", kSettleMs / 1000, " s still not: ", missing),
         cat(aftermath.advice, dir_));
}

net::Task<bool> FaultRun::quiet() {
  while (std::ssize(prompts_) < kPrompts) {
    const std::string prompt = fresh_prompt(kPromptWords);
    auto r = co_await asker_.complete(prompt, kMaxTokens);
    if (!r || r->status != 200) {
      result(Verdict::kFailed, "survives faults", r ? cat("HTTP ", r->status) : r.error().message, "it fails before any fault");
      co_return false;
    }
    prompts_.push_back(prompt);
    texts_.push_back(text_of(r->body));
  }
  co_return true;
}

net::Task<> FaultRun::strike() {
  Prng prng(secure_random_u64());
  while (co_await net::sleep_for(net::Millis(kStrikeEveryMs)), !over()) {
    auto workers = read_workers(dir_);
    if (!workers) continue;
    std::erase_if(*workers, [](const RunningWorker& w) { return !is_ours(w.pid); });
    std::vector<std::pair<const Fault*, pid_t>> choices;
    for (const Fault& f : kFaults) {
      for (const RunningWorker& w : *workers) {
        if (w.role == f.role) choices.emplace_back(&f, w.pid);
      }
    }
    if (choices.empty()) continue;
    const auto& [fault, pid] = choices[prng.below(choices.size())];
    ++faults_[fault->name];
    fault->signal == SIGSTOP ? freeze(pid) : (void)kill(pid, fault->signal);
  }
}

net::Task<> FaultRun::ask_on(uint64_t seed) {
  Prng prng(seed);
  while (!over()) {
    const int errors = errors_;
    co_await ask(prng.below(prompts_.size()), prng.below(2) == 0);
    if (errors_ != errors) co_await net::sleep_for(net::Millis(kAfterErrorMs));
  }
}

net::Task<> FaultRun::ask(size_t prompt, bool streamed) {
  if (!streamed) {
    auto r = co_await asker_.complete(prompts_[prompt], kMaxTokens);
    if (!r) co_return broken(cat("no answer: ", r.error().message));
    auto j = parse_json(r->body);
    const Json* message = j ? j->find_path({"error", "message"}) : nullptr;
    if (message == nullptr && j) message = j->find("message");  // a sidecar's error is the whole body
    co_return ended(prompt, false, r->status, text_of(r->body), message != nullptr ? message->text : "");
  }
  auto s = co_await asker_.stream(prompts_[prompt], kMaxTokens);
  if (!s) co_return broken(cat("a stream broke off: ", s.error().message));
  if (s->status != 200) co_return ended(prompt, true, s->status, "", s->text);
  if (s->errors == 1) co_return ended(prompt, true, 502, "", s->error);
  if (s->errors > 1 || !s->done) co_return broken(cat("a stream ended with ", s->errors, " errors and ", s->done ? "" : "no ", "[DONE]"));
  ended(prompt, true, 200, s->text, "");
}

void FaultRun::ended(size_t prompt, bool streamed, int status, const std::string& text, const std::string& error) {
  if (status == 200 && text == texts_[prompt]) {
    ++right_;
  } else if (status == 200) {
    broken(cat(streamed ? "streamed" : "whole", " \"", text, "\" instead of \"", texts_[prompt], "\""));
  } else if (error.empty()) {
    broken(cat("HTTP ", status, " without a message"));
  } else {
    ++errors_;
  }
}

std::string FaultRun::struck() const {
  std::string out;
  int all = 0;
  for (const auto& [name, times] : faults_) {
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", name, times);
    all += times;
  }
  return fmt::format("{} faults{}", all, all == 0 ? "" : cat(": ", out));
}

net::Task<std::string> FaultRun::late() {
  auto workers = read_workers(dir_);
  if (!workers) co_return workers.error().message;
  for (const RunningWorker& w : *workers) {
    auto r = co_await ask_worker(client_, url_.host, w.port, "/health");
    if (!r || r->status != 200) co_return w.name;
  }
  for (size_t i = 0; i < prompts_.size(); ++i) {
    auto r = co_await asker_.complete(prompts_[i], kMaxTokens);
    if (!r || r->status != 200) co_return cat("the gateway: ", r ? cat("HTTP ", r->status) : r.error().message);
    if (text_of(r->body) != texts_[i]) co_return cat("the right text: \"", text_of(r->body), "\" instead of \"", texts_[i], "\"");
  }
  co_return "";
}

net::Task<std::string> FaultRun::held() {
  auto workers = read_workers(dir_);
  if (!workers) co_return workers.error().message;
  for (const RunningWorker& w : *workers) {
    if (w.role == "sidecar" || w.role == "router") continue;
    auto r = co_await ask_worker(client_, url_.host, w.port, "/metrics");
    if (!r || r->status != 200) co_return cat(w.name, " does not tell its metrics");
    for (const char* metric : {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "kv_grants"}) {
      if (const double value = first_sample(r->body, metric, 0); value != 0) co_return cat(w.name, ": ", metric, " is ", value);
    }
  }
  co_return "";
}

}  // namespace

net::Task<std::vector<CheckResult>> survive_faults(const VerifyConfig& config, const Url& url, Asker& asker) {
  FaultRun run(config, url, asker);
  co_return co_await run.run();
}

}  // namespace baton::stack
