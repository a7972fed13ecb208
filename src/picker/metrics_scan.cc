#include "picker/metrics_scan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "picker/limits.h"

namespace baton::picker {
namespace {

struct EngineRow {
  std::string_view name, waiting, running, kv_usage, kv_usage_old, lora, cache_info;
  std::string_view size_label, count_label;     // of cache_info
  std::string_view block_tokens, blocks_total;  // where they are series of their own
};
constexpr std::array<EngineRow, 5> kEngines = {{
    {"vllm", "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc",
     "vllm:lora_requests_info", "vllm:cache_config_info", "block_size", "num_gpu_blocks", "", ""},
    {"sglang", "sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage", "", "", "sglang:cache_config_info",
     "page_size", "num_pages", "", ""},
    {"trtllm-serve", "trtllm_num_requests_waiting", "trtllm_num_requests_running", "trtllm_kv_cache_utilization", "", "", "", "",
     "", "trtllm_kv_cache_tokens_per_block", "trtllm_kv_cache_max_blocks"},
    {"triton-tensorrt-llm", R"(nv_trt_llm_request_metrics{request_type="waiting"})",
     R"(nv_trt_llm_request_metrics{request_type="scheduled"})",
     R"(nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"})", "", "", "", "", "",
     R"(nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per"})",
     R"(nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max"})"},
    {"triton", "nv_inference_pending_request_count", "nv_inference_exec_count", "", "", "", "", "", "", "", ""},
}};

bool name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == ':';
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}

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

// The label's value as written between the quotes, escapes and all.
std::optional<std::string_view> label_text(std::string_view labels, std::string_view name) {
  for (size_t i = 0; i < labels.size();) {
    while (i < labels.size() && (labels[i] == ',' || labels[i] == ' ')) ++i;
    const size_t key = i;
    while (i < labels.size() && labels[i] != '=') ++i;
    const std::string_view key_text = trim(labels.substr(key, i - key));
    while (i < labels.size() && labels[i] != '"') ++i;
    const size_t value = ++i;
    while (i < labels.size() && labels[i] != '"') i += labels[i] == '\\' ? 2 : 1;
    if (i >= labels.size()) return std::nullopt;
    if (key_text == name) return labels.substr(value, i - value);
    ++i;
  }
  return std::nullopt;
}

std::string unescaped(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\\' && i + 1 < s.size())
      out += s[++i] == 'n' ? '\n' : s[i];
    else
      out += s[i];
  }
  return out;
}

int64_t label_count(std::string_view labels, std::string_view name) {
  const auto text = label_text(labels, name);
  int64_t value = 0;
  if (!text) return 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  return error == std::errc() && end == text->data() + text->size() && value > 0 ? value : 0;
}

std::vector<std::string> adapters(std::string_view labels, std::string_view name) {
  std::vector<std::string> out;
  const std::string list = unescaped(label_text(labels, name).value_or(""));
  std::string_view rest = list;
  while (!rest.empty() && out.size() < kLorasPerEndpointMax) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view one = trim(rest.substr(0, comma));
    if (!one.empty()) out.emplace_back(one);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return out;
}

std::optional<double> number(std::string_view text) {
  double value = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  const bool ended = end == last || *end == ' ' || *end == '\t' || *end == '\r';  // a timestamp may follow
  if (error != std::errc() || !ended || !std::isfinite(value)) return std::nullopt;
  return value;
}

int32_t small_count(double value) { return static_cast<int32_t>(std::clamp(value, 0.0, 1e9)); }

}  // namespace

struct MetricsScanner::Tally {
  Scanned out;
  double kv_sum = 0, lora_time = 0;
  int kv_series = 0;

