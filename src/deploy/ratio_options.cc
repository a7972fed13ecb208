// Flags of `baton deploy ratio`, and what they come to.
#include <charconv>

#include "cost/roofline.h"
#include "deploy/limits.h"
#include "deploy/ratio.h"
#include "deploy/shape.h"
#include "deploy/tables.h"

namespace baton::deploy {
namespace {

// "fixed,per-token,per-1024-of-context", in us.
Result<cost::LinearCost> parse_cost(std::string_view flag, std::string_view text) {
  double parts[3] = {0, 0, 0};
  std::string_view rest = text;
  for (double& part : parts) {
    const std::string_view word = rest.substr(0, rest.find(','));
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), part);
    if (error != std::errc() || end != word.data() + word.size() || !(part >= 0 && part <= 1e9))
      return fail(Code::kInvalidArgument, flag, ": \"", text, "\" is not FIXED,PER_TOKEN,PER_1024_CONTEXT in us");
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
  }
  if (!rest.empty() || parts[0] + parts[1] <= 0) return fail(Code::kInvalidArgument, flag, ": three numbers, not all of them 0");
  return cost::LinearCost{.fixed_us = parts[0], .per_token_us = parts[1], .per_ctx_us = parts[2]};
}

cost::WorkerCost data_sheet(const Shape& shape, const Device& d, int tp) {
  return cost::roofline(shape.work(), {d.tflops * 1e12, d.gb_s * 1e9, d.link_gb_s * 1e9}, tp);
}

}  // namespace

cost::RatioPolicy RatioCommand::policy() const {
  cost::RatioPolicy out;
  out.prefill = {.min = prefill_min, .max = prefill_max, .devices = prefill_devices > 0 ? prefill_devices : prefill_tp};
  out.decode = {.min = decode_min, .max = decode_max, .devices = decode_devices > 0 ? decode_devices : decode_tp};
  out.devices = hold_devices, out.band = band;
  out.up_after_ms = 1000 * int64_t{up_s}, out.down_after_ms = 1000 * int64_t{down_s}, out.settle_ms = 1000 * int64_t{settle_s};
  return out;
}

cost::LoadTargets RatioCommand::targets() const {
  return {.ttft_us = 1e3 * ttft_ms, .tpot_us = 1e3 * tpot_ms, .hand_over_us = 1e3 * hand_over_ms, .streams_max = max_num_seqs};
}

Result<std::pair<cost::WorkerCost, cost::WorkerCost>> RatioCommand::costs() const {
  std::pair<cost::WorkerCost, cost::WorkerCost> out;
  if (prefill_cost.empty() || decode_cost.empty()) {
    if (model.empty() || device.empty())
      return fail(Code::kInvalidArgument, "--model and --device, or --prefill-cost and --decode-cost, say what a worker can do");
    const Device* row = find_device(device);
    if (row == nullptr) {
      std::string all;
      for (const Device& d : devices()) all += cat(all.empty() ? "" : ", ", d.name);
      return fail(Code::kInvalidArgument, "no device \"", device, "\": one of ", all);
    }
    BATON_TRY(const Shape shape, find_shape(model));
    out = {data_sheet(shape, *row, prefill_tp), data_sheet(shape, *row, decode_tp)};
  }
  if (!prefill_cost.empty()) {
    BATON_TRY(out.first.prefill, parse_cost("--prefill-cost", prefill_cost));
  }
  if (!decode_cost.empty()) {
    BATON_TRY(out.second.decode, parse_cost("--decode-cost", decode_cost));
  }
  return out;
}

