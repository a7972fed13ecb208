#include "deploy/plan.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "cost/workers.h"
#include "deploy/limits.h"

namespace baton::deploy {
namespace {

std::string gb(double bytes) {
  const double n = bytes / 1e9;
  return n >= 10 ? cat(std::llround(n), " GB") : cat(std::round(n * 10) / 10, " GB");
}
std::string ms(double us) { return us >= 1e4 ? cat(std::llround(us / 1e3), " ms") : cat(std::round(us / 100) / 10, " ms"); }
std::string per_s(double rate) { return rate >= 10 ? cat(std::llround(rate)) : cat(std::floor(rate * 100) / 100); }

struct Choice {
  PhasePlan plan;
  cost::WorkerCost cost;
};

class Planner {
 public:
  explicit Planner(Plan& plan) : plan_(plan), ask_(plan.ask), link_{kHandOverUs, bytes_per_us(plan)} {
    const int heads = plan.shape.heads;
    for (int tp = 1; tp <= plan.device->node_devices; tp *= 2) {
      if (heads % tp == 0 && fits(tp)) widths_.push_back(tp);
    }
  }

  PlanResult run() {
    if (widths_.empty()) return std::unexpected(no_memory());
    if (auto never = unreachable()) return std::unexpected(*std::move(never));
    const double tiny = 1e-6;
    if (ask_.rate > 0) {
      if (!set(ask_.rate) || plan_.devices_used() > ask_.devices) return std::unexpected(too_few());
    } else {
      if (!set(tiny) || plan_.devices_used() > ask_.devices) return std::unexpected(too_few());
      plan_.rate = highest(ask_.devices);
      set(plan_.rate);
    }
    plan_.rate_max = std::max(plan_.rate, carried());
    return std::move(plan_);
  }

 private:
  static double bytes_per_us(const Plan& p) {
    if (p.environment->baton_engine) return kLocalBytesUs;
    return p.rdma ? kRdmaBytesUs : kTcpBytesUs;
  }
  double memory() const { return (ask_.memory_gb > 0 ? ask_.memory_gb : plan_.device->memory_gb) * 1e9; }
  static double usable(double bytes) { return bytes * kMemoryPartUsed - std::min(2e9, 0.1 * bytes); }  // less what the runtime takes
  int64_t kv_tokens(int tp) const {
    double room = usable(memory()) - plan_.shape.weight_bytes / tp;
    if (plan_.device->kv_gb > 0) room = std::min(room, plan_.device->kv_gb * 1e9);
    const double shares = std::min(tp, plan_.shape.kv_heads);
    return room <= 0 ? 0 : static_cast<int64_t>(room * shares / static_cast<double>(plan_.shape.kv_bytes_per_token));
  }
  bool fits(int tp) const { return kv_tokens(tp) >= ask_.context; }

  Choice base(int tp) const {
    const Device& d = *plan_.device;
    Choice out;
    out.plan.tp = tp;
    out.plan.weight_bytes = plan_.shape.weight_bytes / tp;
    out.plan.kv_tokens = kv_tokens(tp);
    out.cost = cost::roofline(plan_.shape.work(), {d.tflops * 1e12, d.gb_s * 1e9, d.link_gb_s * 1e9}, tp);
    return out;
  }
  double hand_over_us() const { return link_.transfer_us(plan_.shape.kv_bytes_per_token * ask_.prompt_tokens); }
  double context() const { return ask_.prompt_tokens + 0.5 * ask_.output_tokens; }
  double tpot(const Choice& c, double streams) const {
    const double low = std::floor(streams);
    auto at = [&](double n) {
      return cost::tpot_us(c.cost, {.queued_tokens = 0, .running = static_cast<int32_t>(n), .mean_context = context()}, 0);
    };
    return at(low) + (streams - low) * (at(low + 1) - at(low));
  }
  int batch_max(const Choice& c) const {
    const auto room = c.plan.kv_tokens / std::max(1, ask_.prompt_tokens + ask_.output_tokens);
    return cost::streams_max(c.cost, context(), ask_.tpot_ms * 1e3, static_cast<int>(std::min<int64_t>(kStreamsMax, room)));
  }
  double wait_us(const Choice& c, double busy) const {  // M/D/1: the queue's mean work, as tokens that come before ours
    const double tokens = busy / (2 * (1 - busy)) * ask_.prompt_tokens;
    const cost::WorkerLoad queue{.queued_tokens = std::llround(tokens), .running = 0, .mean_context = 0.5 * ask_.prompt_tokens};
    return cost::ttft_us(c.cost, queue, ask_.prompt_tokens, 0) - cost::ttft_us(c.cost, {}, ask_.prompt_tokens, 0);
  }

