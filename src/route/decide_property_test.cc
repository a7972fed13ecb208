// decide(): what holds for every pool, plan and request, at random; that it allocates nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <set>

#include "route/config.h"
#include "route/decide.h"
#include "route/estimate.h"
#include "route/plugins.h"
#include "route/test_world.h"

namespace {
[[maybe_unused]] std::atomic<int64_t> g_allocations{0};
}

#if !defined(__has_feature) || !(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#define BATON_COUNTS_ALLOCATIONS 1
void* operator new(size_t n) {
  ++g_allocations;
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  std::abort();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

namespace baton::route {
namespace {

World random_world(Prng& prng, int endpoints) {
  World w;
  for (int i = 0; i < endpoints; ++i) {
    Endpoint e;
    e.host = "10.0.0." + std::to_string(i);
    e.port = 8000;
    e.role = static_cast<Role>(prng.below(6));
    e.role_given = prng.chance(0.9);
    e.slot = kEndpointsMax - 1 - i;
    if (prng.chance(0.3)) e.models = {prng.chance(0.5) ? "a" : "b"};
    if (prng.chance(0.5)) e.labels = {{"topology.kubernetes.io/zone", prng.chance(0.5) ? "z1" : "z2"}};
    Load l;
    l.healthy = prng.chance(0.8);
    l.age_ms = prng.between(-1, 4000);
    l.waiting = static_cast<int>(prng.between(0, 9)), l.running = static_cast<int>(prng.between(0, 50));
    l.kv_usage = static_cast<float>(prng.uniform());
    l.inflight_requests = static_cast<int>(prng.between(0, 80));
    l.inflight_tokens = prng.between(0, 1 << 20);
    if (prng.chance(0.5))
      l.ttft_ms = static_cast<float>(prng.uniform() * 1000), l.tpot_ms = static_cast<float>(prng.uniform() * 50);
    w.match[static_cast<size_t>(e.slot)] = static_cast<uint16_t>(prng.below(41));
    w.cold[static_cast<size_t>(e.slot)] = static_cast<uint32_t>(prng.below(10));
    w.endpoints.push_back(std::move(e));
    w.loads.push_back(l);
    w.names.push_back(std::to_string(i));
  }
  if (prng.chance(0.5)) w.costs.assign(w.endpoints.size(), {{1'000, 30, 0.2}, {5'000, 80, 3}, 100'000});
  return w;
}

// A plan at random: one of the handlers, any filters, scorers and pickers.
std::shared_ptr<const Plan> random_plan(Prng& prng, bool with_filters) {
  static const std::vector<std::string> kHandlers = {
      "{type: disagg-profile-handler, parameters: "
      "{deciders: {prefill: always-disagg-pd-decider, encode: always-disagg-multimodal-decider}}}",
      "{type: disagg-profile-handler, parameters: {deciders: {prefill: baton-cost-decider}}}",
      "{type: disagg-profile-handler, parameters: {stageOrder: prefill-first}}",
      "{type: disagg-profile-handler, parameters: {deciders: {prefill: prefix-based-pd-decider}, onMissingDecode: fail}}",
      "{type: baton-pair-handler, parameters: {scoreWeight: 10}}",
      "{type: header-profile-handler}",
  };
  std::string text = "plugins:\n", decode, prefill;
  for (const PluginRow* row : plugin_rows()) {
    if (!row->refused.empty() || !row->ignored.empty() || row->handler != HandlerKind::kNone ||
        (row->kinds & (kAdmitter | kDetector | kDiscovery)) != 0)
      continue;
    if ((row->kinds & (kFilter | kScorer | kPicker | kDecider)) == 0 || !row->same_as.empty() ||
        row->type == "session-id-producer")
      continue;
    text +=
        cat("- {type: ", row->type, row->type == "prefix-based-pd-decider" ? ", parameters: {nonCachedTokens: 100}}\n" : "}\n");
    if ((row->kinds & kScorer) != 0 && prng.chance(0.3))
      decode += cat("  - {pluginRef: ", row->type, ", weight: ", prng.below(4), "}\n");
    if ((row->kinds & kScorer) != 0 && prng.chance(0.3)) prefill += cat("  - {pluginRef: ", row->type, "}\n");
    if (with_filters && row->kinds == kFilter && prng.chance(0.1) && !row->role_filter)
      decode += cat("  - pluginRef: ", row->type, "\n");
  }
  const char* picker = prng.chance(0.6) ? "max-score-picker" : prng.chance(0.5) ? "random-picker" : "weighted-random-picker";
  text += cat("- ", kHandlers[prng.below(kHandlers.size())], "\n");
  text += cat("schedulingProfiles:\n- name: decode\n  plugins:\n  - pluginRef: decode-filter\n", decode,
              "  - pluginRef: ", picker, "\n");
  text += cat("- name: prefill\n  plugins:\n  - pluginRef: prefill-filter\n", prefill, "  - pluginRef: ", picker, "\n");
  text += "- name: encode\n  plugins:\n  - pluginRef: encode-filter\n";
  const Loaded loaded = load_config(text, {.allow_experimental = true, .flow_control = false});
  EXPECT_TRUE(loaded.plan) << testing::PrintToString(loaded.errors) << text;
  return loaded.plan;
}

Inquiry random_inquiry(Prng& prng, const World& w, std::vector<std::string>& subset) {
  Inquiry q;
  q.model = prng.chance(0.5) ? "a" : "";
  q.prompt_tokens = prng.between(0, 1000);
  q.blocks_total = 40;
  if (prng.chance(0.9)) q.match = &w.match;
  q.cold_order = w.cold;
  q.subset_given = prng.chance(0.3);
  for (const Endpoint& e : w.endpoints) {
    if (prng.chance(0.5)) subset.push_back(e.host + ":99");
  }
  q.subset = subset;
  for (size_t i = 0; i < w.endpoints.size(); ++i) q.excluded[i] = prng.chance(0.1);
  q.multimodal = prng.chance(0.3);
  q.remote_prefill_allowed = prng.chance(0.9);
  q.ttft_slo_ms = prng.chance(0.5) ? 400 : 0, q.tpot_slo_ms = prng.chance(0.5) ? 30 : 0;
  return q;
}

TEST(DecideProperty, ChoosesOnlyWhatMayBeChosen) {
  int remote = 0, served = 0;
  for (uint64_t seed = 1; seed <= 1500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    const auto plan = random_plan(prng, prng.chance(0.5));
    const World w = random_world(prng, static_cast<int>(prng.below(seed % 100 == 0 ? kEndpointsMax + 1 : 12)));
    std::vector<std::string> subset;
    const Inquiry q = random_inquiry(prng, w, subset);
    auto usable = [&](size_t i) {
      const Endpoint& e = w.endpoints[i];
      const bool model_ok = q.model.empty() || e.models.empty() || e.models[0] == q.model;
      return w.loads[i].healthy && !q.excluded[i] && model_ok &&
             (!q.subset_given || std::ranges::find(subset, e.host + ":99") != subset.end());
    };
    std::vector<float> scores(w.endpoints.size());
    Prng a(seed), b(seed);
    const auto v = decide(w.snapshot(), q, *plan, a, scores);
    const auto again = decide(w.snapshot(), q, *plan, b, {});
    ASSERT_EQ(v.has_value(), again.has_value());
    if (!v) continue;
    ++served;
    for (const StageResult* stage : {&v->primary, &v->prefill, &v->encode}) {
      std::set<int> seen;
      for (uint16_t i : stage->ranked.all()) EXPECT_TRUE(usable(i) && seen.insert(i).second);
      EXPECT_LE(stage->listed, std::max(1, stage->ranked.count));
    }
    ASSERT_GT(v->primary.ranked.count, 0);
    EXPECT_THAT(v->primary.ranked.all(), testing::ElementsAreArray(again->primary.ranked.all()));
    EXPECT_THAT(v->prefill.ranked.all(), testing::ElementsAreArray(again->prefill.ranked.all()));
    const size_t primary = v->primary.ranked.index[0];
    EXPECT_TRUE(decodes(w.endpoints[primary].role) || v->why == Why::kPrefillServesAll);
    EXPECT_EQ(v->prefill.ranked.count > 0, v->why == Why::kRemotePrefill || v->why == Why::kSplit);
    if (v->prefill.ranked.count > 0) {
      ++remote;
      EXPECT_NE(v->prefill.ranked.index[0], primary);
      EXPECT_TRUE(prefills(w.endpoints[v->prefill.ranked.index[0]].role));
      EXPECT_TRUE(q.remote_prefill_allowed);
    }
    for (size_t i = 0; i < scores.size(); ++i) EXPECT_TRUE(scores[i] == -1 || (scores[i] >= 0 && usable(i))) << scores[i];
  }
  EXPECT_GT(remote, 100);
  EXPECT_GT(served, 800);
}

// A request fails only when no worker could take it: role filters alone never lose one.
TEST(DecideProperty, ServesWheneverSomebodyCould) {
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    const auto plan = default_plan();
    const World w = random_world(prng, static_cast<int>(prng.below(5)));
    Inquiry q;
    const bool any = std::ranges::any_of(w.endpoints, [&](const Endpoint& e) {
      return w.loads[static_cast<size_t>(&e - w.endpoints.data())].healthy && (decodes(e.role) || prefills(e.role));
    });
    EXPECT_EQ(decide(w.snapshot(), q, *plan, prng).has_value(), any);
  }
}

TEST(DecideProperty, ScoresStayInRangeAndMoveTheRightWay) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Prng prng(seed);
    World w = random_world(prng, 2 + static_cast<int>(prng.below(20)));
    const auto plan = default_plan();
    std::vector<uint16_t> all;
    for (size_t i = 0; i < w.endpoints.size(); ++i) all.push_back(static_cast<uint16_t>(i));
    std::vector<std::string> subset;
    const Inquiry q = random_inquiry(prng, w, subset);
    for (const PluginRow* row : plugin_rows()) {
      if (row->score == nullptr) continue;
      SCOPED_TRACE(cat(row->type, " seed ", seed));
      const Params params = row->make();
      const Snapshot snapshot = w.snapshot();
      auto score = [&] {
        std::vector<float> out(all.size(), -1);
        row->score(Scene{.snapshot = snapshot, .inquiry = q, .plan = *plan, .prng = prng, .usable = all, .peer = 0}, params, all,
                   out);
        return out;
      };
      const std::vector<float> before = score();
      for (float x : before) EXPECT_TRUE(x >= 0 && x <= 1) << x;
      Load& victim = w.loads[0];
      const Load kept = victim;
      victim.waiting += 20, victim.inflight_requests += 30, victim.inflight_tokens += 1 << 20,
          victim.kv_usage = std::min(1.0f, victim.kv_usage + 0.2f);
      const bool by_load = row->type == "queue-scorer" || row->type == "kv-cache-utilization-scorer" ||
                           row->type == "load-aware-scorer" || row->type == "active-request-scorer" ||
                           row->type == "token-load-scorer";
      if (by_load) EXPECT_LE(score()[0], before[0]) << "more load never scores more";
      victim = kept;
      if (row->type == "prefix-cache-scorer" && q.match != nullptr) {
        uint16_t& matched = w.match[static_cast<size_t>(w.endpoints[0].slot)];
        const uint16_t was = matched;
        matched = 40;
        EXPECT_GE(score()[0], before[0]);
        matched = was;
      }
    }
  }
}

TEST(DecideProperty, PairSearchFindsTheCheapestPair) {
  const Loaded loaded = load_config(
      "plugins:\n- {type: prefill-filter}\n- {type: decode-filter}\n- {type: baton-pair-handler}\nschedulingProfiles:\n"
      "- {name: prefill, plugins: [{pluginRef: prefill-filter}]}\n- {name: decode, plugins: [{pluginRef: decode-filter}]}\n");
  ASSERT_TRUE(loaded.plan);
  const auto& p = std::get<PairParams>(loaded.plan->policy->plugins[static_cast<size_t>(loaded.plan->policy->handler)].params);
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    World w = random_world(prng, 1 + static_cast<int>(prng.below(14)));
    std::vector<uint16_t> all;
    for (size_t i = 0; i < w.endpoints.size(); ++i) {
      w.loads[i].healthy = true;
      w.endpoints[i].role_given = true;
      all.push_back(static_cast<uint16_t>(i));
    }
    Inquiry q;
    q.prompt_tokens = prng.between(1, 20'000);
    q.blocks_total = static_cast<size_t>(q.prompt_tokens / 16);
    q.match = &w.match;
    const auto v = decide(w.snapshot(), q, *loaded.plan, prng);
    const Snapshot snapshot = w.snapshot();
    const Scene s{.snapshot = snapshot, .inquiry = q, .plan = *loaded.plan, .prng = prng, .usable = all};
    double best = 1e300;
    for (uint16_t d : all) {
      if (!decodes(s.endpoint(d).role)) continue;
      best = std::min(best, estimate_local(s, d, p.harm_weight).cost_ms);
      for (uint16_t f : all) {
        if (f != d && prefills(s.endpoint(f).role)) best = std::min(best, estimate_remote(s, f, d, p.harm_weight).cost_ms);
      }
    }
    if (best == 1e300) continue;  // nobody decodes: the fallback
    ASSERT_TRUE(v);
    EXPECT_NEAR(v->primary.score, best, 1e-3 * best + 1e-3) << why_name(v->why);
  }
}

TEST(DecideProperty, BurstBetweenTwoScrapesIsSpread) {
  const auto plan = default_plan();
  World w;  // both report an empty queue and will not report again during the burst
  for (const char* name : {"a", "b"}) add_endpoint(w, name, {});
  Prng prng(3);
  for (int i = 0; i < 100; ++i) ++w.loads[decide(w.snapshot(), {}, *plan, prng)->primary.ranked.index[0]].inflight_requests;
  EXPECT_NEAR(w.loads[0].inflight_requests, 50, 1);
}

TEST(Decide, AllocatesNothing) {
#ifdef BATON_COUNTS_ALLOCATIONS
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Prng prng(seed);
    const auto plan = random_plan(prng, false);
    const World w = random_world(prng, 300);
    std::vector<std::string> subset;
    Inquiry q = random_inquiry(prng, w, subset);
    q.model = "";
    q.subset_given = false;
    std::vector<float> scores(w.endpoints.size());
    const int64_t before = g_allocations;
    const auto v = decide(w.snapshot(), q, *plan, prng, scores);
    const int64_t used = g_allocations - before;
    EXPECT_TRUE(!v || used == 0) << used << " allocations, seed " << seed;
  }
#else
  GTEST_SKIP() << "the sanitizer counts allocations its own way";
#endif
}

TEST(RoleFlip, IsProposedOnlyWhereOneStageIsPressed) {
  World w;
  add_endpoint(w, "p", {{"role", "prefill"}, {"inflight_tokens", "900000"}});
  add_endpoint(w, "d1", {{"role", "decode"}, {"kv", "0.3"}});
  add_endpoint(w, "d2", {{"role", "decode"}, {"kv", "0.1"}});
  const auto plan = default_plan();
  RoleFlip flip = propose_role_flip(w.snapshot(), *plan);
  EXPECT_EQ(flip.endpoint, 2) << "the idlest decode worker";
  EXPECT_EQ(flip.to, Role::kPrefill);
  w.loads[0].inflight_tokens = 0;
  w.loads[1].kv_usage = w.loads[2].kv_usage = 0;
  EXPECT_EQ(propose_role_flip(w.snapshot(), *plan).endpoint, -1) << "an idle pool stays as it is";
  w.loads[1].waiting = 30;
  EXPECT_EQ(propose_role_flip(w.snapshot(), *plan).endpoint, -1) << "the last prefill worker is kept";
}

}  // namespace
}  // namespace baton::route
