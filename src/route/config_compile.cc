// A Draft, checked and made a Plan.
#include <algorithm>

#include "route/config_parts.h"

namespace baton::route {
namespace {

using Policy = Plan::Policy;

class Compiler {
 public:
  explicit Compiler(Draft& draft) : d_(draft), m_(draft.messages), policy_(std::make_shared<Policy>()) {}

  std::shared_ptr<const Plan> run() {
    for (const DraftPlugin& p : d_.plugins) policy_->plugins.push_back(p.spec);
    profiles();
    handler();
    admitters();
    flow_control();
    data();
    derive_needs();
    if (!m_.errors.empty()) return nullptr;
    for (ProfileSpec& profile : policy_->profiles) link(profile);
    Plan plan = d_.plan;
    plan.policy = policy_;
    return std::make_shared<const Plan>(std::move(plan));
  }

 private:
  // Index of the plugin a reference names, if it is of this kind; -1 and an error if not; -1 alone if it loads as nothing.
  int resolve(const NamedRef& ref, uint32_t kinds, std::string_view what) {
    if (ref.name.empty() || d_.gone.contains(ref.name)) return -1;
    for (size_t i = 0; i < policy_->plugins.size(); ++i) {
      if (policy_->plugins[i].name != ref.name) continue;
      if ((policy_->plugins[i].row->kinds & kinds) == 0) {
        m_.error(ref.path,
                 cat(json_string(ref.name.substr(0, 80)), " is a ", policy_->plugins[i].row->type, ", which is no ", what));
        return -1;
      }
      return static_cast<int>(i);
    }
    m_.error(ref.path, cat("no plugin is named ", json_string(ref.name.substr(0, 80)), near_name(ref.name, d_.names())));
    return -1;
  }

  const PluginRow* row(int i) const { return policy_->plugins[static_cast<size_t>(i)].row; }
  template <class P>
  const P& params(int i) const {
    return std::get<P>(policy_->plugins[static_cast<size_t>(i)].params);
  }
  int first_of(std::string_view type) const {
    const auto at = std::ranges::find_if(policy_->plugins, [&](const PluginSpec& p) { return p.row->type == type; });
    return at == policy_->plugins.end() ? -1 : static_cast<int>(at - policy_->plugins.begin());
  }

  void profiles() {
    for (const DraftProfile& draft : d_.profiles) {
      ProfileSpec out;
      out.name = draft.name;
      int pickers = 0;
      for (const DraftProfile::Ref& ref : draft.refs) {
        const int i = resolve({ref.plugin, ref.path + ".pluginRef"}, kFilter | kScorer | kPicker, "filter, scorer or picker");
        if (i < 0) continue;
        if ((row(i)->kinds & kPicker) != 0 && ++pickers > 1) m_.error(ref.path, "the profile has more than one picker");
        const bool scores = (row(i)->kinds & kScorer) != 0;
        out.refs.push_back({i, scores ? static_cast<float>(ref.weight.value_or(1)) : 1.0f});
      }
      policy_->profiles.push_back(std::move(out));
    }
  }

  int profile(const std::string& name, const std::string& path, bool must) {
    for (size_t i = 0; i < policy_->profiles.size(); ++i) {
      if (policy_->profiles[i].name == name) return static_cast<int>(i);
    }
    if (must) {
      std::vector<std::string_view> known;
      for (const ProfileSpec& p : policy_->profiles) known.push_back(p.name);
      m_.error(path, cat("there is no profile named ", json_string(name.substr(0, 80)), near_name(name, known)));
    }
    return -1;
  }

  void handler() {
    for (size_t i = 0; i < policy_->plugins.size(); ++i) {
      if ((policy_->plugins[i].row->kinds & kHandler) == 0) continue;
      if (policy_->handler >= 0) {
        m_.error(d_.plugins[i].path, cat("there is more than one profile handler: ", policy_->plugins[policy_->handler].row->type,
                                         " and ", policy_->plugins[i].row->type));
        continue;
      }
      policy_->handler = static_cast<int>(i);
    }
    if (policy_->handler < 0) {
      bool lost = std::ranges::any_of(d_.gone, [](const std::string& name) { return name.find("handler") != std::string::npos; });
      if (!lost || m_.errors.empty())
        m_.error("plugins", "no profile handler, and several profiles: disagg-profile-handler is likely meant");
      return;
    }
    const std::string& path = d_.plugins[static_cast<size_t>(policy_->handler)].path;
    switch (row(policy_->handler)->handler) {
      case HandlerKind::kSingle:
      case HandlerKind::kDataParallel:
        if (policy_->profiles.size() != 1) {
          m_.error(path, cat(row(policy_->handler)->type, " wants exactly one profile, there are ", policy_->profiles.size()));
        }
        policy_->decode = 0;
        break;
      case HandlerKind::kDisagg:
        disagg(params<DisaggParams>(policy_->handler), path);
        break;
      case HandlerKind::kHeader:
        policy_->decode =
            profile(params<HeaderProfileParams>(policy_->handler).profile, path + ".parameters.defaultProfile", true);
        break;
      case HandlerKind::kPair:
        policy_->decode = profile(params<PairParams>(policy_->handler).decode, path + ".parameters.profiles.decode", true);
        policy_->prefill = profile(params<PairParams>(policy_->handler).prefill, path + ".parameters.profiles.prefill", true);
        break;
      case HandlerKind::kNone:
        break;
    }
  }

