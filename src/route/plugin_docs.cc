#include "route/plugin_docs.h"

#include "route/config.h"
#include "route/config_parts.h"

namespace baton::route {
namespace {

constexpr std::string_view kIntro = R"(# EndpointPickerConfig

Generated from the table of plugins (`src/route/plugins_*.cc`); do not edit: `BATON_WRITE_DOCS=1 route_test --gtest_filter='PluginDocs*'`.

`baton-router --config-file FILE` reads llm-d's `EndpointPickerConfig` of every generation: `apiVersion` `llm-d.ai/v1alpha1` or the older
`inference.networking.x-k8s.io/v1alpha1`. What no release ever had is an error with its path and the nearest name, all errors at once; what an old one
had is a warning that says what became of it. `--validate-config` only checks; `--print-config` prints what was understood in today's schema, and
that text loads as an equal configuration.

What older files mean here:

| written | means |
|---|---|
| `pd-profile-handler` bare, or `threshold: 0` | `disagg-profile-handler` with `always-disagg-pd-decider`: as v0.2 to v0.6 did |
| `pd-profile-handler`, and a plugin named `prefix-based-pd-decider` | that decider |
| `threshold: T` (characters) | `prefix-based-pd-decider` with `nonCachedTokens: T/4` |
| `prefix-cache-scorer` with `hashBlockSize`, `maxPrefixBlocksToMatch`, `lruCapacityPerServer` | an `approx-prefix-cache-producer` with them; blocks under 16 tokens are raised to 16, and at least 256 blocks are looked at |
| `precise-prefix-cache-scorer` | `precise-prefix-cache-producer` and `prefix-cache-scorer` |
| top-level `saturationDetector`, `parser`, `data` | `flowControl.saturationDetector`, `requestHandler.parsers`, `dataLayer` |
| gates `dataLayer`, `prepareDataPlugins` | nothing: always on |

Where we differ on purpose: a missing decode role is served by any live worker that can (`onMissingDecode: fail` gives llm-d's 429); an aggregated
worker does not hand its prompt to another one; numbers older than the staleness limit score 0; requests sent since the last scrape count as waiting;
an admitter's 429 stays 429. Host, rack, zone and region are the pod labels `kubernetes.io/hostname`, `topology.kubernetes.io/rack`,
`topology.kubernetes.io/zone`, `topology.kubernetes.io/region`; equal addresses are one host.

With no file given, the configuration is:

```yaml
)";

constexpr std::pair<uint32_t, std::string_view> kSections[] = {{kHandler, "Profile handlers"},
                                                               {kDecider, "Deciders"},
                                                               {kFilter, "Filters"},
                                                               {kScorer, "Scorers"},
                                                               {kPicker, "Pickers"},
                                                               {kAdmitter, "Admitters"},
                                                               {kScreener, "Screeners"},
                                                               {kProducer, "Data producers"},
                                                               {kSource, "Data sources"},
                                                               {kExtractor, "Extractors"},
                                                               {kDiscovery, "Discovery"},
                                                               {kParser, "Parsers"},
                                                               {kDetector, "Saturation detectors"},
                                                               {kFairness, "Fairness policies"},
                                                               {kOrdering, "Ordering policies"},
                                                               {kCeiling, "Usage limit policies"},
                                                               {kOther, "Others"}};

std::string cell(std::string_view s) {
  std::string out;
  for (char c : s) out += c == '|' ? "\\|" : std::string(1, c);
  return out;
}

std::string_view stability(Stability s) {
  switch (s) {
    case Stability::kStable:
      return "";
    case Stability::kAlpha:
      return "alpha";
    case Stability::kDeprecated:
      return "deprecated";
    case Stability::kOurs:
      return "Baton's own";
  }
  return "";
}

std::string row_text(const PluginRow& row) {
  std::string what(row.summary);
  auto add = [&](std::string_view lead, std::string_view text) {
    if (!text.empty()) what += cat(what.empty() ? "" : "; ", lead, text);
  };
  add("another name of ", row.same_as);
  add("loads as nothing: ", row.ignored);
  add("refused: ", row.refused);
  std::string out = cat("| `", row.type, "` | ", stability(row.stability), " | ", cell(what), " | ");
  bool first = true;
  for (const Field& f : row.fields) {
    if (f.at == nullptr || !f.historic.empty() || f.help.empty()) continue;
    const std::string value = default_text(f, row);
    out += cat(first ? "" : "<br>", "`", f.name, "`", value.empty() ? "" : cat(" `", cell(value), "`"), ": ", cell(f.help));
    if (!f.choices.empty() && f.type != Field::Type::kLimits) out += cat(" (", cell(f.choices), ")");
    first = false;
  }
  return out + " |\n";
}

}  // namespace

std::string plugin_docs() {
  std::string out = std::string(kIntro) + print_config(*default_plan()) + "```\n";
  std::set<std::string_view> done;
  for (const auto& [kind, title] : kSections) {
    std::string rows;
    for (const PluginRow* row : plugin_rows()) {
      if ((row->kinds & kind) == 0 || !done.insert(row->type).second) continue;
      rows += row_text(*row);
    }
    if (!rows.empty()) out += cat("\n## ", title, "\n\n| type | | what | parameters and defaults |\n|---|---|---|---|\n", rows);
  }
  return out;
}

}  // namespace baton::route
