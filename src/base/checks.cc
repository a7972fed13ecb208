#include "base/checks.h"

#include "base/json.h"

namespace baton {

std::string checks_screen(std::string_view title, const std::vector<CheckResult>& results, bool color) {
  static constexpr std::string_view kWords[] = {"ok  ", "note", "FAIL"}, kColors[] = {"\033[32m", "\033[33m", "\033[31m"};
  std::string out = cat(title, "\n");
  size_t counts[3] = {};
  for (const CheckResult& r : results) {
    const auto v = static_cast<size_t>(r.verdict);
    ++counts[v];
    out += cat("  ", color ? kColors[v] : "", kWords[v], color ? "\033[0m" : "", "  ", r.name,
               std::string(28 - std::min<size_t>(27, r.name.size()), ' '), r.detail, "\n");
    if (!r.advice.empty()) out += cat("        -> ", r.advice, "\n");
  }
  out += cat("verdict: ", counts[2] == 0 ? "right" : "not right", ", ", counts[0], " checks passed");
  if (counts[1] > 0) out += cat(", ", counts[1], " to note");
  if (counts[2] > 0) out += cat(", ", counts[2], " failed");
  return out + "\n";
}

std::string checks_json(const std::vector<CheckResult>& results) {
  static constexpr std::string_view kWords[] = {"ok", "note", "failed"};
  JsonWriter w;
  w.object().field("right", first_failure(results) == nullptr).key("checks").array();
  for (const CheckResult& r : results) {
    w.object().field("name", r.name).field("verdict", kWords[static_cast<size_t>(r.verdict)]).field("detail", r.detail);
    w.field("advice", r.advice).end();
  }
  return w.end().end().take() + "\n";
}

const CheckResult* first_failure(const std::vector<CheckResult>& results) {
  for (const CheckResult& r : results) {
    if (r.verdict == CheckResult::Verdict::kFailed) return &r;
  }
  return nullptr;
}

}  // namespace baton