  void disagg(const DisaggParams& p, const std::string& path) {
    policy_->decode = profile(p.decode, path + ".parameters.profiles.decode", true);
    policy_->prefill_decider = resolve({p.prefill_decider, path + ".parameters.deciders.prefill"}, kDecider, "decider");
    policy_->encode_decider = resolve({p.encode_decider, path + ".parameters.deciders.encode"}, kDecider, "decider");
    const bool first = p.order == StageOrder::kPrefillFirst;
    if (first && !p.prefill_decider.empty()) {
      m_.error(path + ".parameters.deciders.prefill", "with prefill-first there is always a prefill, so no decider for it");
    }
    policy_->prefill = profile(p.prefill, path + ".parameters.profiles.prefill", first || !p.prefill_decider.empty());
    policy_->encode = profile(p.encode, path + ".parameters.profiles.encode", !p.encode_decider.empty());
    if (policy_->prefill_decider >= 0 && row(policy_->prefill_decider)->type == "prefix-based-pd-decider" &&
        params<PdDeciderParams>(policy_->prefill_decider).non_cached_tokens == 0) {
      m_.warn(path, "nonCachedTokens of the prefill decider is 0, which means that prefill is never remote; 1 would mean always");
    }
    if (policy_->prefill_decider < 0 && !first && policy_->prefill >= 0 && d_.gone.empty()) {
      m_.warn(path,
              cat("profile ", json_string(p.prefill), " is not used: there is no deciders.prefill (always-disagg-pd-decider?)"));
    }
  }

  void admitters() {
    for (size_t i = 0; i < policy_->plugins.size(); ++i) {
      if ((policy_->plugins[i].row->kinds & kAdmitter) != 0) policy_->admitters.push_back(static_cast<int>(i));
    }
  }

  BandParams band(const DraftBand& draft, Policy::BandRefs& refs) {
    BandParams out = draft.params;
    refs.fairness = resolve(draft.fairness, kFairness, "fairness policy");
    refs.ordering = resolve(draft.ordering, kOrdering, "ordering policy");
    if (const int i = refs.fairness; i >= 0) {
      const std::string_view type = row(i)->type;
      out.fairness = type == "round-robin-fairness-policy"            ? Fairness::kRoundRobin
                     : type == "program-aware-fairness"               ? Fairness::kProgramAware
                     : type == "baton-token-weighted-fairness-policy" ? Fairness::kTokenWeighted
                                                                      : Fairness::kGlobalStrict;
      if (out.fairness == Fairness::kProgramAware) {
        const auto& p = params<ProgramAwareParams>(i);
        d_.plan.flow_control.las_weight_service = p.weight_service;
        d_.plan.flow_control.las_weight_head_wait = p.weight_head_wait;
        d_.plan.flow_control.las_half_life_s = p.half_life_s;
      }
      if (out.fairness == Fairness::kTokenWeighted) {
        d_.plan.flow_control.tenant_weights = params<TokenWeightedParams>(i).weights;
        d_.plan.flow_control.output_token_weight = params<TokenWeightedParams>(i).output_token_weight;
      }
    }
    if (const int i = refs.ordering; i >= 0) {
      const std::string_view type = row(i)->type;
      out.ordering = type == "edf-ordering-policy"            ? Ordering::kEdf
                     : type == "slo-deadline-ordering-policy" ? Ordering::kSloDeadline
                                                              : Ordering::kFcfs;
    }
    return out;
  }

