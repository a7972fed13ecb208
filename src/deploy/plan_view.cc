#include "deploy/plan_view.h"

#include <fmt/format.h>

#include "base/json.h"

namespace baton::deploy {
namespace {

std::string seconds(double us) {
  if (us < 1e3) return fmt::format("{:.0f} us", us);
  if (us < 1e4) return fmt::format("{:.1f} ms", us / 1e3);
  if (us < 1e6) return fmt::format("{:.0f} ms", us / 1e3);
  return fmt::format("{:.1f} s", us / 1e6);
}
std::string gigabytes(double bytes) {
  return bytes < 10e9 ? fmt::format("{:.2g} GB", bytes / 1e9) : fmt::format("{:.0f} GB", bytes / 1e9);
}
std::string billions(double n) { return n < 1e9 ? fmt::format("{:.0f} M", n / 1e6) : fmt::format("{:.1f} B", n / 1e9); }
std::string rate_text(double rate) { return rate < 10 ? fmt::format("{:.2f}", rate) : fmt::format("{:.0f}", rate); }
std::string thousands(int64_t n) {
  std::string digits = std::to_string(n);
  for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string row(std::string_view name, const PhasePlan& p, std::string_view step, std::string_view load) {
  return fmt::format("  {:<9} {:>8} {:>4} {:>9} {:>16} {:>10} {:<8} {:>4.0f}%{}\n", name, p.replicas, p.tp,
                     gigabytes(p.weight_bytes), thousands(p.kv_tokens), seconds(p.step_us), step, 100 * p.busy, load);
}

void phase_json(JsonWriter& w, const char* name, const PhasePlan& p) {
  w.key(name).object().field("replicas", p.replicas).field("tensor", p.tp).field("weight_bytes", p.weight_bytes);
  w.field("kv_tokens", p.kv_tokens).field("step_us", p.step_us).field("busy", p.busy).field("streams", p.streams);
  w.field("batch_max", p.batch_max).end();
}

}  // namespace

std::string render_flags(const Plan& p) {
  std::string out = cat("-e ", p.ask.environment);
  if (p.ask.gateway != p.environment->gateway) out += cat(" --gateway ", p.ask.gateway);
  if (p.ask.device != p.environment->device) out += cat(" --device ", p.ask.device);
  if (!p.ask.model.empty() && p.ask.model != p.environment->model) out += cat(" --model ", p.ask.model);
  if (p.ask.context != std::min(p.environment->context, p.shape.context)) out += cat(" --context ", p.ask.context);
  if (p.ask.rdma != "auto") out += cat(" --rdma ", p.ask.rdma);
  if (p.ask.kv_cache_dtype != "auto") out += cat(" --kv-cache-dtype ", p.ask.kv_cache_dtype);
  return out + cat(" --prefill ", p.prefill.replicas, " --prefill-tp ", p.prefill.tp, " --decode ", p.decode.replicas,
                   " --decode-tp ", p.decode.tp, " --devices ", p.ask.devices);
}

std::string plan_screen(const Plan& p, bool color) {
  const char *bold = color ? "\033[1m" : "", *green = color ? "\033[32m" : "", *off = color ? "\033[0m" : "";
  const Shape& s = p.shape;
  const double kv_prompt = static_cast<double>(s.kv_bytes_per_token) * p.ask.prompt_tokens;
  std::string out = fmt::format("{}baton deploy plan{}  {}: {} x {}, gateway {}\n\n", bold, off, p.ask.environment, p.ask.devices,
                                p.device->title, p.ask.gateway);
  out += fmt::format("  model     {}: {} parameters, {} of weights, {:.4g} KB of KV a token\n", s.name,
                     billions(s.parameters + s.head_parameters + s.embed_parameters), gigabytes(s.weight_bytes),
                     static_cast<double>(s.kv_bytes_per_token) / 1e3);
  out += fmt::format("  load      {} tokens in, {} out, {} requests/s{}; TTFT under {}, TPOT under {}\n\n", p.ask.prompt_tokens,
                     p.ask.output_tokens, rate_text(p.rate), p.ask.rate > 0 ? "" : " (all they carry)",
                     seconds(p.ask.ttft_ms * 1e3), seconds(p.ask.tpot_ms * 1e3));
  out += fmt::format("  {:<9} {:>8} {:>4} {:>9} {:>16} {:>10} {:<8} {:>5}\n", "", "replicas", "TP", "weights", "KV room, tokens",
                     "time", "", "busy");
  out += row("prefill", p.prefill, "a prompt", "");
  out += row("decode", p.decode, "a token", fmt::format("  {:.0f} streams each, of {}", p.decode.streams, p.decode.batch_max));
  const auto device_us = [](const PhasePlan& w) { return w.busy * w.replicas * w.tp; };
  out += fmt::format(
      "\n  why       TP {} holds the weights and a request of {} tokens; prefill wants as few devices a worker as that\n"
      "            takes, decode the width that serves most streams in time. The ratio follows the work:\n"
      "            {:.1f} devices' worth of prompts, {:.1f} of answers.\n",
      p.prefill.tp, thousands(p.ask.context), device_us(p.prefill), device_us(p.decode));
  out += fmt::format("  KV        {} a prompt over {}: {}\n",
                     kv_prompt < 1e9 ? fmt::format("{:.0f} MB", kv_prompt / 1e6) : gigabytes(kv_prompt),
                     p.environment->baton_engine ? "shared memory or TCP"
                     : p.rdma                    ? "RDMA, 400 Gb/s"
                                                 : "TCP, 25 Gb/s (RDMA would be faster: RDMA_RESOURCE)",
                     seconds(p.hand_over_us));
  out += fmt::format("  expect    TTFT {} ({} of it waiting), TPOT {}, up to {} requests/s\n", seconds(p.ttft_us),
                     seconds(p.wait_us), seconds(p.tpot_us), rate_text(p.rate_max));
  out += fmt::format("{}verdict: fits{}, {} of {} devices", green, off, p.devices_used(), p.ask.devices);
  if (p.devices_used() < p.ask.devices) out += fmt::format("; {} to spare", p.ask.devices - p.devices_used());
  return out + cat("\nnext: baton deploy render ", render_flags(p), "\n");
}

std::string plan_json(const Plan& p) {
  JsonWriter w;
  w.object()
      .field("fits", true)
      .field("environment", p.ask.environment)
      .field("gateway", p.ask.gateway)
      .field("model", p.shape.name);
  w.field("device", p.ask.device).field("devices", p.ask.devices).field("devices_used", p.devices_used()).field("rdma", p.rdma);
  w.field("parameters", p.shape.parameters + p.shape.head_parameters + p.shape.embed_parameters)
      .field("weight_bytes", p.shape.weight_bytes);
  w.field("kv_bytes_per_token", p.shape.kv_bytes_per_token).field("context", p.ask.context);
  w.field("prompt_tokens", p.ask.prompt_tokens)
      .field("output_tokens", p.ask.output_tokens)
      .field("rate", p.rate)
      .field("rate_max", p.rate_max);
  phase_json(w, "prefill", p.prefill);
  phase_json(w, "decode", p.decode);
  w.field("wait_us", p.wait_us).field("hand_over_us", p.hand_over_us).field("ttft_us", p.ttft_us).field("tpot_us", p.tpot_us);
  return w.field("render", render_flags(p)).end().take() + "\n";
}

std::string no_plan_text(const NoPlan& no) {
  std::string out = no.reason;
  for (const std::string& line : no.advice) out += cat("\n  -> ", line);
  return out;
}

std::string no_plan_json(const NoPlan& no) {
  JsonWriter w;
  w.object().field("fits", false).field("reason", no.reason).key("advice").array();
  for (const std::string& line : no.advice) w.value(line);
  return w.end().end().take() + "\n";
}

}  // namespace baton::deploy
