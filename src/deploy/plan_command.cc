#include "deploy/plan_command.h"

#include <unistd.h>

#include <charconv>
#include <functional>
#include <iostream>

#include "deploy/limits.h"
#include "deploy/plan_view.h"

namespace baton::deploy {
namespace {

template <class Rows>
std::vector<std::string> names(const Rows& rows) {
  std::vector<std::string> out;
  for (const auto& row : rows) out.emplace_back(row.name);
  return out;
}

void question(std::string_view what, std::string_view preset, const std::function<bool(const std::string&)>& take) {
  for (int tries = 0; tries < 3; ++tries) {
    std::printf("  %.*s [%.*s]: ", static_cast<int>(what.size()), what.data(), static_cast<int>(preset.size()), preset.data());
    std::fflush(stdout);
    std::string line;
    if (!std::getline(std::cin, line) || line.empty() || take(line)) return;
    std::printf("    that is none\n");
  }
}

template <class N>
bool number(const std::string& text, N low, N high, N& out) {
  N value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= low && value <= high)) return false;
  out = value;
  return true;
}

// Enter takes what stands in brackets.
void ask_person(PlanAsk& ask) {
  if (ask.environment.empty())
    question("environment (nvidia, gke, gke_tpu, xpu, hpu, amd, aks, digitalocean, cpu, kind)", "default",
             [&](const std::string& line) {
               const Environment* row = find_environment(line);
               if (row != nullptr) ask.environment = row->name;
               return row != nullptr;
             });
  const Environment* row = find_environment(ask.environment.empty() ? "default" : ask.environment);
  if (row == nullptr) return;
  if (ask.model.empty())
    question("model (a name, config.json, folder or .gguf)", row->model,
             [&](const std::string& line) { return !(ask.model = line).empty(); });
  if (ask.device.empty())
    question("device", row->device,
             [&](const std::string& line) { return find_device(line) != nullptr && !(ask.device = line).empty(); });
  if (ask.devices == 0)
    question("how many of them", std::to_string(row->devices),
             [&](const std::string& line) { return number(line, 1, kDevicesMax, ask.devices); });
  if (ask.rate == 0)
    question("requests a second", "as many as can be",
             [&](const std::string& line) { return number(line, 1e-6, 1e6, ask.rate); });
}

}  // namespace

void add_plan_options(Options& o, PlanAsk& ask) {
  o.group("Where");
  o.add("environment", &ask.environment,
        "as the guides' helmfile -e: default, gke, gke_tpu, xpu, hpu, amd, aks, digitalocean, cpu, kind, ...");
  o.alias("e");
  o.add("gateway", &ask.gateway, "istio, kgateway, agentgateway, gke or builtin; empty = the environment's");
  o.add("device", &ask.device, "empty = the environment's", [] {
    auto all = names(devices());
    all.insert(all.begin(), "");
    return all;
  }());
  o.add("devices", &ask.devices, "devices", "that there are; 0 = as in the guide", 0, kDevicesMax);
  o.add("device-memory", &ask.memory_gb, "GB", "of one; 0 = its data sheet's", 0, 100'000);
  o.add("rdma", &ask.rdma, "KV over a network device", {"auto", "yes", "no"});
  o.group("What");
  o.add("model", &ask.model,
        "a name of the guides, a config.json, a folder that has one, or a GGUF file; empty = the environment's");
  o.add("context", &ask.context, "tokens", "of the longest request; 0 = the environment's", 0, kTokensMax);
  o.add("kv-cache-dtype", &ask.kv_cache_dtype, "of the engines' KV cache, as their flag", [] {
    std::vector<std::string> all;
    for (const kv::CacheDtype& row : kv::cache_dtypes()) all.emplace_back(row.name);
    return all;
  }());
  o.add("prompt-tokens", &ask.prompt_tokens, "tokens", "of a request, on average", 1, kTokensMax);
  o.add("output-tokens", &ask.output_tokens, "tokens", "of an answer, on average", 1, kTokensMax);
  o.add("rate", &ask.rate, "requests/s", "to be served; 0 = as many as can be", 0, 1e6);
  o.add("ttft", &ask.ttft_ms, "ms", "until the first token, at most", 0.1, 1e7);
  o.add("tpot", &ask.tpot_ms, "ms", "for each further token, at most", 0.01, 1e6);
  o.group("Settled already");
  o.add("prefill", &ask.prefill_replicas, "workers", "that prefill; 0 = planned", 0, kDevicesMax);
  o.add("prefill-tp", &ask.prefill_tp, "devices", "of each; 0 = planned", 0, 64);
  o.add("decode", &ask.decode_replicas, "workers", "that decode; 0 = planned", 0, kDevicesMax);
  o.add("decode-tp", &ask.decode_tp, "devices", "of each; 0 = planned", 0, 64);
}

Options plan_options(PlanCommand& c) {
  Options o("baton deploy plan", "how many workers of how many devices a load needs, and why",
            "baton deploy plan -e hpu --rate 3");
  add_plan_options(o, c.ask);
  o.group("Output").add("json", &c.json, "one JSON object, and no questions");
  return o;
}

PlanResult plan_for(PlanAsk& ask) {
  const Environment* row = find_environment(ask.environment.empty() ? "default" : ask.environment);
  if (row == nullptr) {
    std::string all;
    for (const Environment& e : environments()) all += cat(all.empty() ? "" : ", ", e.name);
    return std::unexpected(NoPlan{cat("no environment \"", ask.environment, "\""), {"one of " + all}});
  }
  auto shape = find_shape(ask.model.empty() ? std::string(row->model) : ask.model);
  if (!shape) return std::unexpected(NoPlan{shape.error().message, {}});
  return make_plan(ask, *shape);
}

Result<> plan(PlanCommand& c) {
  if (!c.json && ::isatty(0) == 1 && ::isatty(1) == 1) ask_person(c.ask);
  const PlanResult made = plan_for(c.ask);
  if (made) return std::fputs((c.json ? plan_json(*made) : plan_screen(*made, ::isatty(1) == 1)).c_str(), stdout), Result<>();
  if (!c.json) return fail(Code::kFailedPrecondition, no_plan_text(made.error()));
  std::fputs(no_plan_json(made.error()).c_str(), stdout);
  return fail(Code::kFailedPrecondition, made.error().reason);
}

}  // namespace baton::deploy
