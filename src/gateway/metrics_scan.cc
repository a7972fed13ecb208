#include "gateway/metrics_scan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace baton::gateway {
namespace {

struct Sample {
  std::string_view name, labels;
  double value = 0;
};

// End of a label set that starts at text[0] == '{', its '}' included; npos if there is none. Braces inside quotes do not count.
size_t end_of_labels(std::string_view text) {
  bool quoted = false;
  for (size_t i = 1; i < text.size(); ++i) {
    if (quoted && text[i] == '\\')
      ++i;
    else if (text[i] == '"')
      quoted = !quoted;
    else if (text[i] == '}' && !quoted)
      return i + 1;
  }
  return std::string_view::npos;
}

std::optional<Sample> parse_line(std::string_view line) {
  Sample sample;
  const size_t name_end = line.find_first_of("{ \t");
  if (name_end == std::string_view::npos) return std::nullopt;
  sample.name = line.substr(0, name_end);
  line.remove_prefix(name_end);
  if (line.front() == '{') {
    const size_t end = end_of_labels(line);
    if (end == std::string_view::npos) return std::nullopt;
    sample.labels = line.substr(1, end - 2);
    line.remove_prefix(end);
  }
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), sample.value);
  const bool ended = end == line.data() + line.size() || *end == ' ' || *end == '\t' || *end == '\r';  // a timestamp may follow
  if (error != std::errc() || !ended || !std::isfinite(sample.value)) return std::nullopt;
  return sample;
}

std::optional<int32_t> label_number(std::string_view labels, std::string_view name) {
  for (size_t at = labels.find(name); at != std::string_view::npos; at = labels.find(name, at + 1)) {
    const bool starts = at == 0 || labels[at - 1] == ',' || labels[at - 1] == ' ';
    std::string_view rest = labels.substr(at + name.size());
    if (!starts || !rest.starts_with("=\"")) continue;
    rest.remove_prefix(2);
    int32_t value = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    if (error == std::errc() && end != rest.data() + rest.size() && *end == '"' && value > 0) return value;
  }
  return std::nullopt;
}

int32_t count_of(double value) { return static_cast<int32_t>(std::clamp(value, 0.0, 1e9)); }

}  // namespace

Scraped scan_metrics(std::string_view text) {
  Scraped out;
  double kv_sum = 0;
  int kv_series = 0;
  while (!text.empty()) {
    const size_t newline = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(std::min(newline + 1, text.size()));
    if (!line.starts_with("vllm:")) continue;  // comments and everything not an engine's are left here
    const auto sample = parse_line(line);
    if (!sample) continue;
    if (sample->name == "vllm:num_requests_waiting") {
      out.waiting = std::min(1'000'000'000, out.waiting.value_or(0) + count_of(sample->value));
    } else if (sample->name == "vllm:num_requests_running") {
      out.running = std::min(1'000'000'000, out.running.value_or(0) + count_of(sample->value));
    } else if (sample->name == "vllm:kv_cache_usage_perc" || sample->name == "vllm:gpu_cache_usage_perc") {
      kv_sum += std::clamp(sample->value, 0.0, 1.0);
      ++kv_series;
    } else if (sample->name == "vllm:cache_config_info") {
      if (auto size = label_number(sample->labels, "block_size")) out.block_size = size;
    }
  }
  if (kv_series > 0) out.kv_usage = static_cast<float>(kv_sum / kv_series);
  return out;
}

}  // namespace baton::gateway