  static void add(std::optional<int32_t>& sum, double value) {
    sum = std::min(1'000'000'000, sum.value_or(0) + small_count(value));
  }
  void add_blocks(int64_t blocks) {
    if (blocks > 0)
      out.blocks_total =
          std::min<int64_t>(1'000'000'000'000, out.blocks_total.value_or(0) + std::min<int64_t>(blocks, 1'000'000'000));
  }
  void set_block_tokens(int64_t tokens) {
    if (tokens > 0 && tokens <= 1 << 20) out.block_tokens = static_cast<int32_t>(tokens);
  }
};

// name{label="value",other=value}: quotes around the value may be left out, as llm-d's configurations do.
Result<> MetricsScanner::want(std::string_view spec, Field field) {
  spec = trim(spec);
  if (spec.empty()) return {};
  Wanted wanted{.name = {}, .filters = {}, .field = field};
  const size_t brace = std::min(spec.find('{'), spec.size());
  wanted.name = trim(spec.substr(0, brace));
  if (wanted.name.empty() || !std::ranges::all_of(wanted.name, name_char))
    return fail(Code::kInvalidArgument, "\"", spec, "\" is no metric name");
  std::string_view rest = spec.substr(brace);
  if (!rest.empty()) {
    if (!rest.ends_with('}')) return fail(Code::kInvalidArgument, "\"", spec, "\": the label filter has no '}'");
    rest = rest.substr(1, rest.size() - 2);
  }
  while (!trim(rest).empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view one = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    const size_t equals = one.find('=');
    if (equals == std::string_view::npos) return fail(Code::kInvalidArgument, "\"", spec, "\": a label filter is label=value");
    std::string_view value = trim(one.substr(equals + 1));
    if (value.size() >= 2 && value.starts_with('"') && value.ends_with('"')) value = value.substr(1, value.size() - 2);
    wanted.filters.emplace_back(trim(one.substr(0, equals)), value);
  }
  wanted_.push_back(std::move(wanted));
  return {};
}

void MetricsScanner::finish() {
  prefix_ = wanted_.empty() ? "" : wanted_.front().name;
  for (const Wanted& wanted : wanted_) {
    const auto [a, b] = std::ranges::mismatch(prefix_, wanted.name);
    prefix_.resize(static_cast<size_t>(a - prefix_.begin()));
  }
  for (const Wanted& wanted : wanted_) {
    if (wanted.name.size() > prefix_.size())
      next_[static_cast<unsigned char>(wanted.name[prefix_.size()])] = true;
    else
      next_[static_cast<unsigned char>('{')] = next_[static_cast<unsigned char>(' ')] = next_[static_cast<unsigned char>('\t')] =
          true;
    const std::string one = cat("name[]=", wanted.name);
    if (query_.find(one) == std::string::npos) query_ += cat(query_.empty() ? "" : "&", one);
  }
}

Result<MetricsScanner> MetricsScanner::make(std::string_view engine, const route::SourceParams::Engine& custom) {
  const auto found = std::ranges::find(kEngines, engine, &EngineRow::name);
  const EngineRow& row = found == kEngines.end() ? kEngines.front() : *found;
  MetricsScanner scanner;
  const auto either = [](const std::string& own, std::string_view builtin) {
    return own.empty() ? builtin : std::string_view(own);
  };
  BATON_OK(scanner.want(either(custom.waiting, row.waiting), Field::kWaiting));
  BATON_OK(scanner.want(either(custom.running, row.running), Field::kRunning));
  BATON_OK(scanner.want(either(custom.kv_usage, row.kv_usage), Field::kKvUsage));
  if (custom.kv_usage.empty()) BATON_OK(scanner.want(row.kv_usage_old, Field::kKvUsage));
  BATON_OK(scanner.want(either(custom.lora, row.lora), Field::kLora));
  BATON_OK(scanner.want(either(custom.cache_info, row.cache_info), Field::kCacheInfo));
  BATON_OK(scanner.want(row.block_tokens, Field::kBlockTokens));
  BATON_OK(scanner.want(row.blocks_total, Field::kBlocksTotal));
  scanner.size_label_ = row.size_label.empty() ? "block_size" : row.size_label;
  scanner.count_label_ = row.count_label.empty() ? "num_gpu_blocks" : row.count_label;
  scanner.finish();
  return scanner;
}

// rest: the line behind the name.
void MetricsScanner::take(const Wanted& wanted, std::string_view rest, Tally& tally) const {
  std::string_view labels;
  if (rest.front() == '{') {
    const size_t end = end_of_labels(rest);
    if (end == std::string_view::npos) return;
    labels = rest.substr(1, end - 2);
    rest.remove_prefix(end);
  }
  for (const auto& [name, value] : wanted.filters) {
    if (label_text(labels, name) != std::string_view(value)) return;
  }
  const auto value = number(trim(rest));
  if (!value) return;
  switch (wanted.field) {
    case Field::kWaiting:
      return Tally::add(tally.out.waiting, *value);
    case Field::kRunning:
      return Tally::add(tally.out.running, *value);
    case Field::kKvUsage: {
      const double usage = std::clamp(*value, 0.0, 1.0);
      tally.kv_sum += usage;
      ++tally.kv_series;
      tally.out.kv_usage_max = std::max(tally.out.kv_usage_max.value_or(0), static_cast<float>(usage));
      return;
    }
    case Field::kLora:
      if (tally.out.lora && *value < tally.lora_time) return;
      tally.lora_time = *value;
      tally.out.lora = ScannedLora{.max = static_cast<int32_t>(std::min<int64_t>(label_count(labels, "max_lora"), 1 << 20)),
                                   .running = adapters(labels, "running_lora_adapters"),
                                   .waiting = adapters(labels, "waiting_lora_adapters")};
      return;
    case Field::kCacheInfo:
      tally.set_block_tokens(label_count(labels, size_label_));
      return tally.add_blocks(label_count(labels, count_label_));
    case Field::kBlockTokens:
      return tally.set_block_tokens(small_count(*value));
    case Field::kBlocksTotal:
      return tally.add_blocks(small_count(*value));
  }
}

Scanned MetricsScanner::scan(std::string_view text) const {
  Tally tally;
  while (!text.empty()) {
    const size_t newline = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(std::min(newline + 1, text.size()));
    // Comments and nearly all of an engine's other lines end here, at one compare and one look-up.
    if (line.size() <= prefix_.size() || !line.starts_with(prefix_) || !next_[static_cast<unsigned char>(line[prefix_.size()])])
      continue;
    for (const Wanted& wanted : wanted_) {
      const size_t n = wanted.name.size();
      if (line.size() <= n || !line.starts_with(wanted.name) || (line[n] != '{' && line[n] != ' ' && line[n] != '\t')) continue;
      take(wanted, line.substr(n), tally);
    }
  }
  if (tally.kv_series > 0) tally.out.kv_usage = static_cast<float>(tally.kv_sum / tally.kv_series);
  return std::move(tally.out);
}

}  // namespace baton::picker