  void flow_control() {
    FlowControlParams& flow = d_.plan.flow_control;
    flow.default_band = band(d_.default_band, policy_->default_band);
    flow.default_negative_band = band(d_.default_negative_band, policy_->default_negative_band);
    std::ranges::sort(d_.bands, std::ranges::greater(), [](const DraftBand& b) { return b.params.priority; });
    for (const DraftBand& b : d_.bands) flow.bands.push_back(band(b, policy_->bands.emplace_back()));
    policy_->ceiling = resolve(d_.ceiling, kCeiling, "usage limit policy");
    policy_->detector = resolve(d_.detector, kDetector, "saturation detector");
    if (const int i = policy_->ceiling; i >= 0) {
      if (row(i)->type == "priority-holdback-policy") {
        const auto& p = params<HoldbackParams>(i);
        if (p.min < 0) m_.error(d_.plugins[static_cast<size_t>(i)].path + ".parameters", "minCeiling is missing");
        if (p.min > p.max) m_.error(d_.plugins[static_cast<size_t>(i)].path + ".parameters", "minCeiling is above maxCeiling");
        flow.ceiling = Ceiling::kHoldback;
        flow.holdback_min = p.min, flow.holdback_max = p.max, flow.holdback_by_rank = p.domain == HoldbackDomain::kRank;
      } else if (row(i)->type == "soft-reflective-ceiling-policy") {
        flow.ceiling = Ceiling::kSoftReflective;
      } else {
        flow.ceiling_threshold = params<StaticCeilingParams>(i).threshold;
      }
    }
    if (policy_->detector >= 0) d_.plan.detector = params<DetectorParams>(policy_->detector);
  }

  void data() {
    Plan& plan = d_.plan;
    plan.parsers.clear();
    for (const NamedRef& ref : d_.parsers) {
      const int i = resolve(ref, kParser, "parser");
      if (i < 0) continue;
      policy_->parsers.push_back(i);
      plan.parsers.emplace_back(row(i)->type);
    }
    for (const NamedRef& ref : d_.sources) resolve(ref, kSource | kOther, "data source");
    for (const NamedRef& ref : d_.extractors) resolve(ref, kExtractor, "extractor");
    policy_->discovery = resolve(d_.discovery, kDiscovery, "discovery");
    if (const int i = policy_->discovery; i >= 0) {
      plan.discovery_file = params<FileDiscoveryParams>(i).path;
      plan.discovery_watch = params<FileDiscoveryParams>(i).watch;
      if (plan.discovery_file.empty()) m_.error(d_.plugins[static_cast<size_t>(i)].path + ".parameters", "path is missing");
    }
    if (const int i = first_of("metrics-data-source"); i >= 0) plan.source = params<SourceParams>(i);
    if (const int i = first_of("core-metrics-extractor"); i >= 0) {
      const auto& p = params<ExtractorParams>(i);
      plan.source.engine_label = p.engine_label, plan.source.default_engine = p.default_engine, plan.source.engines = p.engines;
    }
    plan.scrape = first_of("metrics-data-source") >= 0;
    if (const int i = first_of("approx-prefix-cache-producer"); i >= 0) plan.prefix = params<PrefixParams>(i);
    if (const int i = first_of("precise-prefix-cache-producer"); i >= 0) plan.kv_events = params<KvEventsParams>(i);
    tokens();
    if (const int i = first_of("inflight-load-producer"); i >= 0) {
      const auto& p = params<InflightParams>(i);
      plan.track_output_tokens = p.output_tokens, plan.output_ratio = p.output_ratio,
      plan.estimated_output_tokens_max = p.output_tokens_max;
    }
    if (const int i = first_of("predicted-latency-producer"); i >= 0) plan.slo_buffer = params<PredictedParams>(i).slo_buffer;
    if (const int i = first_of("p2p-source-producer"); i >= 0) plan.kv_source_delta_min = params<ReferenceParams>(i).tokens_min;
    if (const int i = first_of("baton-cost-decider"); i >= 0) plan.cost = params<CostDeciderParams>(i).cost;
    if (const int i = first_of("baton-pair-handler"); i >= 0) plan.cost = params<PairParams>(i).cost;
    plan.agent_identity = first_of("agent-identity") >= 0;
    plan.served_verifier = first_of("destination-endpoint-served-verifier") >= 0;
    session();
  }

  void tokens() {
    Plan& plan = d_.plan;
    plan.kv_events.tokens = {};  // the token-producer has them
    const int i = first_of("token-producer");
    if (i < 0) return;
    plan.tokens = params<TokenParams>(i);
    const TokenParams& t = plan.tokens;
    if (t.kind == TokenParams::Kind::kLocal && t.path.empty() && t.paths.empty() && t.directory.empty())
      m_.error(d_.plugins[static_cast<size_t>(i)].path + ".parameters.local", "path, modelTokenizerMap or autoDiscoveryDir is missing");
  }

