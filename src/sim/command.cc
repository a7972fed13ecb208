#include "sim/command.h"

#include <charconv>
#include <cstdio>

#include "base/file.h"
#include "base/json.h"
#include "route/config.h"
#include "route/limits.h"
#include "sim/profile.h"
#include "sim/simulator.h"

namespace baton::sim {
namespace {

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    if (comma > 0) out.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return out;
}

Result<std::vector<double>> numbers(std::string_view text) {
  std::vector<double> out;
  for (const std::string& word : split(text)) {
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || !(value > 0 && value < 1e6))
      return fail(Code::kInvalidArgument, "--rates: \"", word, "\" is no rate in requests a second");
    out.push_back(value);
  }
  if (out.empty()) return fail(Code::kInvalidArgument, "--rates names no rate");
  return out;
}

struct Policy {
  std::string name;
  std::shared_ptr<const route::Plan> plan;
};

Result<Policy> load(std::string name, const std::string& text) {
  route::Loaded loaded = route::load_config(text, {.allow_experimental = true});
  if (loaded.plan) return Policy{std::move(name), std::move(loaded.plan)};
  std::string all;
  for (const std::string& error : loaded.errors) all += cat("\n  ", error);
  return fail(Code::kInvalidArgument, "policy ", name, ":", all);
}

Result<std::vector<Policy>> policies(const SimCommand& c) {
  std::vector<Policy> out;
  for (const std::string& name : split(c.policies)) {
    const std::string text = policy_config(name, c.prefill > 0);
    if (text.empty()) return fail(Code::kInvalidArgument, "no policy \"", name, "\": prefix-aware, least-loaded, random, pair or --config-file");
    BATON_TRY(Policy policy, load(name, text));
    out.push_back(std::move(policy));
  }
  if (!c.config_file.empty()) {
    BATON_TRY(const std::string text, read_file(c.config_file, route::kConfigBytesMax));
    BATON_TRY(Policy policy, load(c.config_file.substr(c.config_file.rfind('/') + 1), text));
    out.push_back(std::move(policy));
  }
  return out;
}

SimConfig pool(const SimCommand& c, const Profile& profile) {
  SimConfig out;
  auto add = [&](int n, route::Role role) {
    for (int i = 0; i < n; ++i) out.workers.push_back({role, profile.worker, profile.kv_blocks});
  };
  add(c.prefill, route::Role::kPrefill);
  add(c.decode, route::Role::kDecode);
  add(c.prefill + c.decode + c.both == 0 ? 16 : c.both, route::Role::kBoth);
  out.link = profile.link;
  out.scrape_ms = c.scrape_ms;
  out.seed = static_cast<uint64_t>(c.seed);
  return out;
}

RatioConfig controlled(const SimCommand& c, const SimConfig& pool) {
  RatioConfig out;
  const int workers = static_cast<int>(pool.workers.size());
  out.policy.prefill = out.policy.decode = {.min = 1, .max = workers};
  out.policy.devices = workers;
  out.worker = pool.workers[0].cost;
  out.targets = {.ttft_us = 1e3 * c.ttft_ms, .tpot_us = 1e3 * c.tpot_ms, .streams_max = pool.scheduler.max_num_seqs};
  out.targets.kv_tokens = int64_t{16} * pool.workers[0].kv_blocks;
  out.start_s = c.start_s;
  return out;
}

std::vector<Session> load_of(const SimCommand& c, Shape shape, double rate) {
  WorkloadParams p{.shape = shape, .rate = rate, .requests = c.requests, .groups = c.groups, .turns = c.turns,
                   .shared_tokens = c.shared_tokens, .question_tokens = c.question_tokens, .output_tokens = c.output_tokens,
                   .spread = c.spread, .think_s = c.think_s, .seed = static_cast<uint64_t>(c.seed)};
  std::vector<Session> out = make_workload(p);
  if (c.then_question_tokens == 0 && c.then_output_tokens == 0) return out;
  if (c.then_question_tokens > 0) p.question_tokens = c.then_question_tokens;
  if (c.then_output_tokens > 0) p.output_tokens = c.then_output_tokens;
  p.seed += 1;
  return one_after_the_other(std::move(out), make_workload(p));
}