Options ratio_options(RatioCommand& c) {
  Options o("baton deploy ratio", "keep as many prefill and decode workers as the load wants",
            "baton deploy ratio --prefill DEPLOYMENT --prefill-max N --decode DEPLOYMENT --decode-max N --model M --device D");
  o.group("Where");
  o.add("namespace", &c.ns, "of the Deployments; empty = the credentials'").alias("n").env("NAMESPACE");
  o.add("kubeconfig", &c.kubeconfig, "path; empty = $KUBECONFIG, the pod's account, or ~/.kube/config");
  o.add("context", &c.context, "of the kubeconfig; empty = its current one");
  o.add("prefill", &c.prefill, "Deployment of the prefill workers");
  o.add("decode", &c.decode, "Deployment of the decode workers");
  o.add("model-server-port", &c.metrics_port, "", "of their /metrics, where no container names a port metrics or vllm", 1, 65535);
  o.group("How many");
  o.add("prefill-min", &c.prefill_min, "workers", "at least", 1, kDevicesMax);
  o.add("prefill-max", &c.prefill_max, "workers", "at most; needed", 0, kDevicesMax);
  o.add("decode-min", &c.decode_min, "workers", "at least", 1, kDevicesMax);
  o.add("decode-max", &c.decode_max, "workers", "at most; needed", 0, kDevicesMax);
  o.add("hold-devices", &c.hold_devices, "devices",
        "always used, no more and no fewer: workers only change their role; 0 = not held", 0, kDevicesMax);
  o.add("prefill-devices", &c.prefill_devices, "devices", "of a prefill worker; 0 = --prefill-tp", 0, 1024);
  o.add("decode-devices", &c.decode_devices, "devices", "of a decode worker; 0 = --decode-tp", 0, 1024);
  o.group("What a worker can do: by data sheets, then corrected by what the workers' own metrics show");
  o.add("model", &c.model, "a name of the guides, a config.json, a folder that has one, or a GGUF file");
  o.add("device", &c.device, "as baton deploy plan");
  o.add("prefill-tp", &c.prefill_tp, "devices", "tensor parallelism of a prefill worker", 1, 64);
  o.add("decode-tp", &c.decode_tp, "devices", "tensor parallelism of a decode worker", 1, 64);
  o.add("prefill-cost", &c.prefill_cost, "instead, measured: FIXED,PER_TOKEN,PER_1024_CONTEXT, us of a prompt");
  o.add("decode-cost", &c.decode_cost, "likewise, of a step: FIXED,PER_STREAM,PER_STREAM_AND_1024_CONTEXT, us");
  o.add("max-num-seqs", &c.max_num_seqs, "streams", "of one decode worker at most, as the model server's flag", 1, 100'000);
  o.group("What the clients are to see");
  o.add("ttft", &c.ttft_ms, "ms", "until the first token, on average", 1, 1e7);
  o.add("tpot", &c.tpot_ms, "ms", "for each further token", 0.01, 1e6);
  o.add("hand-over", &c.hand_over_ms, "ms", "of the first token's time: what moving KV takes", 0, 1e6);
  o.group("Pace");
  o.add("interval", &c.interval_s, "s", "between two looks", 1, 3600);
  o.add("window", &c.window_s, "s", "over which rates are taken", 1, 86'400);
  o.add("up-after", &c.up_s, "s", "a worker comes if it was wanted for so long", 0, 86'400);
  o.add("down-after", &c.down_s, "s", "a worker goes if it was not wanted for so long", 0, 86'400);
  o.add("settle", &c.settle_s, "s", "between two steps", 0, 86'400);
  o.add("band", &c.band, "workers", "the load must lie so far below what one less would carry", 0, 1);
  o.group("This program");
  o.add("dry-run", &c.dry_run, "say what would be done and why, and do nothing");
  o.add("lease", &c.lease, "Lease by which one of several acts; empty = there is only one");
  o.add("host", &c.host, "address to listen on");
  o.add("port", &c.port, "", "of /metrics, /healthz and /readyz; 0 = any", 0, 65535);
  o.add("log-level", &c.log_level, "debug, info, warn or error", {"debug", "info", "warn", "error"});
  o.add("log-encoder", &c.log_encoder, "console or json", {"console", "json"});
  return o;
}

}  // namespace baton::deploy
