// load_config: what a file says, as text cases (tests/cases/route/config/*.case), and that what is printed loads to an equal
// plan.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/prng.h"
#include "route/config.h"
#include "route/config_parts.h"
#include "route/plugins.h"

namespace baton::route {
namespace {

// A case file: the configuration, then a line "---" and what is expected of it, one a line:
//   experimental | flow-control        load options, they may stand anywhere below the line
//   error TEXT      an error contains TEXT        warning TEXT    a warning does
//   printed TEXT    a line of what is printed, blanks around it left out
//   absent TEXT     no line of it contains TEXT
// With no "error" line the file must load; every error and every warning must be expected by a line.
struct ConfigCase {
  std::string name, text;
  std::vector<std::pair<std::string, std::string>> expected;
};

std::vector<ConfigCase> config_cases() {
  std::vector<ConfigCase> out;
  for (const auto& entry : std::filesystem::directory_iterator(BATON_SOURCE_DIR "/tests/cases/route/config")) {
    if (entry.path().extension() != ".case") continue;
    ConfigCase c{entry.path().filename().string(), "", {}};
    std::ifstream in(entry.path());
    bool below = false;
    for (std::string line; std::getline(in, line);) {
      if (line == "---") {
        below = true;
      } else if (!below) {
        c.text += line + "\n";
      } else if (!line.empty() && line[0] != '#') {
        const size_t blank = std::min(line.find(' '), line.size());
        c.expected.emplace_back(line.substr(0, blank), line.substr(std::min(blank + 1, line.size())));
      }
    }
    out.push_back(std::move(c));
  }
  std::ranges::sort(out, {}, &ConfigCase::name);
  return out;
}

LoadOptions options_of(const ConfigCase& c) {
  LoadOptions options;
  for (const auto& [verb, text] : c.expected) {
    options.allow_experimental |= verb == "experimental";
    options.flow_control |= verb == "flow-control";
  }
  return options;
}

std::string strip(const std::string& s) {
  const size_t a = s.find_first_not_of(" -"), b = s.find_last_not_of(' ');
  return a == std::string::npos ? "" : s.substr(a, b - a + 1);
}

void check_messages(const ConfigCase& c, const std::string& verb, const std::vector<std::string>& got) {
  std::set<std::string> unexplained(got.begin(), got.end());
  for (const auto& [what, text] : c.expected) {
    if (what != verb) continue;
    bool found = false;
    for (const std::string& message : got) {
      if (message.find(text) == std::string::npos) continue;
      found = true;
      unexplained.erase(message);
    }
    EXPECT_TRUE(found) << "no " << verb << " says: " << text << "\n  but: " << testing::PrintToString(got);
  }
  EXPECT_TRUE(unexplained.empty()) << "unexpected " << verb << "s: " << testing::PrintToString(unexplained);
}

void expect_round_trip(const Plan& plan, const std::vector<std::string>& warnings = {}) {
  const std::string printed = print_config(plan);
  const Loaded again = load_config(printed, {.allow_experimental = true, .flow_control = false});
  ASSERT_TRUE(again.plan) << printed << testing::PrintToString(again.errors);
  EXPECT_TRUE(*again.plan == plan) << printed << "\nagain:\n" << print_config(*again.plan);
  EXPECT_EQ(print_config(*again.plan), printed);
  for (const std::string& w : again.warnings)
    EXPECT_THAT(warnings, testing::Contains(w)) << "what is printed has no old names\n" << printed;
}

TEST(ConfigCases, LoadAsWritten) {
  const auto cases = config_cases();
  ASSERT_GE(cases.size(), 10u);
  for (const ConfigCase& c : cases) {
    SCOPED_TRACE(c.name);
    const Loaded loaded = load_config(c.text, options_of(c));
    check_messages(c, "error", loaded.errors);
    check_messages(c, "warning", loaded.warnings);
    EXPECT_EQ(loaded.plan == nullptr, !loaded.errors.empty());
    if (!loaded.plan) continue;
    std::multiset<std::string> lines;
    std::stringstream printed(print_config(*loaded.plan));
    for (std::string line; std::getline(printed, line);) lines.insert(strip(line));
    for (const auto& [verb, text] : c.expected) {
      if (verb == "printed") {
        EXPECT_TRUE(lines.contains(strip(text))) << "not printed: " << text << "\n" << printed.str();
      } else if (verb == "absent") {
        EXPECT_TRUE(std::ranges::none_of(lines, [&](const std::string& l) { return l.find(text) != std::string::npos; }))
            << text << "\n"
            << printed.str();
      } else {
        EXPECT_TRUE(std::set<std::string>({"error", "warning", "experimental", "flow-control"}).contains(verb)) << verb;
      }
    }
    expect_round_trip(*loaded.plan, loaded.warnings);
  }
}

TEST(Config, DefaultPlanSpeaksForItself) {
  const auto plan = default_plan();
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->policy->profiles.size(), 2u);
  EXPECT_TRUE(plan->needs.prefix && plan->needs.metrics);
  EXPECT_FALSE(plan->needs.kv_events || plan->flow_control.enabled || plan->needs.predictions);
  expect_round_trip(*plan);
}

// Every row with every value its fields allow, in files made at random: what loads must print and load again as equal.
std::string random_value(const Field& f, Prng& prng) {
  using enum Field::Type;
  auto pick = [&](std::initializer_list<const char*> list) { return std::string(*(list.begin() + prng.below(list.size()))); };
  switch (f.type) {
    case kBool:
      return pick({"true", "false"});
    case kInt:
      return std::to_string(prng.between(static_cast<int64_t>(f.min),
                                         std::min<int64_t>(static_cast<int64_t>(f.max), static_cast<int64_t>(f.min) + 5000)));
    case kNumber:
      return cat(std::max(f.min, 0.0) + prng.uniform() * std::min(1.0, f.max - f.min));
    case kText:
      return f.choices.empty() ? pick({"plain", "\"with: colon\"", "\"true\"", "\"12\"", "\"\"", "\"\\u00e9 # x\""})
                               : std::string(f.choices.substr(0, f.choices.find('|')));
    case kTexts:
      return pick({"[]", "[a, b]", "[\"1\"]"});
    case kChoice: {
      std::vector<std::string> names;
      std::stringstream in{std::string(f.choices)};
      for (std::string n; std::getline(in, n, '|');) names.push_back(n);
      return names[prng.below(names.size())];
    }
    case kDurationMs:
      return pick({"1s", "250ms", "1m30s", "2h"});
    case kSeconds:
      return pick({"1", "30", "300"});
    case kLabels:
      return pick({"{}", "{b: x, a: \"1\"}"});
    case kExpressions:
      return pick({"[]", "[{key: k, operator: In, values: [a]}, {key: z, operator: Exists}]"});
    case kLimits:
      return pick({"[]", "[{metric: waiting-queue, maxValue: 3.5}]"});
    case kEngines:
      return pick({"[]", "[{name: mine, queuedRequestsSpec: \"q{a=b}\"}]"});
    case kTiers:
      return pick({"[]", "[{name: gpu, weight: 1}, {name: disk, weight: 0.1}]"});
    case kShares:
      return pick({"{}", "{team: 2, other: 0.5}"});
    case kSources:
      return pick({"[{header: X-Session}]", "[{header: a}, {header: b}]"});
    case kAny:
      return "{}";
  }
  return "";
}

TEST(ConfigProperty, WhatLoadsPrintsAndLoadsAsEqual) {
  int loaded_count = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    std::string text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n", refs;
    int handlers = 0, pickers = 0;
    for (const PluginRow* row : plugin_rows()) {
      if (!row->refused.empty() || !row->ignored.empty() || !prng.chance(0.3)) continue;
      if (row->handler != HandlerKind::kNone && (row->handler != HandlerKind::kSingle || ++handlers > 1)) continue;
      const bool renamed = prng.chance(0.3);
      const std::string name = renamed ? cat("my-", row->type) : std::string(row->type);
      text += cat("- type: ", row->type, "\n") + (renamed ? cat("  name: ", name, "\n") : "");
      std::string params;
      for (const Field& f : row->fields) {
        if (f.name.find('.') == std::string_view::npos && f.historic.empty() && prng.chance(0.6))
          params += cat("    ", f.name, ": ", random_value(f, prng), "\n");
      }
      if (!params.empty()) text += "  parameters:\n" + params;
      if ((row->kinds & kPicker) != 0 && ++pickers > 1) continue;
      if ((row->kinds & (kFilter | kScorer | kPicker)) != 0)
        refs += cat("  - {pluginRef: ", name, ", weight: ", prng.below(50), ".5}\n");
    }
    if (!refs.empty()) text += "schedulingProfiles:\n- name: only\n  plugins:\n" + refs;
    text += cat("featureGates: [\"flowControl=", prng.chance(0.5), "\"]\n");
    const Loaded loaded = load_config(text, {.allow_experimental = true, .flow_control = false});
    if (!loaded.plan) continue;
    ++loaded_count;
    expect_round_trip(*loaded.plan, loaded.warnings);
    if (HasFailure()) FAIL() << text;
  }
  EXPECT_GT(loaded_count, 100);
}