void print_row(const SimCommand& c, const std::string& policy, double rate, const SimReport& r) {
  if (!c.json) {
    std::printf("%-20s %7.4g %9.0f %9.3f %9.3f %9.3f %8.2f %8.2f %7.1f%% %7.2f %7.0f%%\n", policy.c_str(), rate, r.output_tokens_per_s,
                r.ttft_ms.p50 * 1e-3, r.ttft_ms.p95 * 1e-3, r.ttft_ms.mean * 1e-3, r.tpot_ms.p50, r.tpot_ms.p99, r.hit_rate * 100,
                r.imbalance, r.requests > 0 ? 100.0 * r.remote / r.requests : 0);
    std::fflush(stdout);
    return;
  }
  JsonWriter w;
  w.object().field("policy", policy).field("rate", rate).field("output_tokens_per_s", r.output_tokens_per_s);
  w.field("ttft_p50_ms", r.ttft_ms.p50).field("ttft_p95_ms", r.ttft_ms.p95).field("ttft_mean_ms", r.ttft_ms.mean);
  w.field("tpot_p50_ms", r.tpot_ms.p50).field("tpot_p99_ms", r.tpot_ms.p99).field("hit_rate", r.hit_rate);
  w.field("imbalance", r.imbalance).field("remote", r.remote).field("requests", r.requests).field("refused", r.refused);
  w.field("unfinished", r.unfinished).field("role_changes", r.role_changes).end();
  std::printf("%s\n", w.text().c_str());
}

}  // namespace

std::string policy_config(std::string_view name, bool disaggregated) {
  std::string scorers, profile;
  auto add = [&](std::string_view type, double weight) {
    scorers += cat("- type: ", type, "\n");
    profile += cat("  - pluginRef: ", type, "\n    weight: ", weight, "\n");
  };
  std::string picker = "max-score-picker";
  if (name == "prefix-aware" || name == "pair") {
    add("prefix-cache-scorer", 3);
    add("queue-scorer", 2);
    add("kv-cache-utilization-scorer", 2);
    add("active-request-scorer", 2);
  } else if (name == "least-loaded") {
    add("queue-scorer", 2);
    add("kv-cache-utilization-scorer", 2);
    add("active-request-scorer", 2);
  } else if (name == "random") {
    picker = "random-picker";
  } else {
    return "";
  }
  std::string out = cat("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n", scorers, "- type: ", picker, "\n");
  if (!disaggregated) {
    out += "- type: single-profile-handler\n";
    return out + cat("schedulingProfiles:\n- name: default\n  plugins:\n", profile, "  - pluginRef: ", picker, "\n");
  }
  out += "- type: prefill-filter\n- type: decode-filter\n- type: always-disagg-pd-decider\n";
  out += name == "pair" ? "- type: baton-pair-handler\n"
                        : "- type: disagg-profile-handler\n  parameters:\n    deciders:\n      prefill: always-disagg-pd-decider\n";
  out += "schedulingProfiles:\n";
  for (std::string_view role : {"prefill", "decode"})
    out += cat("- name: ", role, "\n  plugins:\n  - pluginRef: ", role, "-filter\n", profile, "  - pluginRef: ", picker, "\n");
  return out;
}

