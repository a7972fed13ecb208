#pragma once
// One stage of a decision: filters, scores, ranking of a profile. Shared by the handlers (decide.cc, pair.cc). No allocation.
#include <span>

#include "route/plugins.h"

namespace baton::route {

Candidates usable_without(const Scene& scene, int without);  // -1 = all usable
// True if a role filter emptied the set (or it was empty): the role is missing, rather than nobody fit.
bool apply_filters(const Scene& scene, const ProfileSpec& profile, bool skip_roles, Candidates& candidates);
bool only_role_filters(const ProfileSpec& profile);
// Remote prefill would send the prompt of one aggregated worker to another.
bool only_repeats_decode(const Scene& scene, const ProfileSpec& profile, int decode, const Candidates& prefillers);
void add_scores(const Scene& scene, const ProfileSpec& profile, std::span<const uint16_t> candidates, std::span<float> total);
StageResult rank(const Scene& scene, const ProfileSpec& profile, const Candidates& candidates, std::span<float> scores);

}  // namespace baton::route