  // Fewest workers of this width; replicas 0: no number of them.
  Choice prefill(int tp, double rate, double decode_step_us) const {
    Choice out = base(tp);
    out.plan.step_us = cost::ttft_us(out.cost, {}, ask_.prompt_tokens, 0);
    const double spare = ask_.ttft_ms * 1e3 - out.plan.step_us - hand_over_us() - decode_step_us;
    if (spare < 0) return out;
    const double work = rate * out.plan.step_us / 1e6;
    const double allowed = cost::prefill_busy_max(out.plan.step_us, spare);
    if (allowed <= 0 || work / allowed > kDevicesMax) return out;
    const int needed = std::max(1, static_cast<int>(std::ceil(work / allowed - 1e-9)));
    out.plan.replicas = ask_.prefill_replicas > 0 ? (needed <= ask_.prefill_replicas ? ask_.prefill_replicas : 0) : needed;
    if (out.plan.replicas > 0) out.plan.busy = work / out.plan.replicas;
    return out;
  }
  Choice decode(int tp, double rate) const {
    Choice out = base(tp);
    out.plan.batch_max = batch_max(out);
    if (out.plan.batch_max == 0) return out;
    const double workers = cost::decode_workers(out.cost, rate * ask_.output_tokens, context(), out.plan.batch_max);
    if (workers > kDevicesMax) return out;
    const int needed = std::max(1, static_cast<int>(std::ceil(workers - 1e-9)));
    out.plan.replicas = ask_.decode_replicas > 0 ? (needed <= ask_.decode_replicas ? ask_.decode_replicas : 0) : needed;
    if (out.plan.replicas == 0) return out;
    const double own = rate / out.plan.replicas;
    double n = 0;  // Little's law: streams = rate * output * time a token; grows to its fixed point
    for (int i = 0; i < 200; ++i)
      n = std::min<double>(out.plan.batch_max, own * ask_.output_tokens * tpot(out, std::max(1.0, n)) / 1e6);
    out.plan.streams = n;
    out.plan.step_us = tpot(out, std::max(1.0, n));
    out.plan.busy = n / out.plan.batch_max;
    return out;
  }

