#include "deploy/ratio_load.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "deploy/checks.h"

namespace baton::deploy {
namespace {

constexpr size_t kSamplesKept = 64;
constexpr double kCountMax = 1e15;  // tokens or seconds: a million years of them

struct Family {
  double Counters::* at;
  std::string_view name, old_name;  // "" = there is none
};
constexpr Family kFamilies[] = {
    {&Counters::requests, "vllm:request_success_total", ""},
    {&Counters::prompt_tokens, "vllm:prompt_tokens_total", ""},
    {&Counters::answer_tokens, "vllm:generation_tokens_total", ""},
    {&Counters::step_s, "vllm:inter_token_latency_seconds_sum", "vllm:time_per_output_token_seconds_sum"},
    {&Counters::steps, "vllm:inter_token_latency_seconds_count", "vllm:time_per_output_token_seconds_count"},
};

// nullopt: another process than before.
std::optional<Counters> growth(const Counters& before, const Counters& now) {
  Counters out;
  for (double Counters::* at : {&Counters::requests, &Counters::prompt_tokens, &Counters::cached_tokens, &Counters::answer_tokens,
                                &Counters::step_s, &Counters::steps}) {
    out.*at = now.*at - before.*at;
    if (!(out.*at >= 0)) return std::nullopt;
  }
  return out;
}

void add(Counters& sum, const Counters& more) {
  sum.requests += more.requests, sum.prompt_tokens += more.prompt_tokens, sum.cached_tokens += more.cached_tokens;
  sum.answer_tokens += more.answer_tokens, sum.step_s += more.step_s, sum.steps += more.steps;
}

void keep(std::vector<cost::Sample>& samples, const cost::Sample& one) {
  if (samples.size() >= kSamplesKept) samples.erase(samples.begin());
  samples.push_back(one);
}

// A label's value as a number; 0: it is none.
int64_t label_number(std::string_view line, std::string_view label) {
  const std::string key = cat(label, "=\"");
  const size_t at = line.find(key);
  int64_t value = 0;
  if (at != line.npos) (void)std::from_chars(line.data() + at + key.size(), line.data() + line.size(), value);
  return value > 0 && value <= int64_t{1} << 24 ? value : 0;
}

struct KvRoom {
  int64_t tokens = 0;
  int ranks = 0;
};
KvRoom kv_room(std::string_view metrics) {
  constexpr std::string_view kInfo = "vllm:cache_config_info{";
  KvRoom out;
  for (size_t at = metrics.find(kInfo); at != metrics.npos && out.ranks < 1024; at = metrics.find(kInfo, at + 1)) {
    if (at > 0 && metrics[at - 1] != '\n') continue;
    const std::string_view line = metrics.substr(at, metrics.substr(at).find('\n'));
    // With the character before it: gpu_block_size is another label.
    const int64_t tokens = std::max(label_number(line, ",block_size"), label_number(line, "{block_size"));
    out.tokens += tokens * label_number(line, "num_gpu_blocks");
    ++out.ranks;
  }
  return out;
}

// Tokens that a server computed: a prompt's last token always is.
double computed(const Counters& c) { return std::max(c.requests, c.prompt_tokens - c.cached_tokens); }

}  // namespace

Result<ServerNumbers> read_server(std::string pod, std::string_view metrics) {
  ServerNumbers out;
  for (const Family& family : kFamilies) {
    auto value = sample_sum(metrics, family.name);
    if (!value && !family.old_name.empty()) value = sample_sum(metrics, family.old_name);
    if (!value) return fail(Code::kInvalidArgument, "no ", family.name);
    if (!(*value >= 0 && *value <= kCountMax)) return fail(Code::kInvalidArgument, family.name, " is no count");
    out.counters.*family.at = *value;
  }
  const double cached = sample_sum(metrics, "vllm:prefix_cache_hits_total").value_or(0);
  out.counters.cached_tokens = cached >= 0 && cached <= kCountMax ? cached : 0;
  const auto waiting = sample_sum(metrics, "vllm:num_requests_waiting"),
             running = sample_sum(metrics, "vllm:num_requests_running");
  const auto usage = sample_sum(metrics, "vllm:kv_cache_usage_perc");
  if (!waiting || !running || !usage)
    return fail(Code::kInvalidArgument, "no vllm:num_requests_waiting, _running and kv_cache_usage_perc");
  const auto small = [](double x) { return x > 0 ? static_cast<int>(std::min(x, 1e6)) : 0; };
  out.waiting = small(*waiting), out.running = small(*running);
  const KvRoom room = kv_room(metrics);
  out.kv_tokens = room.tokens;
  out.kv_usage = *usage > 0 ? std::min(1.0, *usage / std::max(1, room.ranks)) : 0;  // each rank tells its own
  out.pod = std::move(pod);
  return out;
}

void LoadMeter::look(int64_t now_ms, std::vector<ServerNumbers> servers) {
  std::map<std::string, ServerNumbers> next;
  Span span{.from_ms = looked_ms_, .to_ms = now_ms, .grew = {}};
  for (ServerNumbers& now : servers) {
    if (const auto before = last_.find(now.pod); before != last_.end()) {
      if (const auto grew = growth(before->second.counters, now.counters)) {
        add(span.grew, *grew);
        sample(before->second, now, *grew, now_ms - looked_ms_);
      }
    }
    std::string pod = now.pod;
    next.insert_or_assign(std::move(pod), std::move(now));
  }
  if (looked_ms_ >= 0 && now_ms > looked_ms_) spans_.push_back(span);
  while (spans_.size() > 1 && spans_.front().to_ms < now_ms - window_ms_) spans_.pop_front();
  last_ = std::move(next), looked_ms_ = now_ms;
}

void LoadMeter::sample(const ServerNumbers& before, const ServerNumbers& now, const Counters& grew, int64_t elapsed_ms) {
  const double streams = (before.running + now.running) / 2.0;
  if (grew.steps >= 1 && streams >= 1) {
    const double context = now.running > 0 ? now.kv_usage * static_cast<double>(now.kv_tokens) / now.running : 0;
    keep(decode_samples_, {.new_tokens = std::llround(streams), .mean_context = context, .us = 1e6 * grew.step_s / grew.steps});
  }
  if (before.waiting > 0 && now.waiting > 0 && grew.requests >= 1 && elapsed_ms > 0) {
    const double tokens = computed(grew) / grew.requests;
    keep(prefill_samples_, {.new_tokens = std::llround(tokens),
                            .mean_context = tokens / 2,
                            .us = 1e3 * static_cast<double>(elapsed_ms) / grew.requests});
  }
}

std::optional<RoleLoad> LoadMeter::load() const {
  if (spans_.empty()) return std::nullopt;
  Counters grew;
  for (const Span& span : spans_) add(grew, span.grew);
  const double seconds = static_cast<double>(spans_.back().to_ms - spans_.front().from_ms) / 1e3;
  RoleLoad out;
  double tokens_held = 0;
  for (const auto& [pod, server] : last_) {
    out.waiting += server.waiting, out.running += server.running;
    tokens_held += server.kv_usage * static_cast<double>(server.kv_tokens);
    if (server.kv_tokens > 0) out.kv_tokens = out.kv_tokens > 0 ? std::min(out.kv_tokens, server.kv_tokens) : server.kv_tokens;
  }
  out.requests_s = grew.requests / seconds;
  out.answer_tokens_s = grew.answer_tokens / seconds;
  if (grew.requests > 0)
    out.prompt_tokens = computed(grew) / grew.requests, out.answer_tokens = grew.answer_tokens / grew.requests;
  if (out.running > 0) out.context = tokens_held / out.running;
  return out;
}

cost::PoolLoad pool_load(const RoleLoad& prefill, const RoleLoad& decode) {
  cost::PoolLoad out;
  out.prompts_s = prefill.requests_s, out.prompt_tokens = prefill.prompt_tokens;
  out.answer_tokens_s = decode.answer_tokens_s, out.answer_tokens = decode.answer_tokens;
  out.prompts_waiting = prefill.waiting, out.streams_waiting = decode.waiting;
  out.context = decode.context > 0 ? decode.context : prefill.prompt_tokens + 0.5 * decode.answer_tokens;
  return out;
}

}  // namespace baton::deploy
