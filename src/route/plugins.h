#pragma once
// The one table of plugin types: type name, kind, parameters, function. load_config() binds a file's parameters by a row's
// fields, decide() runs its function, docs/endpoint-picker-config.md is printed from it. To add one: a parameter struct in
// params.h, a function in the file of its kind (filters.cc, scorers.cc, deciders.cc), a row in plugins_*.cc, a case in
// tests/cases/route. A type of llm-d that cannot mean anything here is a row too: `ignored` or `refused` says so to whoever
// configures it. Functions are pure, allocate nothing and get candidates as indices into the snapshot.
#include <array>
#include <span>
#include <string_view>

#include "route/decide.h"
#include "route/params.h"

namespace baton::route {

enum class PickerKind : uint8_t { kMaxScore, kRandom, kWeightedRandom };

enum Kind : uint32_t {
  kHandler = 1 << 0,
  kDecider = 1 << 1,
  kFilter = 1 << 2,
  kScorer = 1 << 3,
  kPicker = 1 << 4,
  kProducer = 1 << 5,
  kAdmitter = 1 << 6,
  kScreener = 1 << 7,
  kParser = 1 << 8,
  kDetector = 1 << 9,
  kFairness = 1 << 10,
  kOrdering = 1 << 11,
  kCeiling = 1 << 12,
  kSource = 1 << 13,
  kExtractor = 1 << 14,
  kDiscovery = 1 << 15,
  kOther = 1 << 16,
};
enum class Stability : uint8_t { kStable, kAlpha, kDeprecated, kOurs };

struct Field {
  enum class Type : uint8_t {
    kBool,
    kInt,
    kNumber,
    kText,
    kTexts,
    kChoice,
    kDurationMs,
    kSeconds,
    kLabels,
    kExpressions,
    kLimits,
    kEngines,
    kTiers,
    kShares,
    kSources,
    kAny,  // accepted, not kept
  };
  std::string_view name;  // dotted where the value lies in an object: "deciders.prefill"
  Type type = Type::kAny;
  void* (*at)(Params&) = nullptr;
  std::string_view help{};
  double min = -1e18, max = 1e18;
  std::string_view choices{};   // kChoice: "a|b|c", in the enum's order
  std::string_view historic{};  // not empty: accepted with this warning, never printed
  bool ours = false;            // not in llm-d, or only there to be absent: printed where it differs from the default
};

struct Candidates {
  std::array<uint16_t, kEndpointsMax> index;
  size_t count = 0;
  void add(size_t i) { index[count++] = static_cast<uint16_t>(i); }
  std::span<const uint16_t> all() const { return {index.data(), count}; }
  template <class Keep>
  void keep_if(Keep keep) {
    size_t n = 0;
    for (size_t k = 0; k < count; ++k) {
      if (keep(index[k])) index[n++] = index[k];
    }
    count = n;
  }
};

struct ProfileSpec;

struct Scene {  // one decide() under way
  const Snapshot& snapshot;
  const Inquiry& inquiry;
  const Plan& plan;
  Prng& prng;
  std::span<const uint16_t> usable{};  // healthy, serving the model, in the subset, not excluded
  int peer = -1;                       // the worker already chosen for the other stage
  StepLog* steps = nullptr;            // whoever wants to know what took how long
  const Load& load(size_t i) const { return snapshot.loads[i]; }
  const Endpoint& endpoint(size_t i) const { return snapshot.endpoints[i]; }
  int place_of(const ProfileSpec& profile) const;  // in the policy's profiles
  int64_t matched(size_t i) const {
    return inquiry.match == nullptr ? 0 : (*inquiry.match)[static_cast<size_t>(endpoint(i).slot)];
  }
  bool fresh(size_t i) const {  // scraped lately enough to believe
    const int64_t age = load(i).age_ms;
    return age >= 0 && age <= inquiry.stale_after_ms;
  }
  double ttft_ms(size_t i) const;  // predicted for this request; negative: no prediction
  double tpot_ms(size_t i) const;
  const cost::WorkerCost& cost(size_t i) const;
  cost::WorkerLoad worker_load(size_t i) const;
  int64_t cached_tokens(size_t i) const;
  int64_t uncached_tokens(size_t i) const;
  std::string_view header(std::string_view lower_case_name) const;  // "" if absent
};

// How near two endpoints are: 4 host, 3 rack, 2 zone, 1 region, 0 none, by Kubernetes' topology labels on their pods.
int nearness(const Endpoint& a, const Endpoint& b);
double gauge_value(const Scene& scene, Gauge gauge, size_t i);  // NaN if never scraped
bool is_idle(const Load& load);

using FilterFn = void (*)(const Scene&, const Params&, Candidates&);
using ScoreFn = void (*)(const Scene&, const Params&, std::span<const uint16_t> candidates, std::span<float> out);
using DeciderFn = bool (*)(const Scene&, const Params&, int decode, Verdict& verdict);  // true: run the stage
using AdmitFn = Result<> (*)(const Scene&, const Params&);
enum class HandlerKind : uint8_t { kNone, kSingle, kDisagg, kDataParallel, kHeader, kPair };

struct PluginRow {
  std::string_view type;
  uint32_t kinds = 0;
  Stability stability = Stability::kStable;
  std::string_view summary{};
  Params (*make)() = [] { return Params{}; };
  std::span<const Field> fields{};
  FilterFn filter = nullptr;
  ScoreFn score = nullptr;
  DeciderFn decider = nullptr;
  AdmitFn admit = nullptr;
  HandlerKind handler = HandlerKind::kNone;
  PickerKind picker = PickerKind::kMaxScore;
  bool role_filter = false;    // an empty result means "this role is missing", not "nobody is fit"
  std::string_view same_as{};  // another name of this type
  std::string_view ignored{};  // loads with this warning and does nothing
  std::string_view refused{};  // does not load, for this reason
};

std::span<const PluginRow* const> plugin_rows();      // sorted by type
const PluginRow* find_plugin(std::string_view type);  // nullptr if there is none

// The files of rows; plugin_rows() joins them.
std::span<const PluginRow> handler_rows();
std::span<const PluginRow> filter_rows();
std::span<const PluginRow> scorer_rows();
std::span<const PluginRow> producer_rows();
std::span<const PluginRow> policy_rows();

struct PluginSpec {  // one plugin of a configuration
  const PluginRow* row = nullptr;
  std::string name;
  Params params;
  bool operator==(const PluginSpec&) const = default;
};

struct ProfileSpec {
  struct Ref {
    int plugin = 0;  // index into Policy::plugins
    float weight = 1;
    bool operator==(const Ref&) const = default;
  };
  struct FilterStep {
    FilterFn filter = nullptr;
    const Params* params = nullptr;
    bool role = false;
    int plugin = 0;  // index into Policy::plugins
  };
  struct ScorePart {
    ScoreFn score = nullptr;
    const Params* params = nullptr;
    float weight = 1;
    int plugin = 0;
  };
  std::string name;
  std::vector<Ref> refs;            // as configured
  std::vector<FilterStep> filters;  // the rest is compiled from refs
  std::vector<ScorePart> scorers;
  PickerKind picker = PickerKind::kMaxScore;
  int listed = 1, picker_plugin = -1;
  bool operator==(const ProfileSpec& other) const { return name == other.name && refs == other.refs; }
};

struct Plan::Policy {
  std::vector<PluginSpec> plugins;
  std::vector<ProfileSpec> profiles;
  int handler = -1;                               // index into plugins
  int decode = -1, prefill = -1, encode = -1;     // index into profiles; single and the like: decode
  int prefill_decider = -1, encode_decider = -1;  // index into plugins; -1 = stage not run
  std::vector<int> admitters;                     // index into plugins
  // What the rest of the file refers to, for printing; Plan holds the values.
  struct BandRefs {
    int fairness = -1, ordering = -1;
    bool operator==(const BandRefs&) const = default;
  };
  std::vector<int> parsers;
  int ceiling = -1, detector = -1, discovery = -1;
  BandRefs default_band, default_negative_band;
  std::vector<BandRefs> bands;  // as FlowControlParams::bands
  Policy() = default;
  Policy(const Policy&) = delete;  // profiles point into plugins
  Policy& operator=(const Policy&) = delete;
  bool operator==(const Policy& other) const;
};

}  // namespace baton::route