  // The workers with the fewest devices for a rate, the sooner first token among equals. False: none.
  bool set(double rate) {
    int best = 0;
    double best_ttft = 0;
    for (const int d : widths_) {
      if (ask_.decode_tp > 0 && d != ask_.decode_tp) continue;
      const Choice dec = decode(d, rate);
      if (dec.plan.replicas == 0) continue;
      for (const int p : widths_) {
        if (ask_.prefill_tp > 0 ? p != ask_.prefill_tp : p > d && !plan_.environment->baton_engine) continue;
        const Choice pre = prefill(p, rate, dec.plan.step_us);
        if (pre.plan.replicas == 0) continue;
        const int used = pre.plan.replicas * p + dec.plan.replicas * d;
        const double wait = wait_us(pre, pre.plan.busy), ttft = wait + pre.plan.step_us + hand_over_us() + dec.plan.step_us;
        if (best > 0 && (used > best || (used == best && ttft >= best_ttft))) continue;
        best = used, best_ttft = ttft;
        plan_.prefill = pre.plan, plan_.decode = dec.plan;
        plan_.rate = rate, plan_.wait_us = wait, plan_.hand_over_us = hand_over_us();
        plan_.ttft_us = ttft, plan_.tpot_us = dec.plan.step_us;
      }
    }
    return best > 0;
  }
  double highest(int devices) {
    const auto can = [&](double rate) { return set(rate) && plan_.devices_used() <= devices; };
    double low = 1e-6, high = low;
    while (high < 1e9 && can(high)) low = high, high *= 2;
    for (int i = 0; i < 40; ++i) {
      const double middle = (low + high) / 2;
      (can(middle) ? low : high) = middle;
    }
    return low;
  }
  // What the chosen workers could carry.
  double carried() const {
    Plan copy = plan_;
    copy.ask.prefill_replicas = plan_.prefill.replicas, copy.ask.prefill_tp = plan_.prefill.tp;
    copy.ask.decode_replicas = plan_.decode.replicas, copy.ask.decode_tp = plan_.decode.tp;
    return Planner(copy).highest(plan_.devices_used());
  }

  NoPlan no_memory() const {
    const int widest = plan_.device->node_devices;
    const Shape& s = plan_.shape;
    const double own = usable(memory());
    NoPlan out;
    if (s.weight_bytes / widest >= own) {
      out.reason = cat(s.name, " has ", gb(s.weight_bytes), " of weights; ", widest, " x ", plan_.device->title, " hold ",
                       gb(widest * own));
      if (s.parameter_bytes > 1) out.advice.push_back("a checkpoint of 8 bits (FP8) needs half of it");
    } else {
      int64_t room = 0;
      for (int tp = 1; tp <= widest; tp *= 2) room = std::max(room, kv_tokens(tp));
      out.reason =
          cat("a request of ", ask_.context, " tokens needs ", gb(static_cast<double>(s.kv_bytes_per_token) * ask_.context),
              " of KV; beside the weights there is room for ", room, " tokens");
      if (room > 0) out.advice.push_back(cat("--context ", room, " or less"));
      if (ask_.kv_cache_dtype == "auto") out.advice.push_back("--kv-cache-dtype fp8: half of it");
    }
    for (const Device& d : devices()) {
      if (d.node_devices < 2 || d.memory_gb <= plan_.device->memory_gb) continue;
      if (d.node_devices * usable(d.memory_gb * 1e9) < s.weight_bytes + static_cast<double>(s.kv_bytes_per_token) * ask_.context) continue;
      out.advice.push_back(cat("--device ", d.name, ": a node of ", d.node_devices, " x ", d.title, " holds it"));
      if (out.advice.size() >= 4) break;
    }
    return out;
  }
  // Targets that no number of devices meets.
  std::optional<NoPlan> unreachable() const {
    double soonest = 1e300, fastest = 1e300;
    bool streams = false, prompts = false;
    for (const int tp : widths_) {
      const Choice c = base(tp);
      fastest = std::min(fastest, tpot(c, 1));
      streams |= (ask_.decode_tp == 0 || tp == ask_.decode_tp) && batch_max(c) > 0;
    }
    for (const int tp : widths_) {
      soonest = std::min(soonest, cost::ttft_us(base(tp).cost, {}, ask_.prompt_tokens, 0) + hand_over_us() + fastest);
      prompts |= ask_.prefill_tp == 0 || tp == ask_.prefill_tp;
    }
    if (ask_.prompt_tokens + ask_.output_tokens > ask_.context)
      return NoPlan{
          cat("a request of ", ask_.prompt_tokens, " + ", ask_.output_tokens, " tokens is longer than --context ", ask_.context),
          {cat("--context ", ask_.prompt_tokens + ask_.output_tokens, ", or shorter requests")}};
    if (fastest > ask_.tpot_ms * 1e3)
      return NoPlan{cat("one stream alone takes ", ms(fastest), " a token; the target is ", ms(ask_.tpot_ms * 1e3)),
                    {cat("--tpot ", std::ceil(fastest / 1e3), ", a smaller model, or a device of more bandwidth")}};
    if (soonest > ask_.ttft_ms * 1e3)
      return NoPlan{cat("a prompt of ", ask_.prompt_tokens, " tokens takes ", ms(soonest), " on idle workers; the target is ",
                        ms(ask_.ttft_ms * 1e3)),
                    {cat("--ttft ", std::ceil(soonest / 1e3 * 1.2), ", shorter prompts", plan_.rdma ? "" : ", KV over RDMA")}};
    if (!streams || !prompts)
      return NoPlan{"these widths of tensor parallelism cannot hold the model, or miss the target",
                    {"leave --prefill-tp and --decode-tp away"}};
    return std::nullopt;
  }
  NoPlan too_few() {
    NoPlan out;
    const double wanted = ask_.rate;
    if (wanted > 0) {
      const bool any = set(wanted);
      const int needed = plan_.devices_used();
      out.reason = any ? cat(per_s(wanted), " requests/s need ", needed, " devices; there are ", ask_.devices)
                       : cat(per_s(wanted), " requests/s are more than these workers carry");
      if (any) out.advice.push_back(cat("--devices ", needed));
    }
    if (set(1e-6) && plan_.devices_used() <= ask_.devices) {
      out.advice.push_back(cat("--rate ", per_s(highest(ask_.devices)), ": what ", ask_.devices, " devices carry"));
    } else if (out.reason.empty()) {
      out.reason = cat("one prefill and one decode worker need ", plan_.devices_used(), " devices; there are ", ask_.devices);
      out.advice.push_back(cat("--devices ", plan_.devices_used(), ", or one worker that does both (no P/D)"));
    }
    return out;
  }

