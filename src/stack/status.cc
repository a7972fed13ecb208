#include "stack/status.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

namespace baton::stack {
namespace {

bool somebody_reads() {
  pollfd out{.fd = 1, .events = POLLOUT, .revents = 0};
  return ::poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) == 0;
}

}  // namespace

double first_sample(std::string_view text, std::string_view name, double fallback) {
  for (size_t at = 0; (at = text.find(name, at)) != std::string_view::npos; at += name.size()) {
    if (at > 0 && text[at - 1] != '\n') continue;
    char after = at + name.size() < text.size() ? text[at + name.size()] : '\n';
    if (after != '{' && after != ' ') continue;
    std::string_view line = text.substr(at, text.find('\n', at) - at);
    std::string_view number = line.substr(line.rfind(' ') + 1);
    double v = fallback;
    std::from_chars(number.data(), number.data() + number.size(), v);
    return v;
  }
  return fallback;
}

void read_metrics(std::string_view text, WorkerStatus& out) {
  out.running = first_sample(text, "vllm:num_requests_running", out.running);
  out.waiting = first_sample(text, "vllm:num_requests_waiting", out.waiting);
  out.kv_usage = first_sample(text, "vllm:kv_cache_usage_perc", out.kv_usage);
  out.prompt_tokens = first_sample(text, "vllm:prompt_tokens_total", out.prompt_tokens);
  out.generated_tokens = first_sample(text, "vllm:generation_tokens_total", out.generated_tokens);
}

int endpoints_up(std::string_view text) {
  int up = 0;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    up += line.starts_with("baton_gateway_endpoint_up{") && (line.ends_with("} 1") || line.ends_with("} 1.0"));
  }
  return up;
}

void StatusView::erase() {
  if (lines_ > 0) fmt::print("\033[{}A\033[J", lines_);
  lines_ = 0;
}

void StatusView::event(std::string_view line) {
  if (!somebody_reads()) return (void)++missed_;
  erase();
  if (missed_ > 0) fmt::print("({} lines were not read in time)\n", std::exchange(missed_, 0));
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

void StatusView::draw(std::string_view title, const std::vector<WorkerStatus>& all) {
  if (!terminal_ || !somebody_reads()) return;
  erase();
  fmt::print("\033[1m{}\033[0m\n", title);
  for (const auto& w : all) {
    std::string load;
    if (w.is_engine && w.state == "ready") {
      load = fmt::format("running {:<3.0f} waiting {:<3.0f} kv {:>3.0f}%  read {:.0f}  wrote {:.0f} tokens", w.running, w.waiting,
                         100 * w.kv_usage, w.prompt_tokens, w.generated_tokens);
    }
    const char* color = w.state == "ready" ? "\033[32m" : "\033[33m";
    fmt::print("  {:<11} :{:<6} {}{:<12}\033[0m {}{}\n", w.name, w.port, color, w.state, load,
               w.restarts > 0 ? fmt::format("  restarts {}", w.restarts) : "");
  }
  lines_ = all.size() + 1;
  std::fflush(stdout);
}

void StatusView::close() { lines_ = 0; }

}  // namespace baton::stack
