#include "route/pick.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace baton::route {
namespace {

struct Candidates {
  std::array<uint16_t, kEndpointsMax> index;
  size_t count = 0;
  void add(size_t i) { index[count++] = static_cast<uint16_t>(i); }
  std::span<const uint16_t> all() const { return {index.data(), count}; }
};

bool serves(const Endpoint& endpoint, std::string_view model) {
  return model.empty() || endpoint.models.empty() || std::ranges::find(endpoint.models, model) != endpoint.models.end();
}

std::string_view host_of(std::string_view host_port) {
  const size_t colon = host_port.rfind(':');
  const bool bare_v6 = colon != std::string_view::npos && host_port.find(':') != colon && !host_port.starts_with('[');
  std::string_view host = colon == std::string_view::npos || bare_v6 ? host_port : host_port.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return host;
}

bool in_subset(const Endpoint& endpoint, const RouteRequest& request) {
  if (!request.subset_given) return true;
  return std::ranges::any_of(request.subset, [&](std::string_view entry) { return host_of(entry) == endpoint.host; });
}

template <class RoleOk>
Candidates filter(const Snapshot& snapshot, const RouteRequest& request, RoleOk role_ok) {
  Candidates out;
  const size_t n = std::min<size_t>(snapshot.endpoints.size(), kEndpointsMax);
  for (size_t i = 0; i < n; ++i) {
    const Endpoint& endpoint = snapshot.endpoints[i];
    if (snapshot.loads[i].healthy && !request.excluded[i] && role_ok(endpoint.role) && serves(endpoint, request.model) &&
        in_subset(endpoint, request)) {
      out.add(i);
    }
  }
  return out;
}

struct Scored {
  Ranked ranked;
  float best = 0;
};

// Sort keys per picker; larger is better. Ties of kMaxScore are broken by the random second key.
float picker_key(PickerKind kind, float score, Prng& prng) {
  switch (kind) {
    case PickerKind::kMaxScore:
      return score;
    case PickerKind::kRandom:
      return 0;
    // Efraimidis and Spirakis, A-Res: U^(1/w), here as log(U)/w, which is never 0/0.
    case PickerKind::kWeightedRandom:
      return score <= 0 ? -INFINITY : static_cast<float>(std::log(prng.uniform() + 1e-300)) / score;
  }
  return score;
}

Scored rank(const ScoreInput& input, const Profile& profile, PickerKind kind, Prng& prng) {
  std::array<float, kEndpointsMax> total{}, part;
  const size_t n = input.candidates.size();
  for (const WeightedScorer& row : profile) {
    row.scorer->score(input, std::span(part).first(n));
    for (size_t k = 0; k < n; ++k) total[k] += row.weight * std::clamp(part[k], 0.0f, 1.0f);
  }
  struct Key {
    float key;
    uint64_t tie;
    uint16_t k;
  };
  std::array<Key, kEndpointsMax> keys;
  for (size_t k = 0; k < n; ++k) keys[k] = {picker_key(kind, total[k], prng), prng.next(), static_cast<uint16_t>(k)};
  const size_t top = std::min<size_t>(n, kRankedMax);
  std::partial_sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(top), keys.begin() + static_cast<std::ptrdiff_t>(n),
                    [](const Key& a, const Key& b) { return a.key != b.key ? a.key > b.key : a.tie > b.tie; });
  Scored out;
  for (size_t j = 0; j < top; ++j) out.ranked.index[j] = input.candidates[keys[j].k];
  out.ranked.count = static_cast<int>(top);
  if (top > 0) out.best = total[keys[0].k];
  return out;
}

bool wants_remote_prefill(const RouteConfig& config, int64_t prompt_tokens, int64_t cached_tokens) {
  switch (config.decider) {
    case DeciderKind::kAlways:
      return true;
    case DeciderKind::kNever:
      return false;
    case DeciderKind::kPrefixBased:
      return config.non_cached_tokens > 0 && prompt_tokens >= config.prompt_tokens_min &&
             prompt_tokens - cached_tokens >= config.non_cached_tokens;
  }
  return false;
}

std::unexpected<Error> nothing_usable(const Snapshot& snapshot, const RouteRequest& request) {
  const bool known = std::ranges::any_of(snapshot.endpoints, [&](const Endpoint& e) { return serves(e, request.model); });
  if (!known && !snapshot.endpoints.empty()) return fail(Code::kNotFound, "The model `", request.model, "` does not exist.");
  return fail(Code::kUnavailable, "no ready decode worker serves the model");
}

}  // namespace

RouteConfig RouteConfig::defaults() {
  RouteConfig config;
  // On an idle pool queue and KV usage are 0 everywhere and would leave the choice to chance; in-flight requests spread it.
  config.decode = *parse_profile("queue-scorer=2,kv-cache-utilization-scorer=2,prefix-cache-scorer=3,active-request-scorer=2");
  config.prefill = config.decode;
  return config;
}

