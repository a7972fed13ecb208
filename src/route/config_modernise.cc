// What older releases wrote, in today's terms; and what a file may leave out. Source: facts sheet "epp" 3.4, 3.6.
#include <algorithm>

#include "route/config_parts.h"

namespace baton::route {
namespace {

constexpr int64_t kCharsPerToken = 4;  // llm-d's own estimate

template <class P>
P* params_of(DraftPlugin& plugin) {
  return std::get_if<P>(&plugin.spec.params);
}

// threshold T characters, hashBlockSize: v0.2 to v0.5. A bare handler of those releases always prefills remotely; today's takes
// the decider named prefix-based-pd-decider if one is declared.
void modernise_pd_handler(Draft& d, size_t i) {
  const std::string path = d.plugins[i].path;
  auto p = std::get<DisaggParams>(d.plugins[i].spec.params);
  if (p.hash_block_size > 0)
    d.messages.warn(path + ".parameters.hashBlockSize", "the prefix index has one block size for all; not used");
  std::string decider = p.old_decider;
  if (!decider.empty() && p.threshold >= 0) {
    d.messages.warn(path + ".parameters.threshold", "deciderPluginName decides; not used");
  } else if (decider.empty() && p.threshold > 0) {
    const int64_t tokens = (p.threshold + kCharsPerToken - 1) / kCharsPerToken;
    d.messages.warn(path + ".parameters.threshold", cat("is nonCachedTokens of a prefix-based-pd-decider now; ", p.threshold,
                                                        " characters are taken as ", tokens, " tokens"));
    DraftPlugin& made = d.add("prefix-based-pd-decider");
    std::get<PdDeciderParams>(made.spec.params).non_cached_tokens = tokens;
    decider = made.spec.name;
  } else if (decider.empty() && p.threshold < 0 && d.find("prefix-based-pd-decider") != nullptr) {
    decider = "prefix-based-pd-decider";
  } else if (decider.empty()) {
    if (p.threshold == 0) d.messages.warn(path + ".parameters.threshold", "0 is an always-disagg-pd-decider now");
    DraftPlugin* known = d.find_type("always-disagg-pd-decider");
    decider = known != nullptr ? known->spec.name : d.add("always-disagg-pd-decider").spec.name;
  }
  DraftPlugin& handler = d.plugins[i];  // add() may have moved it
  d.messages.warn(path + ".type", "pd-profile-handler is called disagg-profile-handler now");
  handler.spec.row = find_plugin("disagg-profile-handler");
  if (handler.spec.name == "pd-profile-handler" && d.find("disagg-profile-handler") == nullptr)
    handler.spec.name = "disagg-profile-handler";
  DisaggParams now;
  now.decode = p.decode, now.prefill = p.prefill, now.prefill_decider = decider;
  now.primary_port = p.primary_port, now.missing = p.missing;
  handler.spec.params = now;
  // "A config with only one profile never prefill-routes": those releases stopped when every profile had run.
  const bool has_prefill =
      std::ranges::any_of(d.profiles, [&](const DraftProfile& profile) { return profile.name == now.prefill; });
  if (!has_prefill && d.profiles_given) {
    d.messages.warn(path, cat("there is no profile ", json_string(now.prefill), ": the decode worker prefills by itself"));
    std::get<DisaggParams>(handler.spec.params).prefill_decider.clear();
  }
}

void check_disagg(Draft& d, DraftPlugin& plugin) {
  const auto has = [&](std::initializer_list<std::string_view> keys) {
    return std::ranges::any_of(keys, [&](std::string_view k) { return plugin.given.contains(std::string(k)); });
  };
  if (has({"profiles", "deciders"}) && has({"decodeProfile", "prefillProfile", "encodeProfile", "prefillDeciderPluginName",
                                            "encodeDeciderPluginName", "deciderPluginName"})) {
    d.messages.error(plugin.path + ".parameters", "profiles and deciders cannot be mixed with the older flat names");
  }
}

// prefix-cache-scorer once had the producer's parameters; sizes were characters.
void move_prefix_params(Draft& d, size_t i) {
  auto& scorer = std::get<PrefixScorerParams>(d.plugins[i].spec.params);
  if (scorer.block_tokens < 0 && scorer.hash_block_size < 0 && scorer.blocks_max < 0 && scorer.capacity < 0) return;
  const PrefixScorerParams old = scorer;
  scorer.block_tokens = scorer.hash_block_size = scorer.blocks_max = scorer.capacity = -1;
  const std::string path = d.plugins[i].path + ".parameters";
  if (d.find_type("approx-prefix-cache-producer") != nullptr || d.find_type("precise-prefix-cache-producer") != nullptr) {
    return d.messages.warn(path, "a prefix producer is configured: its parameters hold, not these");
  }
  PrefixParams made;
  const int64_t asked = old.block_tokens > 0      ? old.block_tokens
                        : old.hash_block_size > 0 ? (old.hash_block_size + kCharsPerToken - 1) / kCharsPerToken
                                                  : made.block_tokens;
  made.block_tokens = std::max<int64_t>(asked, PrefixParams{}.block_tokens);
  if (made.block_tokens > asked) {
    d.messages.warn(path,
                    cat("blocks of ", asked, " tokens are raised to ", made.block_tokens, ", the size that engines cache by"));
  }
  if (old.blocks_max > 0)
    made.blocks_max = std::clamp<int64_t>(old.blocks_max * asked / made.block_tokens, 1, PrefixParams{}.blocks_max);
  // The files in use say 256 blocks of 5 characters, which sees 1,280 characters of a prompt: looking further costs nothing here.
  made.blocks_max = std::max<int64_t>(made.blocks_max, 256);
  if (old.capacity > 0) made.capacity_per_endpoint = old.capacity;
  std::string name = "approx-prefix-cache-producer";
  d.add(name).spec.params = made;
}

void split_precise_scorer(Draft& d, size_t i) {
  DraftPlugin& scorer = d.plugins[i];
  d.messages.warn(scorer.path + ".type",
                  cat(scorer.spec.row->type, " is a precise-prefix-cache-producer and a prefix-cache-scorer now"));
  const Params params = scorer.spec.params;
  scorer.spec.row = find_plugin("prefix-cache-scorer");
  scorer.spec.params = PrefixScorerParams{};
  DraftPlugin* known = d.find_type("precise-prefix-cache-producer");
  if (known == nullptr) {
    known = &d.add("precise-prefix-cache-producer");
    known->spec.params = params;
  }
  std::get<PrefixScorerParams>(d.plugins[i].spec.params).producer = known->spec.name;
}

bool used_in_profiles(const Draft& d, std::string_view name) {
  return std::ranges::any_of(d.profiles, [&](const DraftProfile& p) {
    return std::ranges::any_of(p.refs, [&](const DraftProfile::Ref& r) { return r.plugin == name; });
  });
}

template <class... Types>
bool any_type(Draft& d, Types... types) {
  return ((d.find_type(types) != nullptr) || ...);
}

// The precise index wants real tokens: from the files that tokenizersPoolConfig names, else by asking the workers.
void add_token_producer(Draft& d) {
  TokenParams made;
  if (DraftPlugin* precise = d.find_type("precise-prefix-cache-producer")) {
    made = std::get<KvEventsParams>(precise->spec.params).tokens;
    made.kind = made.paths.empty() && made.directory.empty() ? TokenParams::Kind::kWorkers : TokenParams::Kind::kLocal;
  }
  d.add("token-producer").spec.params = made;
}

void inject_producers(Draft& d) {
  const bool precise = any_type(d, "precise-prefix-cache-producer");
  const bool prefix_read =
      any_type(d, "prefix-cache-scorer", "no-hit-lru-scorer", "prefix-cache-affinity-filter", "prefix-based-pd-decider",
               "baton-cost-decider", "baton-pair-handler", "p2p-source-producer", "latency-scorer", "token-load-scorer");
  if (prefix_read && !precise && !any_type(d, "approx-prefix-cache-producer")) d.add("approx-prefix-cache-producer");
  if (!any_type(d, "predicted-latency-producer")) {
    bool wanted = any_type(d, "latency-scorer", "slo-headroom-tier-filter", "latency-slo-admitter", "baton-pair-handler",
                           "baton-cost-decider");
    if (DraftPlugin* p = d.find_type("prefix-cache-affinity-filter"))
      wanted |= params_of<PrefixAffinityParams>(*p)->source == TtftSource::kPredictor;
    if (wanted) d.add("predicted-latency-producer");
  }
  if (!any_type(d, "inflight-load-producer") &&
      any_type(d, "active-request-scorer", "token-load-scorer", "concurrency-detector", "prefix-cache-affinity-filter",
               "predicted-latency-producer", "latency-scorer", "baton-pair-handler", "baton-cost-decider")) {
    d.add("inflight-load-producer");
  }
  if (any_type(d, "mm-embeddings-cache-scorer") && !any_type(d, "mm-embeddings-cache-producer"))
    d.add("mm-embeddings-cache-producer");
  if (!any_type(d, "token-producer") && (prefix_read || any_type(d, "context-length-aware"))) add_token_producer(d);
}

void inject_profiles(Draft& d) {
  if (!d.profiles_given) {
    DraftProfile profile{"default", "schedulingProfiles[0]", {}};
    for (const DraftPlugin& p : d.plugins) {
      const uint32_t kinds = p.spec.row->kinds;
      if ((kinds & (kFilter | kScorer | kPicker)) != 0 && (kinds & kDetector) == 0)
        profile.refs.push_back({p.spec.name, "", std::nullopt});
    }
    d.profiles.push_back(std::move(profile));
  }
  const auto is_handler = [](const DraftPlugin& p) { return (p.spec.row->kinds & kHandler) != 0; };
  if (std::ranges::none_of(d.plugins, is_handler) && d.profiles.size() == 1) d.add("single-profile-handler");
  for (DraftProfile& profile : d.profiles) {
    const bool picks = std::ranges::any_of(profile.refs, [&](const DraftProfile::Ref& r) {
      DraftPlugin* p = d.find(r.plugin);
      return p != nullptr && (p->spec.row->kinds & kPicker) != 0;
    });
    if (picks) continue;
    const auto first = std::ranges::find_if(d.plugins, [](const DraftPlugin& p) { return (p.spec.row->kinds & kPicker) != 0; });
    std::string name = first != d.plugins.end() ? first->spec.name : d.add("max-score-picker").spec.name;
    profile.refs.push_back({std::move(name), "", std::nullopt});
  }
}

}  // namespace

DraftPlugin* Draft::find(std::string_view name) {
  const auto at = std::ranges::find_if(plugins, [&](const DraftPlugin& p) { return p.spec.name == name; });
  return at == plugins.end() ? nullptr : &*at;
}

DraftPlugin* Draft::find_type(std::string_view type) {
  const auto at = std::ranges::find_if(plugins, [&](const DraftPlugin& p) { return p.spec.row->type == type; });
  return at == plugins.end() ? nullptr : &*at;
}

DraftPlugin& Draft::add(std::string_view type, std::string name) {
  const PluginRow* row = find_plugin(type);
  BATON_CHECK(row != nullptr);
  if (name.empty()) name = type;
  for (int n = 2; find(name) != nullptr || gone.contains(name); ++n) name = cat(type, "-", n);
  plugins.push_back({{row, std::move(name), row->make()}, "", {}});
  return plugins.back();
}

std::vector<std::string_view> Draft::names() const {
  std::vector<std::string_view> out;
  for (const DraftPlugin& p : plugins) out.push_back(p.spec.name);
  return out;
}

void modernise(Draft& d) {
  for (size_t i = 0; i < d.plugins.size(); ++i) {
    const std::string_view type = d.plugins[i].spec.row->type;
    if (type == "pd-profile-handler") modernise_pd_handler(d, i);
    if (type == "disagg-profile-handler") check_disagg(d, d.plugins[i]);
    if (type == "prefix-cache-scorer") move_prefix_params(d, i);
    if (type == "precise-prefix-cache-scorer") split_precise_scorer(d, i);
    if (type == "token-producer" && !d.plugins[i].given.contains("kind")) {
      auto& tokens = std::get<TokenParams>(d.plugins[i].spec.params);
      if (d.plugins[i].given.contains("local")) tokens.kind = TokenParams::Kind::kLocal;
      if (d.plugins[i].given.contains("vllm")) tokens.kind = TokenParams::Kind::kRender;
    }
  }
}

void inject(Draft& d) {
  inject_profiles(d);
  inject_producers(d);
  if (d.detector.name.empty()) {
    DraftPlugin* known = d.find_type("utilization-detector");
    if (known == nullptr && !used_in_profiles(d, "concurrency-detector")) known = d.find_type("concurrency-detector");
    d.detector = {known != nullptr ? known->spec.name : d.add("utilization-detector").spec.name,
                  "flowControl.saturationDetector"};
  }
  if (!d.parsers_given) {
    for (const char* type : {"openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser"}) {
      DraftPlugin* known = d.find_type(type);
      d.parsers.push_back({known != nullptr ? known->spec.name : type, ""});
    }
  }
  for (const NamedRef& parser : d.parsers) {
    const PluginRow* row = find_plugin(parser.name);
    if (d.find(parser.name) == nullptr && !d.gone.contains(parser.name) && row != nullptr && (row->kinds & kParser) != 0)
      d.add(parser.name);
  }
  const bool named = std::ranges::any_of(d.sources, [](const NamedRef& s) { return s.name == "metrics-data-source"; });
  if (d.inject_defaults || named) {
    if (d.find_type("metrics-data-source") == nullptr) d.add("metrics-data-source");
    if (d.find_type("core-metrics-extractor") == nullptr) d.add("core-metrics-extractor");
  }
  if (!d.plan.flow_control.enabled) return;
  auto policy = [&](NamedRef& ref, std::string_view type) {
    if (!ref.name.empty()) return;
    DraftPlugin* known = d.find_type(type);
    ref.name = known != nullptr ? known->spec.name : d.add(type).spec.name;
  };
  for (DraftBand* band : {&d.default_band, &d.default_negative_band}) {
    policy(band->fairness, "global-strict-fairness-policy");
    policy(band->ordering, "fcfs-ordering-policy");
  }
  for (DraftBand& band : d.bands) {
    policy(band.fairness, "global-strict-fairness-policy");
    policy(band.ordering, "fcfs-ordering-policy");
  }
  policy(d.ceiling, "static-usage-limit-policy");
}

}  // namespace baton::route
