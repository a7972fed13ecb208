#include "loadgen/config.h"

#include <algorithm>
#include <charconv>

#include "base/json.h"

namespace baton::loadgen {
namespace {

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(by), text.size());
    if (end > 0) out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

Result<double> number(std::string_view text) {
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(Code::kInvalidArgument, "\"", text, "\" is not a number");
  return v;
}

Result<std::pair<std::string, std::string>> key_value(std::string_view flag, std::string_view item) {
  const size_t equals = item.find('=');
  if (equals == std::string_view::npos || equals == 0)
    return fail(Code::kInvalidArgument, flag, " wants KEY=VALUE, not \"", item, "\"");
  return std::pair(std::string(item.substr(0, equals)), std::string(item.substr(equals + 1)));
}

// http://host:port/path
Result<> parse_url(std::string_view url, Target& out) {
  std::string_view rest = url;
  if (rest.starts_with("https://"))
    return fail(Code::kUnimplemented, "--base-url: https is not supported, put a TLS proxy in front");
  if (rest.starts_with("http://")) rest.remove_prefix(7);
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  out.base_path = rest.substr(slash);
  while (out.base_path.ends_with('/')) out.base_path.pop_back();
  out.port = 80;
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos) {
    const std::string_view port = authority.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (error != std::errc() || end != port.data() + port.size() || out.port < 1 || out.port > 65535) {
      return fail(Code::kInvalidArgument, "--base-url: bad port in \"", url, "\"");
    }
    authority = authority.substr(0, colon);
  }
  if (authority.starts_with('[') && authority.ends_with(']')) authority = authority.substr(1, authority.size() - 2);
  if (authority.empty()) return fail(Code::kInvalidArgument, "--base-url: no host in \"", url, "\"");
  out.host = authority;
  return {};
}

Result<Target> make_target(const BenchConfig& c) {
  Target target{
      .host = c.host, .base_path = "", .endpoint = c.endpoint, .port = c.port, .chat = c.backend == "openai-chat", .headers = {}};
  if (!c.base_url.empty()) BATON_OK(parse_url(c.base_url, target));
  if (target.endpoint.empty()) target.endpoint = target.chat ? "/v1/chat/completions" : "/v1/completions";
  if (!target.endpoint.starts_with('/')) return fail(Code::kInvalidArgument, "--endpoint must start with /");
  for (const std::string& item : c.headers) {
    BATON_TRY(auto header, key_value("--header", item));
    target.headers.push_back(std::move(header));
  }
  if (!c.api_key.empty()) target.headers.emplace_back("Authorization", "Bearer " + c.api_key);
  return target;
}

}  // namespace

