#include "picker/replica.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "base/prng.h"

namespace baton::picker {
namespace {

using Counts = std::vector<ReplicaCount>;

TEST(ReplicaLedger, DeltasAreAbsoluteAndSnapshotsRepair) {
  ReplicaLedger a("a", 1, "", 1000), b("b", 2, "", 1000);
  std::vector<ReplicaPrefix> learnt;
  Counts now = {{"x:1", 2, 300}, {"y:1", 1, 10}, {"z:1", 0, 0}};
  EXPECT_EQ(*b.receive(a.snapshot(now), 0, learnt), true);
  EXPECT_EQ(b.totals(), (Counts{{"x:1", 2, 300}, {"y:1", 1, 10}}));
  EXPECT_EQ(a.delta(now), "");
  now = {{"x:1", 3, 350}, {"y:1", 1, 10}};
  (void)a.delta(now);  // lost
  now = {{"y:1", 1, 10}, {"z:1", 5, 5}};
  ASSERT_TRUE(b.receive(a.delta(now), 1, learnt));
  EXPECT_EQ(b.totals(), (Counts{{"y:1", 1, 10}, {"z:1", 5, 5}})) << "x left the pool";
  EXPECT_EQ(b.gaps(), 1u);
  const std::string old = a.delta(Counts{{"y:1", 9, 9}});
  const std::string newer = a.snapshot(Counts{{"y:1", 2, 2}});
  ASSERT_TRUE(b.receive(newer, 2, learnt));
  EXPECT_EQ(*b.receive(old, 2, learnt), false) << "it came late";
  EXPECT_EQ(b.totals(), (Counts{{"y:1", 2, 2}}));
}

TEST(ReplicaLedger, PeersAddUpAndFallSilent) {
  ReplicaLedger a("a", 1, "", 1000), b("b", 2, "", 1000), c("c", 3, "", 1000);
  std::vector<ReplicaPrefix> learnt;
  ASSERT_TRUE(c.receive(a.snapshot(Counts{{"x:1", 1, 100}}), 0, learnt));
  ASSERT_TRUE(c.receive(b.snapshot(Counts{{"x:1", 2, 50}}), 500, learnt));
  EXPECT_EQ(c.totals(), (Counts{{"x:1", 3, 150}}));
  EXPECT_FALSE(c.expire(999));
  EXPECT_TRUE(c.expire(1000));
  EXPECT_EQ(c.totals(), (Counts{{"x:1", 2, 50}}));
  ReplicaLedger again("b", 4, "", 1000);  // b restarted: what it had is gone at once
  ASSERT_TRUE(c.receive(again.snapshot({}), 600, learnt));
  EXPECT_TRUE(c.totals().empty());
  EXPECT_EQ(*c.receive(c.snapshot(Counts{{"x:1", 9, 9}}), 600, learnt), false) << "its own message";
  EXPECT_EQ(c.peers(), 1u);
}

TEST(ReplicaLedger, PrefixesAndRefusals) {
  ReplicaLedger a("a", 1, "secret", 1000), b("b", 2, "secret", 1000), stranger("s", 3, "other", 1000);
  std::vector<ReplicaPrefix> learnt;
  const std::vector<ReplicaPrefix> sent = {{"x:1", {1, 2, ~0ull}}, {"y:1", {}}};
  const std::string message = a.prefixes(sent);
  EXPECT_EQ(*b.receive(message, 0, learnt), false);
  EXPECT_EQ(learnt, sent);
  EXPECT_EQ(b.receive(stranger.snapshot({}), 0, learnt).error().code, Code::kPermissionDenied);
  for (size_t n = 0; n < message.size(); ++n) EXPECT_FALSE(b.receive(message.substr(0, n), 0, learnt));
  EXPECT_FALSE(b.receive(message + "x", 0, learnt));
  EXPECT_EQ(learnt.size(), 2u);
}

// Two replicas in one process, over loopback.
struct Side {
  std::mutex& mutex;
  std::condition_variable& changed;
  Counts local;
  std::map<std::string, ReplicaCount> remote;
  std::map<std::string, std::vector<uint64_t>> prefixes;
  std::unique_ptr<Replica> replica;

  void start(const Clock& clock, std::string name, std::vector<std::string> peers, std::string dns = "") {
    ReplicaHooks hooks;
    hooks.local = [this] {
      const std::lock_guard lock(mutex);
      return local;
    };
    hooks.remote = [this](std::span<const ReplicaCount> sums) {
      const std::lock_guard lock(mutex);
      remote.clear();
      for (const ReplicaCount& c : sums) remote[c.address] = c;
      changed.notify_all();
    };
    hooks.prefix = [this](std::string_view address, std::span<const uint64_t> hashes) {
      const std::lock_guard lock(mutex);
      auto& all = prefixes[std::string(address)];
      all.insert(all.end(), hashes.begin(), hashes.end());
      changed.notify_all();
    };
    replica = std::make_unique<Replica>(ReplicaOptions{.name = std::move(name), .bind = "tcp://127.0.0.1:*", .peers = std::move(peers), .dns = std::move(dns),
                                                       .token = "t", .interval_ms = 2, .snapshot_ms = 50, .ttl_ms = 300, .dns_ms = 10},
                                        std::move(hooks), clock);
    ASSERT_TRUE(replica->start());
  }
  std::string address() const { return replica->endpoint().substr(std::string("tcp://").size()); }
};

TEST(Replica, TwoTellEachOtherAndTheOneThatDiesCountsNoMore) {
  SteadyClock clock;
  std::mutex mutex;
  std::condition_variable changed;
  Side a{mutex, changed, {{"x:1", 4, 400}}, {}, {}, {}}, b{mutex, changed, {{"x:1", 1, 7}, {"y:1", 2, 20}}, {}, {}, {}};
  a.start(clock, "a", {});
  // b listens to a, whom it finds by list and by name alike
  b.start(clock, "b", {a.address()}, "localhost:" + a.address().substr(a.address().rfind(':') + 1));
  const auto await = [&](auto&& condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), condition);
  };
  ASSERT_TRUE(await([&] { return b.remote.contains("x:1") && b.remote["x:1"].tokens == 400; })) << "a snapshot on joining";
  {
    const std::lock_guard lock(mutex);
    a.local = {{"z:1", 1, 1}};
  }
  ASSERT_TRUE(await([&] { return b.remote.size() == 1 && b.remote.contains("z:1"); }));
  a.replica->recorded("z:1", std::vector<uint64_t>{1, 2, 3, 4}, 1);
  ASSERT_TRUE(await([&] { return b.prefixes["z:1"] == std::vector<uint64_t>{2, 3, 4}; }));
  EXPECT_EQ(b.replica->counts().peers, 1u);
  a.replica->stop();
  ASSERT_TRUE(await([&] { return b.remote.empty(); })) << "its counts expire";
  Side again{mutex, changed, {}, {}, {}, {}};
  again.start(clock, "a", {b.address()});
  ASSERT_TRUE(await([&] { return again.remote.contains("y:1"); }));
  again.replica->stop();
  b.replica->stop();
}

TEST(Replica, APromptFloodIsBounded) {
  SteadyClock clock;
  Replica alone({.name = "a", .bind = "tcp://127.0.0.1:*", .queue_hashes_max = 100}, {}, clock);
  const std::vector<uint64_t> chain(60, 7);
  for (int i = 0; i < 5; ++i) alone.recorded("x:1", chain, 0);
  EXPECT_EQ(alone.counts().prefixes_dropped, 4u);
  ASSERT_TRUE(alone.start());
  alone.stop();
}

}  // namespace
}  // namespace baton::picker