Result<Profile> parse_profile(std::string_view text) {
  Profile profile;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const size_t equals = item.find('=');
    const std::string_view name = item.substr(0, equals);
    WeightedScorer row{find_scorer(name), 1};
    if (row.scorer == nullptr) {
      std::string known;
      for (const Scorer& scorer : scorers()) known += (known.empty() ? "" : ", ") + std::string(scorer.name);
      return fail(Code::kInvalidArgument, "unknown scorer \"", name, "\"; known are ", known);
    }
    if (equals != std::string_view::npos) {
      const std::string_view weight = item.substr(equals + 1);
      const auto [end, error] = std::from_chars(weight.data(), weight.data() + weight.size(), row.weight);
      if (error != std::errc() || end != weight.data() + weight.size() || !std::isfinite(row.weight) || row.weight < 0) {
        return fail(Code::kInvalidArgument, "weight of ", name, " must be a number >= 0, got \"", weight, "\"");
      }
    }
    profile.push_back(row);
  }
  return profile;
}

std::string profile_text(const Profile& profile) {
  std::string out;
  for (const WeightedScorer& row : profile) out += cat(out.empty() ? "" : ",", row.scorer->name, "=", row.weight);
  return out;
}

std::string_view why_name(Why why) {
  switch (why) {
    case Why::kRemotePrefill:
      return "remote-prefill";
    case Why::kDeciderNever:
      return "decider-never";
    case Why::kCachedOrShort:
      return "cached-or-short";
    case Why::kNoPrefillEndpoint:
      return "no-prefill-endpoint";
    case Why::kDecodeServesBoth:
      return "decode-serves-both";
    case Why::kPrefillServesAll:
      return "prefill-serves-all";
    case Why::kSingle:
      return "single";
    case Why::kNotAllowed:
      return "remote-prefill-not-allowed";
    case Why::kCheaperLocal:
      return "cheaper-local";
    case Why::kSplit:
      return "split";
  }
  return "";
}

Result<Decision> pick(const Snapshot& snapshot, const RouteRequest& request, const PrefixMatch& match, const RouteConfig& config,
                      Prng& prng) {
  BATON_CHECK(snapshot.endpoints.size() == snapshot.loads.size());
  ScoreInput input{.snapshot = snapshot,
                   .match = match,
                   .blocks_total = request.chain.size(),
                   .prompt_tokens = request.prompt_tokens,
                   .block_tokens = config.block_tokens,
                   .stale_after_ms = config.stale_after_ms,
                   .candidates = {}};
  auto cached_tokens = [&](int i) {
    return std::min<int64_t>(request.prompt_tokens, int64_t{match[snapshot.endpoints[i].slot]} * config.block_tokens);
  };
  Decision decision;

  Candidates decoders = filter(snapshot, request, decodes);
  const bool prefill_serves_all = decoders.count == 0 && config.prefill_may_decode;
  if (prefill_serves_all) decoders = filter(snapshot, request, [](Role role) { return decodes(role) || prefills(role); });
  if (decoders.count == 0) return nothing_usable(snapshot, request);
  input.candidates = decoders.all();
  const Scored decode = rank(input, config.decode, config.picker, prng);
  decision.decode = decode.ranked.index[0];
  decision.decode_ranked = decode.ranked;
  decision.decode_score = decode.best;
  decision.decode_cached_tokens = cached_tokens(decision.decode);
  if (prefill_serves_all) return decision.why = Why::kPrefillServesAll, decision;

  if (config.decider == DeciderKind::kNever) return decision.why = Why::kDeciderNever, decision;
  if (!wants_remote_prefill(config, request.prompt_tokens, decision.decode_cached_tokens)) {
    return decision.why = Why::kCachedOrShort, decision;
  }
  Candidates prefillers = filter(snapshot, request, [](Role role) { return prefills(role) && !decodes(role); });
  if (prefillers.count == 0) {
    // An aggregated worker prefills for itself; sending its prompt to another aggregated worker would only add a hand-over.
    if (prefills(snapshot.endpoints[decision.decode].role)) return decision.why = Why::kDecodeServesBoth, decision;
    prefillers = filter(snapshot, request, prefills);
  }
  if (prefillers.count == 0) return decision.why = Why::kNoPrefillEndpoint, decision;
  input.candidates = prefillers.all();
  const Scored prefill = rank(input, config.prefill, config.picker, prng);
  decision.prefill = prefill.ranked.index[0];
  decision.prefill_ranked = prefill.ranked;
  decision.prefill_score = prefill.best;
  decision.prefill_cached_tokens = cached_tokens(decision.prefill);
  decision.why = Why::kRemotePrefill;
  return decision;
}

}  // namespace baton::route