TEST(Config, NamesEveryErrorAtOnce) {
  const Loaded loaded = load_config(
      "plugins:\n- type: queue-scorrer\n- type: max-score-picker\n  parameters: {maxNumEndpoints: 2}\n- {}\nbogus: 1\n");
  EXPECT_EQ(loaded.plan, nullptr);
  EXPECT_EQ(loaded.errors.size(), 4u) << testing::PrintToString(loaded.errors);
}

TEST(Config, BoundsWhatAStrangerSends) {
  EXPECT_EQ(load_config("").plan, nullptr);
  EXPECT_EQ(load_config("[1,2]").plan, nullptr);
  EXPECT_EQ(load_config(std::string(3 << 20, 'x')).plan, nullptr);
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "[";
  EXPECT_EQ(load_config(deep).plan, nullptr);
  std::string laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    laughs += cat("a", i, ": &a", i, " [");
    for (int k = 0; k < 9; ++k) laughs += cat("*a", i - 1, ", ");
    laughs += cat("*a", i - 1, "]\n");
  }
  const Loaded loaded = load_config(laughs);
  ASSERT_FALSE(loaded.errors.empty());
  EXPECT_NE(loaded.errors[0].find("more than"), std::string::npos) << loaded.errors[0];
}

TEST(Config, ReadsDurationsAndQuantities) {
  EXPECT_EQ(parse_duration_ms("1m30s"), 90'000);
  EXPECT_EQ(parse_duration_ms("200ms"), 200);
  EXPECT_EQ(parse_duration_ms("1.5s"), 1'500);
  EXPECT_EQ(parse_duration_ms("0"), 0);
  EXPECT_FALSE(parse_duration_ms("5") || parse_duration_ms("-1s") || parse_duration_ms("s") || parse_duration_ms(""));
  EXPECT_EQ(parse_quantity("5000"), 5'000);
  EXPECT_EQ(parse_quantity("1G"), 1'000'000'000);
  EXPECT_EQ(parse_quantity("512Mi"), 512LL << 20);
  EXPECT_EQ(parse_quantity("4MiB"), 4LL << 20);
  EXPECT_FALSE(parse_quantity("G") || parse_quantity("1X") || parse_quantity("-1") || parse_quantity("1e300"));
}

TEST(PluginTable, RowsAreWhole) {
  std::set<std::string_view> seen;
  for (const PluginRow* row : plugin_rows()) {
    SCOPED_TRACE(row->type);
    EXPECT_TRUE(seen.insert(row->type).second);
    EXPECT_NE(row->kinds, 0u);
    const bool works = row->same_as.empty() && row->ignored.empty() && row->refused.empty();
    if (!row->same_as.empty()) EXPECT_NE(find_plugin(row->same_as), nullptr);
    EXPECT_TRUE(!works || !row->summary.empty());
    if (works && (row->kinds & kFilter) != 0) EXPECT_NE(row->filter, nullptr);
    if (works && (row->kinds & kScorer) != 0) EXPECT_NE(row->score, nullptr);
    if (works && (row->kinds & kDecider) != 0) EXPECT_NE(row->decider, nullptr);
    if (works && (row->kinds & kAdmitter) != 0) EXPECT_NE(row->admit, nullptr);
    if (works && (row->kinds & kHandler) != 0) EXPECT_NE(row->handler, HandlerKind::kNone);
    for (const Field& f : row->fields) {
      Params p = row->make();
      if (f.at != nullptr) EXPECT_NE(f.at(p), nullptr) << f.name;  // throws if the struct is another one
      EXPECT_TRUE(f.type != Field::Type::kChoice || !f.choices.empty()) << f.name;
    }
  }
}

}  // namespace
}  // namespace baton::route