  void session() {
    SessionParams& session = d_.plan.session;
    for (const PluginSpec& p : policy_->plugins) {
      if (p.row->type == "session-affinity-scorer" || p.row->type == "session-affinity-filter") {
        const auto& s = std::get<SessionScorerParams>(p.params);
        d_.plan.needs.session = true;
        session.encoded_endpoint = s.strategy == SessionStrategy::kEncodedEndpoint;
        if (!session.encoded_endpoint) session.headers = s.headers, session.ttl_ms = s.ttl_ms;
      }
    }
    for (const PluginSpec& p : policy_->plugins) {
      if (p.row->type != "session-id-producer") continue;
      const auto& s = std::get<SessionIdParams>(p.params);
      if (s.header.empty() && s.cookie.empty()) m_.error(p.name, "headerName or cookieName is missing");
      if (!s.header.empty()) session.headers.insert(session.headers.begin(), s.header);
      if (!s.cookie.empty()) session.cookies.push_back(s.cookie);
    }
    for (std::string& header : session.headers) {
      for (char& c : header) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }

  template <class... Types>
  bool any(Types... types) const {
    return ((first_of(types) >= 0) || ...);
  }

  void derive_needs() {
    Needs& n = d_.plan.needs;
    const bool prefix_read =
        any("prefix-cache-scorer", "no-hit-lru-scorer", "prefix-cache-affinity-filter", "prefix-based-pd-decider",
            "latency-scorer", "token-load-scorer", "baton-cost-decider", "baton-pair-handler", "p2p-source-producer");
    n.kv_events = any("precise-prefix-cache-producer");
    n.prefix = prefix_read && any("approx-prefix-cache-producer");
    n.lora = any("lora-affinity-scorer");
    n.models = any("models-data-source");
    n.predictions = any("predicted-latency-producer");
    n.cold_order = any("no-hit-lru-scorer");
    n.multimodal = any("always-disagg-multimodal-decider", "mm-embeddings-cache-scorer");
    n.metrics = d_.plan.scrape && (d_.plan.flow_control.enabled || d_.plan.detector.kind == DetectorParams::Kind::kUtilization ||
                                   any("queue-scorer", "running-requests-size-scorer", "kv-cache-utilization-scorer",
                                       "load-aware-scorer", "latency-scorer", "utilization-filter", "endpoint-attribute-filter",
                                       "endpoint-attribute-scorer", "probabilistic-admitter", "lora-affinity-scorer"));
    n.answer_usage = d_.plan.parsers != std::vector<std::string>{"passthrough-parser"};
  }

  void link(ProfileSpec& profile) {
    for (const ProfileSpec::Ref& ref : profile.refs) {
      const PluginSpec& p = policy_->plugins[static_cast<size_t>(ref.plugin)];
      const auto* by_label = std::get_if<ByLabelParams>(&p.params);
      const bool role = p.row->role_filter || (by_label != nullptr && by_label->label == kRoleLabel);
      if (p.row->filter != nullptr) profile.filters.push_back({p.row->filter, &p.params, role, ref.plugin});
      if (p.row->score != nullptr && ref.weight > 0)
        profile.scorers.push_back({p.row->score, &p.params, ref.weight, ref.plugin});
      if ((p.row->kinds & kPicker) != 0) {
        profile.picker = p.row->picker;
        profile.picker_plugin = ref.plugin;
        profile.listed = static_cast<int>(std::get<PickerParams>(p.params).endpoints_max);
      }
    }
  }

  Draft& d_;
  Messages& m_;
  std::shared_ptr<Policy> policy_;
};

}  // namespace

std::shared_ptr<const Plan> compile(Draft& draft) { return Compiler(draft).run(); }

bool Plan::Policy::operator==(const Policy& o) const {
  return plugins == o.plugins && profiles == o.profiles && handler == o.handler && decode == o.decode && prefill == o.prefill &&
         encode == o.encode && prefill_decider == o.prefill_decider && encode_decider == o.encode_decider &&
         admitters == o.admitters && parsers == o.parsers && ceiling == o.ceiling && detector == o.detector &&
         discovery == o.discovery && default_band == o.default_band && default_negative_band == o.default_negative_band &&
         bands == o.bands;
}

bool Plan::operator==(const Plan& o) const {
  const bool same_policy = policy == o.policy || (policy && o.policy && *policy == *o.policy);
  return same_policy && needs == o.needs && prefix == o.prefix && kv_events == o.kv_events && tokens == o.tokens &&
         session == o.session && source == o.source && flow_control == o.flow_control && detector == o.detector &&
         cost == o.cost && scrape == o.scrape && track_output_tokens == o.track_output_tokens && output_ratio == o.output_ratio &&
         estimated_output_tokens_max == o.estimated_output_tokens_max && slo_buffer == o.slo_buffer &&
         agent_identity == o.agent_identity && kv_source_delta_min == o.kv_source_delta_min &&
         served_verifier == o.served_verifier && parsers == o.parsers && discovery_file == o.discovery_file &&
         discovery_watch == o.discovery_watch && passive_replica_warm == o.passive_replica_warm;
}

}  // namespace baton::route
