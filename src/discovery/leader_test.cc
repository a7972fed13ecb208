// Leader election against the fake API server: who leads, when that changes, and what the lease says.
#include "discovery/leader.h"

#include "discovery/fake_api.h"
#include "discovery/kube_files.h"
#include "discovery/lease.h"

namespace baton::discovery {
namespace {

constexpr const char* kLeases = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";

class Candidate {
 public:
  Candidate(const FakeApi& api, std::string identity, uint64_t seed) {
    LeaderOptions options;
    options.access = api.access();
    options.ns = "ns";
    options.lease_name = lease_name_for("ns", "pool");
    options.identity = std::move(identity);
    options.lease = std::chrono::milliseconds(1500);
    options.renew_deadline = std::chrono::milliseconds(700);
    options.retry = std::chrono::milliseconds(20);
    options.seed = seed;
    election = std::make_unique<LeaderElection>(options);
  }
  void start() {
    ASSERT_TRUE(election->start([this](bool now) {
      std::lock_guard lock(mutex);
      changes.push_back(now);
      wake.notify_all();
    }));
  }
  bool wait_changes(size_t n) {
    std::unique_lock lock(mutex);
    return wake.wait_for(lock, std::chrono::seconds(30), [&] { return changes.size() >= n; });
  }
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<bool> changes;
  std::unique_ptr<LeaderElection> election;  // last: it tells of its end while it is destroyed
};

TEST(Lease, KeepsWhatItDoesNotKnow) {
  const std::string object =
      R"({"metadata":{"name":"l","resourceVersion":"7","labels":{"x":"y"}},"spec":{"holderIdentity":"a","leaseDurationSeconds":15},"more":1.50})";
  auto lease = parse_lease(object);
  ASSERT_TRUE(lease);
  EXPECT_EQ(lease->holder, "a");
  EXPECT_EQ(lease->version, "7");
  lease->holder = "b";
  lease->transitions = 3;
  EXPECT_EQ(
      *with_lease(object, *lease),
      R"({"metadata":{"name":"l","resourceVersion":"7","labels":{"x":"y"}},"spec":{"holderIdentity":"b","leaseDurationSeconds":15,"leaseTransitions":3},"more":1.50})");
  EXPECT_FALSE(parse_lease(R"({"spec":{}})"));
  EXPECT_FALSE(parse_lease("{"));
  EXPECT_EQ(micro_time(1'763'734'448'000'042), "2025-11-21T14:14:08.000042Z");
  EXPECT_EQ(unix_from_rfc3339("2025-11-21T14:14:08.000042Z"), 1'763'734'448);
}

TEST(Leader, DurationsMustFitTogether) {
  FakeApi api;
  LeaderOptions options;
  options.access = api.access();
  options.ns = "ns";
  options.lease_name = "l";
  options.renew_deadline = options.lease;
  EXPECT_EQ(LeaderElection(options).start(nullptr).error().code, Code::kInvalidArgument);
}

TEST(Leader, OneLeadsAndHandsOverWhenItStops) {
  FakeApi api;
  api.install(kLeases);
  Candidate first(api, "first", 1), second(api, "second", 2);
  first.start();
  ASSERT_TRUE(first.wait_changes(1));
  EXPECT_TRUE(first.election->leads());
  second.start();
  ASSERT_TRUE(api.wait_count("put leases", 10));  // renewals go on, the other looks and waits
  EXPECT_FALSE(second.election->leads());
  EXPECT_EQ(second.election->leader(), "first");
  const auto before = parse_lease(api.text(kLeases, "epp-ns-pool.llm-d.ai"));
  EXPECT_EQ(before->duration_s, 2);
  EXPECT_EQ(before->transitions, 0);

  first.election->stop();
  EXPECT_EQ(first.changes, (std::vector<bool>{true, false}));
  ASSERT_TRUE(second.wait_changes(1));
  const auto after = parse_lease(api.text(kLeases, "epp-ns-pool.llm-d.ai"));
  EXPECT_EQ(after->holder, "second");
  EXPECT_EQ(after->transitions, 1);
  second.election->stop();
  EXPECT_EQ(parse_lease(api.text(kLeases, "epp-ns-pool.llm-d.ai"))->holder, "");
}

TEST(Leader, TakesOverADeadHoldersLeaseByItsOwnClockAlone) {
  FakeApi api;
  api.install(kLeases);
  // The dead holder's clock was a year ahead: its timestamps must not matter.
  api.put(kLeases, R"({"metadata":{"name":"epp-ns-pool.llm-d.ai"},"spec":{"holderIdentity":"dead","leaseDurationSeconds":1,)"
                   R"("renewTime":"2099-01-01T00:00:00.000000Z","leaseTransitions":4}})");
  Candidate heir(api, "heir", 3);
  const SteadyClock clock;
  const int64_t began_ms = clock.now_ms();
  heir.start();
  ASSERT_TRUE(heir.wait_changes(1));
  EXPECT_GE(clock.now_ms() - began_ms, 1000) << "a lease lasts its duration from the moment it was first seen";
  EXPECT_EQ(parse_lease(api.text(kLeases, "epp-ns-pool.llm-d.ai"))->transitions, 5);
}

TEST(Leader, StepsDownWhenTheApiServerIsGoneOrSilentAndComesBack) {
  FakeApi api;
  api.install(kLeases);
  Candidate only(api, "only", 4);
  only.start();
  ASSERT_TRUE(only.wait_changes(1));
  api.stop();
  ASSERT_TRUE(only.wait_changes(2));
  EXPECT_FALSE(only.election->leads());
  api.start();
  ASSERT_TRUE(only.wait_changes(3));
  api.fault("put leases", {.hang = true}, 1000);
  ASSERT_TRUE(only.wait_changes(4));
  EXPECT_EQ(only.changes, (std::vector<bool>{true, false, true, false}));
}

TEST(Leader, StepsDownWhenAnotherTookTheLease) {
  FakeApi api;
  api.install(kLeases);
  Candidate one(api, "one", 5);
  one.start();
  ASSERT_TRUE(one.wait_changes(1));
  api.put(kLeases, R"({"metadata":{"name":"epp-ns-pool.llm-d.ai"},"spec":{"holderIdentity":"thief","leaseDurationSeconds":60}})");
  ASSERT_TRUE(one.wait_changes(2));
  EXPECT_EQ(one.election->leader(), "thief");
}

TEST(Leader, ManyCandidatesNeverTwoAtOnce) {
  FakeApi api;
  api.install(kLeases);
  std::vector<std::unique_ptr<Candidate>> all;
  for (uint64_t i = 0; i < 5; ++i) {
    all.push_back(std::make_unique<Candidate>(api, cat("c", i), 10 + i));
    all.back()->start();
  }
  for (int round = 0; round < 4; ++round) {
    ASSERT_TRUE(api.wait_count("put leases", (round + 1) * 15));
    int leaders = 0;
    for (const auto& c : all) leaders += c->election->leads();
    EXPECT_LE(leaders, 1);
    std::string name = parse_lease(api.text(kLeases, "epp-ns-pool.llm-d.ai"))->holder;
    for (const auto& c : all) {
      if (c->election->identity() == name) c->election->stop();
    }
  }
}

TEST(Leader, DeniedOrMissingKindIsNoLeadershipAndNoCrash) {
  FakeApi api;
  api.install(kLeases);
  Candidate c(api, "c", 6);
  api.fault("post leases", {.status = 404}, 1000);
  api.fault("get leases", {.status = 403, .body = R"({"kind":"Status","message":"leases is forbidden"})"}, 2);
  c.start();
  ASSERT_TRUE(api.wait_count("get leases", 4));
  EXPECT_FALSE(c.election->leads());
  c.election->stop();
  EXPECT_TRUE(c.changes.empty());
}

}  // namespace
}  // namespace baton::discovery