Options sim_options(SimCommand& c) {
  Options o("baton sim", "Policies side by side on a simulated pool: the picker's own decisions, the engine's own scheduler, a cost model.",
            "baton sim --workload shared-prefix --rates 5,10,20");
  std::vector<std::string> names;
  for (const Profile& row : profiles()) names.emplace_back(row.name);
  o.group("Pool")
      .add("profile", &c.profile, "what a worker costs", names)
      .add("prefill", &c.prefill, "workers", "that only prefill", 0, 1'000)
      .add("decode", &c.decode, "workers", "that only decode", 0, 1'000)
      .add("both", &c.both, "workers", "that do both; 16 if no worker is named", 0, 1'000)
      .add("scrape-ms", &c.scrape_ms, "ms", "between two looks at the workers' metrics", 1, 60'000);
  o.group("Policies")
      .add("policies", &c.policies, "comma list of prefix-aware, least-loaded, random, pair")
      .add("config-file", &c.config_file, "one more: an EndpointPickerConfig");
  o.group("Load")
      .add("workload", &c.workload, "shape of the load", {"random", "shared-prefix", "multi-turn"})
      .add("rates", &c.rates, "requests a second, comma list; one row each")
      .add("requests", &c.requests, "requests", "a row", 1, 1'000'000)
      .add("groups", &c.groups, "prefixes", "shared-prefix: different ones", 1, 1'000'000)
      .add("turns", &c.turns, "turns", "multi-turn: in a session", 1, 1'000)
      .add("shared-tokens", &c.shared_tokens, "tokens", "of a shared (or, random, an own) prefix", 1, 100'000)
      .add("question-tokens", &c.question_tokens, "tokens", "of each request's own", 1, 100'000)
      .add("output-tokens", &c.output_tokens, "tokens", "of an answer", 1, 100'000)
      .add("spread", &c.spread, "", "lengths vary by this part either way", 0, 1)
      .add("think-s", &c.think_s, "s", "multi-turn: from an answer to the next question", 0, 3'600)
      .add("then-question-tokens", &c.then_question_tokens, "tokens", "a second half of the load, as many requests again; 0 = there is none", 0, 100'000)
      .add("then-output-tokens", &c.then_output_tokens, "tokens", "of its answers; 0 = as before", 0, 100'000)
      .add("seed", &c.seed, "", "of load and ties");
  o.group("Ratio of the roles")
      .add("ratio", &c.ratio, "each row once more with the ratio controller, as baton deploy ratio --hold-devices")
      .add("ttft", &c.ttft_ms, "ms", "its target until the first token", 1, 1e7)
      .add("tpot", &c.tpot_ms, "ms", "its target for each further token", 0.01, 1e6)
      .add("start-s", &c.start_s, "s", "that a worker is away between two roles, when it has drained", 0, 3'600);
  o.group("Output").add("json", &c.json, "one JSON object a row");
  return o;
}

Result<> sim(const SimCommand& c) {
  const Profile* profile = find_profile(c.profile);
  if (profile == nullptr) return fail(Code::kInvalidArgument, "no profile ", c.profile);
  if ((c.prefill > 0) != (c.decode > 0)) return fail(Code::kInvalidArgument, "--prefill and --decode come together");
  if (c.ratio && (c.prefill == 0 || c.both > 0)) return fail(Code::kInvalidArgument, "--ratio needs --prefill and --decode, and no --both");
  BATON_TRY(const auto rates, numbers(c.rates));
  BATON_TRY(const auto rows, policies(c));
  BATON_TRY(const Shape shape, shape_from(c.workload));
  SimConfig config = pool(c, *profile);
  if (!c.json) {
    std::printf("%d workers (%d prefill, %d decode), each %s\n", static_cast<int>(config.workers.size()), c.prefill, c.decode,
                std::string(profile->what).c_str());
    std::printf("%-20s %7s %9s %9s %9s %9s %8s %8s %8s %7s %8s\n", "policy", "req/s", "tok/s", "TTFT p50", "p95 s", "mean s", "TPOT p50",
                "p99 ms", "hits", "uneven", "remote");
  }
  for (double rate : rates) {
    const auto load = load_of(c, shape, rate);
    for (const Policy& policy : rows) {
      config.plan = policy.plan;
      config.ratio.reset();
      print_row(c, policy.name, rate, simulate(config, load));
      if (!c.ratio) continue;
      config.ratio = controlled(c, config);
      print_row(c, policy.name + " +ratio", rate, simulate(config, load));
    }
  }
  return {};
}

}  // namespace baton::sim