  Plan& plan_;
  const PlanAsk& ask_;
  cost::LinkCost link_;
  std::vector<int> widths_;  // tensor parallelism that memory allows
};

}  // namespace

PlanResult make_plan(const PlanAsk& asked, const Shape& shape) {
  Plan plan;
  plan.ask = asked, plan.shape = shape;
  PlanAsk& ask = plan.ask;
  if (ask.environment.empty()) ask.environment = "default";
  plan.environment = find_environment(ask.environment);
  if (plan.environment == nullptr) return std::unexpected(NoPlan{cat("no environment \"", ask.environment, "\""), {}});
  const Environment& e = *plan.environment;
  ask.environment = e.name;
  if (ask.device.empty()) ask.device = e.device;
  plan.device = find_device(ask.device);
  if (plan.device == nullptr) return std::unexpected(NoPlan{cat("no device \"", ask.device, "\""), {}});
  if (ask.gateway.empty()) ask.gateway = e.gateway;
  if (std::ranges::find(gateways(), ask.gateway) == gateways().end())
    return std::unexpected(NoPlan{cat("no gateway \"", ask.gateway, "\""), {"istio, kgateway, agentgateway, gke or builtin"}});
  const kv::CacheDtype* cache = kv::find_cache_dtype(ask.kv_cache_dtype);
  if (cache == nullptr) return std::unexpected(NoPlan{cat("no KV cache of \"", ask.kv_cache_dtype, "\""), {}});
  plan.shape.kv_bytes_per_token = shape.kv_bytes_with(cache->dtype);
  if (ask.devices == 0) ask.devices = e.devices;
  if (ask.context == 0) ask.context = std::min(e.context, shape.context);
  if (ask.context > shape.context)
    return std::unexpected(NoPlan{cat(shape.name, " was made for ", shape.context, " tokens, not for ", ask.context),
                                  {cat("--context ", shape.context)}});
  plan.rdma = ask.rdma == "yes" || (ask.rdma == "auto" && e.rdma && ask.gateway != "gke");
  return Planner(plan).run();
}

}  // namespace baton::deploy
