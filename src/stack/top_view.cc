#include "stack/top_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/json.h"
#include "stack/limits.h"

namespace baton::stack {
namespace {

constexpr std::string_view kPlain = "", kBold = "1", kDim = "2", kRed = "31", kGreen = "32", kYellow = "33", kBlue = "34",
                           kMagenta = "35", kCyan = "36";

int64_t integer(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value == nullptr ? 0 : value->as_int().value_or(0);
}
double number(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value == nullptr ? 0 : value->as_double().value_or(0);
}
std::string text(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value != nullptr && value->is_string() ? value->text : "";
}
bool flag(const Json& object, std::string_view key, bool otherwise) {
  const Json* value = object.find(key);
  return value == nullptr ? otherwise : value->as_bool().value_or(otherwise);
}

TopPool read_pool(const Json& json) {
  TopPool pool;
  pool.name = text(json, "pool");
  pool.synced = flag(json, "synced", true);
  pool.prefix_blocks = integer(json, "prefix_blocks"), pool.waiting = integer(json, "waiting");
  pool.saturation = number(json, "saturation");
  if (const Json* list = json.find("endpoints")) {
    for (const Json& e : list->items) {
      pool.endpoints.push_back({.role = text(e, "role"),
                                .address = text(e, "address"),
                                .name = text(e, "name"),
                                .healthy = flag(e, "healthy", false),
                                .age_ms = integer(e, "age_ms"),
                                .waiting = integer(e, "waiting"),
                                .running = integer(e, "running"),
                                .inflight_requests = integer(e, "inflight_requests"),
                                .inflight_tokens = integer(e, "inflight_tokens"),
                                .sent = integer(e, "sent"),
                                .kv_usage = number(e, "kv_usage")});
    }
  }
  if (const Json* list = json.find("decisions")) {
    for (const Json& d : list->items) {
      pool.decisions.push_back({.age_ms = integer(d, "age_ms"),
                                .prompt_tokens = integer(d, "prompt_tokens"),
                                .cached_tokens = integer(d, "cached_tokens"),
                                .prefill_cached_tokens = integer(d, "prefill_cached_tokens"),
                                .model = text(d, "target"),
                                .destination = text(d, "destination"),
                                .prefill = text(d, "prefill"),
                                .why = text(d, "why"),
                                .waited_ms = number(d, "waited_ms"),
                                .decide_us = number(d, "decide_us"),
                                .again = flag(d, "again", false)});
    }
  }
  // Roles together, prefill first, as requests meet them.
  std::ranges::sort(pool.endpoints, [](const TopEndpoint& a, const TopEndpoint& b) {
    auto order = [](const std::string& role) { return role == "prefill" ? 0 : role == "decode" ? 1 : 2; };
    return std::pair(order(a.role), a.address) < std::pair(order(b.role), b.address);
  });
  return pool;
}

std::string_view label(std::string_view labels, std::string_view name) {
  const std::string key = cat(name, "=\"");
  const size_t at = labels.find(key);
  if (at == labels.npos) return "";
  labels.remove_prefix(at + key.size());
  return labels.substr(0, labels.find('"'));
}

void read_sample(std::string_view name, std::string_view labels, double value, TopState& out) {
  if (name == "baton_gateway_requests_total") {
    out.answered += value;
    if (label(labels, "code") >= "500") out.failed += value;
  } else if (name == "baton_gateway_retries_total") {
    out.retries += value;
  } else if (name == "baton_gateway_resumed_streams_total" && label(labels, "result") == "resumed") {
    out.resumed += value;
  } else if (name == "baton_gateway_rejected_total") {
    out.rejected += value;
  } else if (name == "baton_gateway_first_byte_seconds_bucket") {
    const std::string_view le = label(labels, "le");
    double bound = INFINITY;
    if (le != "+Inf") std::from_chars(le.data(), le.data() + le.size(), bound);
    out.first_byte[bound] += value;
  }
}

void read_samples(std::string_view metrics, TopState& out) {
  while (!metrics.empty()) {
    const std::string_view line = metrics.substr(0, metrics.find('\n'));
    metrics.remove_prefix(std::min(line.size() + 1, metrics.size()));
    if (!line.starts_with("baton_gateway_")) continue;
    const size_t brace = line.find('{'), space = line.rfind(' ');
    if (space == line.npos) continue;
    double value = 0;
    std::from_chars(line.data() + space + 1, line.data() + line.size(), value);
    read_sample(line.substr(0, std::min(brace, space)), brace < space ? line.substr(brace, space - brace) : "", value, out);
  }
}

// Quantile of what was observed between two looks, in seconds; -1 if nothing was.
double quantile(const std::map<double, double>& now, const std::map<double, double>& before, double q) {
  auto since = [&](double bound, double count) {
    const auto at = before.find(bound);
    return count - (at == before.end() ? 0 : at->second);
  };
  if (now.empty()) return -1;
  const double all = since(now.rbegin()->first, now.rbegin()->second);
  double low = 0, below = 0;
  for (const auto& [bound, count] : now) {
    const double upto = since(bound, count);
    if (all > 0 && upto >= q * all) {
      if (std::isinf(bound)) return low;
      return low + (bound - low) * (q * all - below) / std::max(upto - below, 1e-9);
    }
    low = bound, below = upto;
  }
  return -1;
}

std::string grouped(int64_t n) {
  std::string digits = std::to_string(n < 0 ? -n : n), out = n < 0 ? "-" : "";
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string milliseconds(double s) {
  if (s < 0) return "-";
  return s < 0.01 ? fmt::format("{:.1f} ms", s * 1e3) : s < 10 ? fmt::format("{:.0f} ms", s * 1e3) : fmt::format("{:.1f} s", s);
}

size_t cells_of(std::string_view s) {  // every character we print is one cell wide
  return static_cast<size_t>(std::ranges::count_if(s, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// One line, cut at the width; text from outside loses its control characters.
class Line {
 public:
  explicit Line(const TopLook& look) : look_(look) {}
  Line& put(std::string_view s, std::string_view style = kPlain) {
    std::string clean;
    for (char c : s) clean += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    size_t n = cells_of(clean);
    while (cells_ + n > look_.width && !clean.empty()) {
      do {
        last_ = clean.back();
        clean.pop_back();
      } while ((static_cast<unsigned char>(last_) & 0xC0) == 0x80 && !clean.empty());
      n = cells_of(clean);
    }
    if (clean.empty()) return *this;
    out_ += look_.color && !style.empty() ? fmt::format("\033[{}m{}\033[0m", style, clean) : clean;
    cells_ += n;
    return *this;
  }
  Line& left(std::string_view s, size_t width, std::string_view style = kPlain) {
    put(shortened(s, width), style);
    return space(width - std::min(cells_of(s), width));
  }
  Line& right(std::string_view s, size_t width, std::string_view style = kPlain) {
    space(width - std::min(cells_of(s), width));
    return put(shortened(s, width), style);
  }
  Line& space(size_t n) { return put(std::string(n, ' ')); }
  Line& to(size_t column) { return cells_ < column ? space(column - cells_) : *this; }
  Line& bar(double part, size_t width, std::string_view style) {
    part = std::clamp(part, 0.0, 1.0);
    if (look_.ascii) {
      const auto full = static_cast<size_t>(std::lround(part * static_cast<double>(width)));
      return put(std::string(full, '#'), style).put(std::string(width - full, '.'), kDim);
    }
    static constexpr std::string_view kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const auto eighths = static_cast<size_t>(std::lround(part * static_cast<double>(width) * 8));
    std::string full;
    for (size_t i = 0; i < eighths / 8; ++i) full += "█";
    full += kEighths[eighths % 8];
    std::string rest;
    for (size_t i = cells_of(full); i < width; ++i) rest += "·";
    return put(full, style).put(rest, kDim);
  }
  std::string take() { return std::move(out_); }

 private:
  static std::string shortened(std::string_view s, size_t width) {
    if (cells_of(s) <= width) return std::string(s);
    size_t end = s.size(), cells = cells_of(s);
    while (cells > width && end > 0) cells -= (static_cast<unsigned char>(s[--end]) & 0xC0) != 0x80;
    return std::string(s.substr(0, end));
  }
  const TopLook& look_;
  std::string out_;
  size_t cells_ = 0;
  char last_ = 0;
};

std::string_view level_style(double part) { return part >= 0.9 ? kRed : part >= 0.7 ? kYellow : kGreen; }
std::string_view role_style(std::string_view role) { return role == "prefill" ? kCyan : role == "decode" ? kMagenta : kBlue; }

class Drawing {
 public:
  Drawing(const TopState& now, const TopState* before, const TopLook& look) : now_(now), before_(before), look_(look) {
    seconds_ = before ? std::max(1e-3, now.at_s - before->at_s) : 0;
  }
  std::vector<std::string> lines;

  void head(std::string_view title) {
    size_t workers = 0, up = 0;
    for (const TopPool& pool : now_.pools) {
      workers += pool.endpoints.size();
      up += static_cast<size_t>(std::ranges::count_if(pool.endpoints, &TopEndpoint::healthy));
    }
    Line line(look_);
    line.put("baton top", kBold).put("  ").put(title, kDim).put("   ");
    if (now_.pools.size() > 1) line.put(cat(now_.pools.size(), " pools   "));
    line.put(cat(up, " of ", workers, " workers up"), up == workers && up > 0 ? kGreen : kRed);
    if (now_.draining) line.put("   draining", kYellow);
    add(line);
    Line sums(look_);
    auto item = [&](std::string_view name, std::string value, std::string_view style = kBold) {
      sums.put(name, kDim).put(" ").put(value, style).put("   ");
    };
    item("requests/s", rate(now_.answered, before_ ? before_->answered : 0));
    item("in flight", grouped(now_.requests));
    const auto none = std::map<double, double>();
    const auto& then = before_ ? before_->first_byte : none;
    item("first byte p50", milliseconds(quantile(now_.first_byte, then, 0.5)));
    item("p95", milliseconds(quantile(now_.first_byte, then, 0.95)));
    item("retries", count(now_.retries), now_.retries > 0 ? kYellow : kBold);
    item("resumed", count(now_.resumed), now_.resumed > 0 ? kYellow : kBold);
    item("refused", count(now_.rejected), now_.rejected > 0 ? kYellow : kBold);
    item("failed", count(now_.failed), now_.failed > 0 ? kRed : kBold);
    add(sums);
  }

  void pool(const TopPool& pool) {
    lines.emplace_back();
    Line line(look_);
    line.put("pool ", kDim).put(pool.name, kBold).put("   ").put("load ", kDim);
    line.bar(pool.saturation, 10, level_style(pool.saturation)).put(fmt::format(" {:.0f}%", 100 * pool.saturation));
    line.put("   queued ", kDim).put(grouped(pool.waiting), pool.waiting > 0 ? kYellow : kPlain);
    line.put("   prefix index ", kDim).put(cat(grouped(pool.prefix_blocks), " blocks"));
    if (!pool.synced) line.put("   not synced", kRed);
    add(line);
    size_t widest = 8;
    bool named = false;
    for (const TopEndpoint& e : pool.endpoints) {
      widest = std::max(widest, shown(e).size());
      named |= !e.name.empty();
    }
    widest = std::min<size_t>(widest, 40);
    Line head(look_);
    head.put("  ")
        .left("role", 9, kDim)
        .left("worker", widest + 2, kDim)
        .left(named ? "address" : "", named ? 22 : 0, kDim)
        .left("state", 7, kDim)
        .right("running", 8, kDim);
    head.right("waiting", 9, kDim)
        .put("  ")
        .left("kv cache", 16, kDim)
        .right("in flight", 10, kDim)
        .right("prompt due", 12, kDim);
    head.right("sent/s", 9, kDim);
    add(head);
    if (pool.endpoints.empty()) add(Line(look_).put("  no workers: requests get 503", kRed));
    for (const TopEndpoint& e : pool.endpoints) endpoint(e, widest, named, before_pool(pool.name));
    decisions(pool);
  }

 private:
  void add(Line& line) { lines.push_back(line.take()); }
  void add(Line&& line) { lines.push_back(line.take()); }
  static std::string shown(const TopEndpoint& e) { return e.name.empty() ? e.address : e.name; }
  std::string rate(double now, double before) const {
    return before_ ? fmt::format("{:.1f}", std::max(0.0, now - before) / seconds_) : "-";
  }
  static std::string count(double v) { return grouped(static_cast<int64_t>(v)); }

  const TopPool* before_pool(std::string_view name) const {
    if (before_ == nullptr) return nullptr;
    const auto at = std::ranges::find(before_->pools, name, &TopPool::name);
    return at == before_->pools.end() ? nullptr : &*at;
  }

  void endpoint(const TopEndpoint& e, size_t widest, bool named, const TopPool* before) {
    std::string sent = "-";
    if (before != nullptr) {
      const auto old = std::ranges::find(before->endpoints, e.address, &TopEndpoint::address);
      if (old != before->endpoints.end()) sent = rate(static_cast<double>(e.sent), static_cast<double>(old->sent));
    }
    Line line(look_);
    line.put("  ").left(e.role, 9, role_style(e.role)).left(shown(e), widest + 2);
    if (named) line.left(e.address, 22, kDim);
    line.left(e.healthy ? "up" : "down", 7, e.healthy ? kGreen : kRed);
    const bool known = e.healthy && e.age_ms >= 0;
    line.right(known ? grouped(e.running) : "-", 8)
        .right(known ? grouped(e.waiting) : "-", 9, e.waiting > 0 ? kYellow : kPlain)
        .put("  ");
    if (known)
      line.bar(e.kv_usage, 10, level_style(e.kv_usage)).right(fmt::format("{:.0f}%", 100 * e.kv_usage), 6);
    else
      line.left("-", 16);
    line.right(grouped(e.inflight_requests), 10).right(grouped(e.inflight_tokens), 12).right(sent, 9);
    add(line);
  }

  void decisions(const TopPool& pool) {
    if (pool.decisions.empty()) return;
    std::map<std::string, int> whys;
    int64_t prompt = 0, cached = 0;
    for (const TopDecision& d : pool.decisions) {
      ++whys[d.why];
      prompt += d.prompt_tokens;
      cached += std::min(d.prompt_tokens, std::max(d.cached_tokens, d.prefill_cached_tokens));
    }
    std::vector<std::pair<std::string, int>> rows(whys.begin(), whys.end());
    std::ranges::sort(rows,
                      [](const auto& a, const auto& b) { return std::pair(b.second, a.first) < std::pair(a.second, b.first); });
    const auto all = static_cast<double>(pool.decisions.size());
    lines.emplace_back();
    add(Line(look_).put(cat("  why, of the last ", pool.decisions.size(), " decisions"), kDim));
    for (const auto& [why, n] : rows) {
      add(Line(look_).put("  ").left(why, 24).bar(n / all, 20, kBlue).right(fmt::format("{:.0f}%", 100 * n / all), 6));
    }
    const double hit = prompt > 0 ? static_cast<double>(cached) / static_cast<double>(prompt) : 0;
    add(Line(look_)
            .put("  ")
            .left("prompt tokens cached", 24, kDim)
            .bar(hit, 20, kGreen)
            .right(fmt::format("{:.0f}%", 100 * hit), 6));
    lines.emplace_back();
    Line head(look_);
    head.put("  ")
        .right("age", 7, kDim)
        .put("  ")
        .left("model", 22, kDim)
        .right("prompt", 8, kDim)
        .right("cached", 8, kDim)
        .put("  ");
    head.left("why", 24, kDim).left("prefill > decode", 42, kDim).right("us", 6, kDim);
    add(head);
    for (size_t i = 0; i < std::min<size_t>(pool.decisions.size(), kTopDecisionsMax); ++i) decision(pool, pool.decisions[i]);
  }

  static std::string name_of(const TopPool& pool, const std::string& address) {
    const auto at = std::ranges::find(pool.endpoints, address, &TopEndpoint::address);
    return at == pool.endpoints.end() ? address : shown(*at);
  }

  void decision(const TopPool& pool, const TopDecision& d) {
    const double age = static_cast<double>(d.age_ms) / 1000;
    Line line(look_);
    line.put("  ").right(age < 100 ? fmt::format("{:.1f} s", age) : fmt::format("{:.0f} s", age), 7).put("  ").left(d.model, 22);
    const int64_t cached = std::max(d.cached_tokens, d.prefill_cached_tokens);
    line.right(grouped(d.prompt_tokens), 8).right(grouped(cached), 8, cached > 0 ? kGreen : kPlain).put("  ").left(d.why, 24);
    const std::string decode = name_of(pool, d.destination);
    const std::string way = d.prefill.empty() ? decode : cat(name_of(pool, d.prefill), look_.ascii ? " > " : " → ", decode);
    line.left(cat(way, d.again ? " (again)" : ""), 42).right(fmt::format("{:.0f}", d.decide_us), 6);
    add(line);
  }

  const TopState& now_;
  const TopState* before_;
  const TopLook& look_;
  double seconds_ = 0;
};

}  // namespace

Result<TopState> read_top(std::string_view state, std::string_view metrics, double at_s) {
  BATON_TRY(const Json root, parse_json(state, {.bytes_max = kTopBytesMax, .nodes_max = 1u << 20, .depth_max = 16}));
  if (!root.is_object()) return fail(Code::kInvalidArgument, "the router's state is no JSON object");
  TopState out;
  out.at_s = at_s;
  out.requests = integer(root, "requests");
  out.draining = flag(root, "draining", false);
  if (const Json* pools = root.find("pools"); pools != nullptr && pools->is_array()) {
    for (const Json& pool : pools->items) out.pools.push_back(read_pool(pool));
  } else {
    out.pools.push_back(read_pool(root));
  }
  read_samples(metrics, out);
  return out;
}

std::vector<std::string> draw_top(const TopState& now, const TopState* before, std::string_view title, const TopLook& look) {
  Drawing drawing(now, before, look);
  drawing.head(title);
  for (const TopPool& pool : now.pools) drawing.pool(pool);
  auto lines = std::move(drawing.lines);
  if (look.height > 1 && lines.size() > look.height - 1) lines.resize(look.height - 1);
  return lines;
}

}  // namespace baton::stack
