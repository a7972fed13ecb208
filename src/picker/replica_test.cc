#include "picker/replica.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "base/prng.h"
#include "route/prefix_index.h"

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

// One that joins gets what another knows, and puts it behind what it knows itself.
TEST(Replica, OneThatJoinsLearnsWhatIsKnown) {
  SteadyClock clock;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> endpoints;
  for (int i = 0; i < 40; ++i) endpoints.push_back("10.0.0." + std::to_string(i) + ":80");
  const auto chain_of = [](size_t e) {
    std::vector<uint64_t> out;
    for (uint64_t i = 0; i < 50; ++i) out.push_back(1'000 * e + i + 1);
    return out;
  };
  route::PrefixIndex known, learnt;
  for (size_t e = 0; e < endpoints.size(); ++e) known.record(chain_of(e), static_cast<int>(e));
  const auto index_of = [&](std::string_view address) {
    return static_cast<int>(std::ranges::find(endpoints, address) - endpoints.begin());
  };
  const auto hooks = [&](route::PrefixIndex& index) {
    ReplicaHooks out;
    out.endpoints = [&] { return endpoints; };
    out.held = [&](std::string_view address, size_t max) { return index.newest(index_of(address), max); };
    out.older = [&](std::string_view address, std::span<const uint64_t> hashes) {
      index.append_older(hashes, index_of(address));
      { const std::lock_guard lock(mutex); }
      changed.notify_all();
    };
    return out;
  };
  const auto options = [](std::string name, std::vector<std::string> peers) {
    return ReplicaOptions{.name = std::move(name), .bind = "tcp://127.0.0.1:*", .peers = std::move(peers), .token = "t", .interval_ms = 2,
                          .snapshot_ms = 50, .want_ms = 100};
  };
  // Each must hear the other: the first is told where the second will be. That is another loopback address: a connect to a port that
  // nobody listens on yet may otherwise meet itself there.
  auto later_options = options("p", {});
  later_options.bind = "tcp://127.0.0.2:*";
  std::string later;
  {
    Replica probe(later_options, {}, clock);
    ASSERT_TRUE(probe.start());
    later = probe.endpoint();
  }  // the port is free once its context has ended
  Replica old(options("old", {later.substr(6)}), hooks(known), clock);
  ASSERT_TRUE(old.start());
  learnt.record(chain_of(7), 7);  // it has begun to serve
  auto joining = options("new", {old.endpoint().substr(6)});
  joining.bind = later;
  Replica joins(joining, hooks(learnt), clock);
  ASSERT_TRUE(joins.start());
  const auto all = [&] {
    for (size_t e = 0; e < endpoints.size(); ++e) {
      if (learnt.match(chain_of(e))[e] != 50) return false;
    }
    return true;
  };
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), all));
  lock.unlock();
  joins.stop();
  old.stop();
  EXPECT_GE(old.counts().parts_sent, endpoints.size());
  EXPECT_GE(joins.counts().parts_received, 1u);
}

TEST(ReplicaLedger, PartsAreForOneAlone) {
  ReplicaLedger a("a", 1, "", 1000), b("b", 2, "", 1000), c("c", 3, "", 1000);
  std::vector<ReplicaPrefix> learnt;
  ReplicaNews at_a, at_b, at_c;
  const std::string want = b.want("a");
  ASSERT_TRUE(a.receive(want, 0, learnt, &at_a));
  ASSERT_TRUE(c.receive(want, 0, learnt, &at_c));
  EXPECT_EQ(at_a.wanted_by, std::vector<std::string>{"b"});
  EXPECT_TRUE(at_c.wanted_by.empty());
  const std::vector<ReplicaPrefix> held = {{"x:1", {3, 2, 1}}};
  const std::string part = a.part("b", held, true);
  ASSERT_TRUE(b.receive(part, 0, learnt, &at_b));
  ASSERT_TRUE(c.receive(part, 0, learnt, &at_c));
  EXPECT_EQ(at_b.older, held);
  EXPECT_TRUE(at_b.last);
  EXPECT_FALSE(at_c.part);
  EXPECT_TRUE(learnt.empty());
  for (size_t n = 0; n < part.size(); ++n) EXPECT_FALSE(b.receive(part.substr(0, n), 0, learnt, &at_b));
  EXPECT_EQ(b.names(), std::vector<std::string>{"a"});
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