Options bench_options(BenchConfig& c) {
  constexpr double kMax = std::numeric_limits<double>::infinity();
  Options o("baton bench", "Load an OpenAI-compatible server and report throughput and latency; flags as in `vllm bench serve`.",
            "baton bench [--port PORT] [--max-concurrency N | --request-rate R] [--num-prompts N]");
  o.group("Server")
      .add("backend", &c.backend, "API to speak: completions or chat", {"openai", "openai-chat", "vllm"})
      .add("base-url", &c.base_url, "http://host:port[/path], instead of --host and --port")
      .add("host", &c.host, "server address")
      .add("port", &c.port, "port", "server port", 1, 65535)
      .add("endpoint", &c.endpoint, "request path; empty = the backend's own")
      .add("model", &c.model, "model name; empty = the first that the server lists")
      .add("served-model-name", &c.served_model_name, "name to send, if it differs from --model")
      .add("header", &c.headers, "KEY=VALUE sent with every request")
      .add("api-key", &c.api_key, "bearer token")
      .env("OPENAI_API_KEY")
      .add("ready-check-timeout-sec", &c.ready_check_timeout_sec, "s", "wait this long for the server to list a model");
  o.group("Prompts")
      .add("num-prompts", &c.num_prompts, "requests", "how many to send", 1, 100'000'000)
      .add("dataset-name", &c.dataset_name, "random, or custom for --dataset-path", {"", "random", "custom"})
      .add("dataset-path", &c.dataset_path, "JSON lines with \"prompt\" and optionally \"output_len\"")
      .add("input-len", &c.input_len, "tokens", "short for --random-input-len")
      .add("output-len", &c.output_len, "tokens", "short for --random-output-len and --custom-output-len")
      .add("random-input-len", &c.random_input_len, "tokens", "prompt length", 1, 10'000'000)
      .add("random-output-len", &c.random_output_len, "tokens", "answer length", 1, 10'000'000)
      .add("random-range-ratio", &c.random_range_ratio, "", "lengths vary by this share up and down", 0, 0.999)
      .add("random-prefix-len", &c.random_prefix_len, "tokens", "shared by all prompts, before the random part", 0, 10'000'000)
      .add("custom-output-len", &c.custom_output_len, "tokens", "answer length where the dataset names none", 1, 10'000'000)
      .add("seed", &c.seed, "", "of prompts and arrivals");
  o.group("Traffic")
      .add("max-concurrency", &c.max_concurrency, "requests", "at most this many at a time; 0 = no limit", 0, 1'000'000)
      .add("request-rate", &c.request_rate, "req/s", "arrivals; inf = all at once", 1e-9, kMax)
      .add("burstiness", &c.burstiness, "", "1 = Poisson; below, burstier; above, more even (gamma)", 1e-3, 1e6)
      .add("num-warmups", &c.num_warmups, "requests", "sent before and not counted", 0, 1'000'000);
  o.group("Sampling")
      .add("ignore-eos", &c.ignore_eos, "go on past the end token; always on for random prompts")
      .add("temperature", &c.temperature, "", "-1 = the server's default", -1, kMax)
      .add("top-p", &c.top_p, "", "-1 = the server's default", -1, 1)
      .add("top-k", &c.top_k, "", "-2 = the server's default", -2)
      .add("min-p", &c.min_p, "", "-1 = the server's default", -1, 1)
      .add("repetition-penalty", &c.repetition_penalty, "", "-1 = the server's default", -1, kMax)
      .add("extra-body", &c.extra_body, "JSON object merged into every request")
      .add("request-id-prefix", &c.request_id_prefix, "of x-request-id; empty = random");
  o.group("Report")
      .add("percentile-metrics", &c.percentile_metrics,
           "of ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue")
      .add("metric-percentiles", &c.metric_percentiles, "comma list")
      .add("goodput", &c.goodput, "KEY:MS of ttft, tpot, e2el: requests that meet all of them are goodput")
      .add("save-result", &c.save_result, "write a JSON file with vllm bench serve's keys")
      .add("save-detailed", &c.save_detailed, "with every request in it")
      .add("append-result", &c.append_result, "append to the file")
      .add("result-dir", &c.result_dir, "directory of the file")
      .add("result-filename", &c.result_filename, "name of the file; empty = made from rate, model and date")
      .add("label", &c.label, "first part of the file name")
      .add("metadata", &c.metadata, "KEY=VALUE kept in the file")
      .add("disable-tqdm", &c.disable_tqdm, "no progress bar");
  o.ignore({"trust-remote-code", "skip-tokenizer-init"});
  o.unknown_is_warning("vllm bench serve");
  return o;
}

Result<BenchPlan> check_config(const BenchConfig& c) {
  BenchPlan plan;
  BATON_TRY(plan.target, make_target(c));
  static constexpr std::string_view kMetrics[] = {
      "ttft", "tpot", "itl", "e2el", "client_queue_time", "e2el_including_client_queue"};
  for (std::string_view metric : split(c.percentile_metrics, ',')) {
    if (std::ranges::find(kMetrics, metric) == std::end(kMetrics)) {
      return fail(Code::kInvalidArgument, "--percentile-metrics: \"", metric,
                  "\" is none of ttft, tpot, itl, e2el, client_queue_time, "
                  "e2el_including_client_queue");
    }
    plan.metrics.emplace_back(metric);
  }
  for (std::string_view p : split(c.metric_percentiles, ',')) {
    auto v = number(p);
    if (!v || *v < 0 || *v > 100) return fail(Code::kInvalidArgument, "--metric-percentiles: \"", p, "\" is not a percentile");
    plan.percentiles.push_back(*v);
  }
  for (const std::string& slo : c.goodput) {
    const size_t colon = slo.find(':');
    const std::string name = slo.substr(0, colon);
    auto v = number(colon == std::string::npos ? "" : std::string_view(slo).substr(colon + 1));
    if (!v || *v < 0 || (name != "ttft" && name != "tpot" && name != "e2el")) {
      return fail(Code::kInvalidArgument, "--goodput wants ttft:MS, tpot:MS or e2el:MS, not \"", slo, "\"");
    }
    plan.goodput_ms[name] = *v;
  }
  for (const std::string& item : c.metadata) {
    BATON_TRY(auto pair, key_value("--metadata", item));
    plan.metadata.push_back(std::move(pair));
  }
  if (!c.extra_body.empty()) {
    auto body = parse_json(c.extra_body);
    if (!body || !body->is_object()) return fail(Code::kInvalidArgument, "--extra-body must be a JSON object");
  }
  if (c.dataset_name == "custom" && c.dataset_path.empty())
    return fail(Code::kInvalidArgument, "--dataset-name custom needs --dataset-path");
  if (c.dataset_name == "random" && !c.dataset_path.empty())
    return fail(Code::kInvalidArgument, "--dataset-name random takes no --dataset-path");
  return plan;
}

}  // namespace baton::loadgen
