// Two and three nodes in one process over loopback, both transports: what must arrive arrives whole, what must not is refused
// with its reason, and every grant and fetch ends exactly once.
#include "transfer/transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "transfer/testing/cluster.h"
#include "transfer/testing/fault_proxy.h"

namespace baton::transfer {
namespace {

using testing::Cluster;
using testing::Fault;
using testing::FaultProxy;
using ::testing::HasSubstr;
using testing::NodeSetup;
using testing::TestNode;
using Kind = Event::Kind;

class Transfer : public ::testing::TestWithParam<std::string> {
 protected:
  std::string transport() const { return GetParam(); }
  Fetch whole(TestNode& d, const testing::Offered& o) { return d.fetch_for(prng, o, 0, o.n_tokens); }
  // Runs a whole fetch and checks that it delivered: the pair works.
  void expect_works(TestNode& p, TestNode& d, uint64_t request) {
    auto offered = p.offer_random(prng, request);
    auto fetch = whole(d, offered);
    d.node->fetch(fetch);
    auto event = d.next_of(request, Kind::kFetched);
    ASSERT_TRUE(event);
    ASSERT_FALSE(event->error) << event->error->message;
    EXPECT_TRUE(d.holds(fetch, offered, p, event->valid_tokens));
    EXPECT_TRUE(p.next_of(request, Kind::kGrantReleased));
  }
  void expect_fails(TestNode& d, const Fetch& fetch, Code code, const std::string& text) {
    d.node->fetch(fetch);
    auto event = d.next_of(fetch.request, Kind::kFetched);
    ASSERT_TRUE(event);
    ASSERT_TRUE(event->error);
    EXPECT_EQ(event->error->code, code) << event->error->message;
    EXPECT_THAT(event->error->message, HasSubstr(text));
    EXPECT_EQ(event->valid_tokens, 0);
  }
  uint64_t seed = secure_random_u64();
  ::testing::ScopedTrace trace{__FILE__, __LINE__, cat("seed ", seed)};
  Prng prng{seed};
};
INSTANTIATE_TEST_SUITE_P(Paths, Transfer, ::testing::ValuesIn(testing::all_paths()), [](const auto& p) { return p.param; });

TEST_P(Transfer, MovesRandomBlockListsWithPartialLastBlock) {
  Cluster cluster({.transport = transport()});
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  for (uint64_t round = 1; round <= 40; ++round) {
    auto offered = p.offer_random(prng, round);
    auto first = static_cast<int32_t>(prng.below(offered.blocks.size())) * d.layout.block_tokens;
    auto fetch =
        d.fetch_for(prng, offered, first, 1 + static_cast<int32_t>(prng.below(static_cast<uint64_t>(offered.n_tokens - first))));
    d.node->fetch(fetch);
    auto event = d.next(Kind::kFetched);
    ASSERT_FALSE(event.error) << event.error->message;
    EXPECT_EQ(event.valid_tokens, fetch.n_tokens);
    EXPECT_EQ(event.transport, transport());
    EXPECT_EQ(event.bytes, fetch.blocks.size() * d.layout.block_bytes());
    EXPECT_TRUE(d.holds(fetch, offered, p, event.valid_tokens));
    EXPECT_EQ(p.next(Kind::kGrantReleased).request, offered.request);
  }
  EXPECT_EQ(p.node->grants_live(), 0);
  auto text = d.metrics.text();
  EXPECT_THAT(text, HasSubstr("vllm:nixl_bytes_transferred_count 40"));
  EXPECT_THAT(text, HasSubstr(cat("kv_peer_state{peer=\"", p.address(), "\"} 1")));
  EXPECT_THAT(p.metrics.text(), HasSubstr("kv_retained_bytes 0"));
}

TEST_P(Transfer, ManyAtOnceBetweenThreeNodesInBothDirections) {
  Cluster cluster({.transport = transport()});
  auto& a = cluster.add();
  auto& b = cluster.add({&a});
  auto& d = cluster.add({&a, &b});
  a.node->set_peers({b.address()});
  ASSERT_TRUE(a.wait_peer(b.address(), "connected"));
  struct Leg {
    TestNode* from;
    TestNode* to;
    testing::Offered offered;
    Fetch fetch;
  };
  std::vector<Leg> legs;
  std::vector<int32_t> taken(
      3, 0);  // destinations must not overlap the other fetches' sources or destinations: one block range each
  for (uint64_t i = 1; i <= 60; ++i) {
    auto* from = i % 2 == 0 ? &a : &b;
    auto offered = from->offer_random(prng, i, 3);
    for (auto& block : offered.blocks) block %= 40;
    from->node->release(i);
    offered.grant = from->node->offer({i, offered.blocks, offered.n_tokens, offered.digest});
    Fetch fetch{.request = i,
                .grant = offered.grant,
                .prompt_digest = offered.digest,
                .first_token = 0,
                .n_tokens = offered.n_tokens,
                .blocks = {}};
    for (size_t k = 0; k < offered.blocks.size(); ++k) fetch.blocks.push_back(40 + taken[2]++);
    legs.push_back({from, &d, offered, fetch});
  }
  for (auto& leg : legs) leg.to->node->fetch(leg.fetch);
  for (size_t i = 0; i < legs.size(); ++i) {
    auto event = d.next(Kind::kFetched);
    ASSERT_FALSE(event.error) << event.error->message;
    auto& leg = legs[event.request - 1];
    EXPECT_TRUE(d.holds(leg.fetch, leg.offered, *leg.from, event.valid_tokens));
  }
  for (auto& leg : legs) {
    EXPECT_TRUE(leg.from->next_of(leg.offered.request, Kind::kGrantReleased));  // once by release() ...
    EXPECT_TRUE(leg.from->next_of(leg.offered.request, Kind::kGrantReleased));  // ... and once by the reader
  }
  EXPECT_EQ(a.node->grants_live() + b.node->grants_live(), 0);
}

TEST_P(Transfer, RefusesWhatIsNotGranted) {
  Cluster cluster({.transport = transport()});
  auto& p = cluster.add();
  auto& d = cluster.add({&p});

  auto other_prompt = whole(d, p.offer_random(prng, 1));
  other_prompt.prompt_digest[5] ^= 1;
  expect_fails(d, other_prompt, Code::kFailedPrecondition, "another prompt");
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased)) << "a fetch ends its grant, whatever came of it";

  auto old_life = whole(d, p.offer_random(prng, 2));
  old_life.grant.incarnation ^= 1;
  expect_fails(d, old_life, Code::kFailedPrecondition, "earlier life");
  p.node->release(2);
  EXPECT_TRUE(p.next_of(2, Kind::kGrantReleased));

  auto unknown = whole(d, p.offer_random(prng, 3));
  unknown.grant.token = std::string(32, 'a');
  expect_fails(d, unknown, Code::kNotFound, "no such grant");
  p.node->release(3);
  EXPECT_TRUE(p.next_of(3, Kind::kGrantReleased));

  auto offered = p.offer_random(prng, 4);
  auto beyond = whole(d, offered);
  beyond.n_tokens += d.layout.block_tokens;
  beyond.blocks.push_back(0);
  expect_fails(d, beyond, Code::kOutOfRange, "of a grant for");
  EXPECT_TRUE(p.next_of(4, Kind::kGrantReleased));

  offered = p.offer_random(prng, 5);
  auto fetch = whole(d, offered);
  d.node->fetch(fetch);
  EXPECT_FALSE(d.next_of(5, Kind::kFetched)->error);
  expect_fails(d, fetch, Code::kNotFound, "already read");  // one-shot
  EXPECT_TRUE(p.next_of(5, Kind::kGrantReleased));

  for (auto bad : {std::string("short"), std::string(32, 'x')}) {
    auto f = fetch;
    f.grant.token = bad;
    expect_fails(d, f, Code::kInvalidArgument, "32 hex digits");
  }
  for (int32_t b : {-1, 256, INT32_MAX}) {
    auto f = fetch;
    f.blocks.back() = b;
    expect_fails(d, f, Code::kInvalidArgument, "not in the pool");
  }
  for (int32_t n : {0, -5, INT32_MAX}) {
    auto f = fetch;
    f.n_tokens = n;
    expect_fails(d, f, Code::kInvalidArgument, "");
  }
  EXPECT_EQ(p.node->grants_live(), 0);
  expect_works(p, d, 6);
}

TEST_P(Transfer, HandshakeRefusesWithReason) {
  Cluster cluster({.transport = transport()});
  auto& p = cluster.add();
  struct {
    std::string what;
    NodeSetup setup;
  } cases[] = {{"fingerprint", {.fingerprint = "model-b"}},
               {"authentication", {.secret = "guess"}},
               {"authentication", {.secret = ""}},
               {"layout", {.layout = {.layers = 4, .kv_heads = 2, .head_dim = 32, .block_tokens = 16}}},
               {"layout", {.layout = {.layers = 3, .kv_heads = 2, .head_dim = 32, .dtype = kv::KvDtype::kF16}}},
               {"layout", {.layout = {.layers = 3, .kv_heads = 2, .head_dim = 32, .dtype = kv::KvDtype::kE4m3}}}};
  for (auto& c : cases) {
    c.setup.transport = transport();
    auto& d = cluster.add(c.setup, {p.address()});
    EXPECT_TRUE(d.wait_peer(p.address(), "refused"));
    EXPECT_THAT(d.peer(p.address()).detail, HasSubstr(c.what));
    auto offered = p.offer_random(prng, 1);
    auto fetch = d.fetch_for(prng, offered, 0, d.layout.block_tokens);
    expect_fails(d, fetch, Code::kUnavailable, c.what);
    p.node->release(1);
    EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  }
  p.node->set_peers({p.address()});  // a peer list may name the engine itself
  EXPECT_TRUE(p.wait_peer(p.address(), "refused"));
  EXPECT_THAT(p.peer(p.address()).detail, HasSubstr("self"));
}

TEST_P(Transfer, UnknownPeerFailsAtOnceAndIsConnectedMeanwhile) {
  Cluster cluster({.transport = transport()});
  auto& p = cluster.add();
  auto& d = cluster.add();
  expect_fails(d, whole(d, p.offer_random(prng, 1)), Code::kUnavailable, "not connected");
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased)) << "declined as soon as the peer is connected";
  ASSERT_TRUE(d.wait_peer(p.address(), "connected"));
  expect_works(p, d, 2);
}

TEST_P(Transfer, DeclineEndsAGrantAndIsIdempotent) {
  Cluster cluster({.transport = transport()});
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  auto offered = p.offer_random(prng, 1);
  d.node->decline(offered.grant);
  d.node->decline(offered.grant);
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  expect_works(p, d, 2);
  EXPECT_EQ(p.kept(Kind::kGrantReleased), 0u);
  EXPECT_EQ(p.node->grants_live(), 0);
}

TEST_P(Transfer, LeaseEndsUnlessHeldAndDrainStopsRenewals) {
  Cluster cluster({.transport = transport(), .lease_ms = 3000});  // a thread of a full machine may be kept waiting for a while
  auto& p = cluster.add();
  auto& d = cluster.add(NodeSetup{.transport = transport()}, {p.address()});  // whose own lease is far longer
  ASSERT_TRUE(d.wait_peer(p.address(), "connected"));
  auto held = p.offer_random(prng, 1);
  d.node->hold(held.grant);
  p.offer_random(prng, 2);  // a lease that nobody holds, and later than the other, is the clock of this test
  EXPECT_TRUE(p.next_of(2, Kind::kGrantExpired));
  EXPECT_EQ(p.node->grants_live(), 1);
  auto fetch = whole(d, held);
  d.node->fetch(fetch);
  auto event = d.next_of(1, Kind::kFetched);
  ASSERT_TRUE(event && !event->error) << event->error->message;
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  EXPECT_THAT(p.metrics.text(), HasSubstr("kv_lease_expired_total 1"));

  auto kept = p.offer_random(prng, 5);
  d.node->hold(kept.grant);
  p.node->drain();
  EXPECT_TRUE(p.next_of(5, Kind::kGrantExpired));
  expect_fails(d, whole(d, kept), Code::kNotFound, "expired");
  EXPECT_EQ(p.node->grants_live(), 0);
}

// A proxy between the two holds the traffic at a byte position, so that "in the middle" is a place and not a race.
class Interrupted : public Transfer {
 protected:
  void open(int lease_ms = 30'000, int fetch_timeout_ms = 30'000) {
    cluster.emplace(NodeSetup{.transport = transport(), .lease_ms = lease_ms, .fetch_timeout_ms = fetch_timeout_ms});
    p = &cluster->add();
    proxy.emplace(p->node->port(), seed);
    d = &cluster->add(NodeSetup{.transport = transport(), .lease_ms = lease_ms, .fetch_timeout_ms = fetch_timeout_ms},
                      {proxy->address()});
    ASSERT_TRUE(d->wait_peer(proxy->address(), "connected"));
  }
  // Begins a fetch of 20 blocks that stalls after some bytes from the producer. An echo may pass first and stall the FETCH
  // itself: then once more.
  void stall_one(uint64_t request) {
    while (!stalls_in_the_middle(request)) {
      proxy->clear();
      ASSERT_TRUE(d->next_of(request, Kind::kFetched));
      ASSERT_TRUE(p->next_of(request, Kind::kGrantReleased));
    }
  }
  bool stalls_in_the_middle(uint64_t request) {
    do {
      offered = p->offer_random(prng, request, 24);
      if (offered.blocks.size() >= 12) break;
      p->node->release(request);
      EXPECT_TRUE(p->next_of(request, Kind::kGrantReleased));
    } while (true);
    fetch = whole(*d, offered);
    fetch.grant.port = proxy->port();
    // tcp: somewhere in the blocks; ucx: in OPENED, which the blocks do not wait for; else: OPENED and two small chunk frames
    auto bytes = transport() == "tcp" ? offered.blocks.size() * d->layout.block_bytes() : transport() == "ucx" ? 30 : 100;
    proxy->arm({.kind = Fault::Kind::kStall, .to_consumer = true, .after = prng.below(bytes)});
    d->node->fetch(fetch);
    EXPECT_TRUE(proxy->wait_triggered());
    return p->metrics.text().find("kv_grants{state=\"reading\"} 1") != std::string::npos;
  }
  void fill_destination(int value) {
    for (auto b : fetch.blocks) std::memset(d->block(b).data(), value, d->layout.block_bytes());
  }
  bool destination_is(int value) {
    for (auto b : fetch.blocks) {
      for (auto byte : d->block(b)) {
        if (byte != static_cast<std::byte>(value)) return false;
      }
    }
    return true;
  }
  std::optional<Cluster> cluster;
  std::optional<FaultProxy> proxy;
  TestNode* p = nullptr;
  TestNode* d = nullptr;
  testing::Offered offered;
  Fetch fetch;
};
INSTANTIATE_TEST_SUITE_P(Paths, Interrupted, ::testing::ValuesIn(testing::all_paths()), [](const auto& i) { return i.param; });

TEST_P(Interrupted, CancelInTheMiddleWritesNoByteAfterItsEvent) {
  open();
  for (uint64_t round = 1; round <= 20; ++round) {
    stall_one(round);
    d->node->cancel(round);
    auto event = d->next_of(round, Kind::kFetched);
    ASSERT_TRUE(event && event->error);
    EXPECT_EQ(event->error->code, Code::kCancelled);
    EXPECT_TRUE(d->holds(fetch, offered, *p, event->valid_tokens - event->valid_tokens % d->layout.block_tokens));
    fill_destination(0x5A);
    proxy->clear();
    EXPECT_TRUE(p->next_of(round, Kind::kGrantReleased));
    auto keep = fetch;
    auto probe = p->offer_random(prng, 1000 + round);  // what was under way has passed when this one is through
    auto f = whole(*d, probe);
    f.blocks.clear();
    for (int32_t b = 0; f.blocks.size() < probe.blocks.size(); ++b) {
      if (std::find(keep.blocks.begin(), keep.blocks.end(), b) == keep.blocks.end()) f.blocks.push_back(b);
    }
    fill_destination(0x5A);
    f.grant.port = proxy->port();
    d->node->fetch(f);
    auto through = d->next_of(1000 + round, Kind::kFetched);
    ASSERT_TRUE(through && !through->error) << through->error->message;
    EXPECT_TRUE(destination_is(0x5A));
    EXPECT_TRUE(p->next_of(1000 + round, Kind::kGrantReleased));
  }
  EXPECT_EQ(p->node->grants_live(), 0);
}

TEST_P(Interrupted, CancelBeforeOpenedAfterTheEndAndOfNothing) {
  open();
  for (uint64_t round = 1; round <= 20; ++round) {
    auto o = p->offer_random(prng, round);
    auto f = whole(*d, o);
    d->node->cancel(round);  // nothing yet
    d->node->fetch(f);
    d->node->cancel(round);
    d->node->cancel(round);
    auto event = d->next_of(round, Kind::kFetched);
    ASSERT_TRUE(event);
    EXPECT_TRUE(!event->error || event->error->code == Code::kCancelled);
    d->node->cancel(round);
    EXPECT_TRUE(p->next_of(round, Kind::kGrantReleased));
  }
  EXPECT_EQ(d->kept(Kind::kFetched), 0u);
  EXPECT_EQ(p->node->grants_live(), 0);
}

TEST_P(Interrupted, ProducerDiesInTheMiddle) {
  open();
  stall_one(1);
  cluster->kill(*p);
  auto event = d->next_of(1, Kind::kFetched);
  ASSERT_TRUE(event && event->error);
  EXPECT_EQ(event->error->code, Code::kUnavailable);
  proxy->clear();
  EXPECT_TRUE(d->wait_peer(proxy->address(), "connecting"));
}

TEST_P(Interrupted, ConsumerDiesInTheMiddle) {
  open();
  stall_one(1);
  cluster->kill(*d);
  EXPECT_TRUE(p->next_of(1, Kind::kGrantReleased)) << "its connection is gone, so is its reading";
  EXPECT_EQ(p->node->grants_live(), 0);
}

TEST_P(Interrupted, ReleaseInTheMiddleRefusesTheReader) {
  open(600);
  stall_one(1);
  p->node->release(1);
  EXPECT_TRUE(p->next_of(1, Kind::kGrantReleased)) << "within the reader's grace, though it hears nothing";
  proxy->clear();
  auto event = d->next_of(1, Kind::kFetched);
  ASSERT_TRUE(event);
  if (event->error) {
    EXPECT_TRUE(event->error->code == Code::kAborted || event->error->code == Code::kUnavailable) << event->error->message;
  } else {  // all of it, or for shm all checksums, had left the producer before
    EXPECT_TRUE(d->holds(fetch, offered, *p, event->valid_tokens));
  }
  EXPECT_EQ(p->node->grants_live(), 0);
}

TEST_P(Interrupted, LeaseEndsInTheMiddleWhenThePeerIsNotHeard) {
  open(500, 700);
  stall_one(1);
  EXPECT_TRUE(p->next_of(1, Kind::kGrantExpired));
  auto event = d->next_of(1, Kind::kFetched);
  ASSERT_TRUE(event && event->error);
  EXPECT_TRUE(d->holds(fetch, offered, *p, event->valid_tokens - event->valid_tokens % d->layout.block_tokens));
  proxy->clear();
  EXPECT_EQ(p->node->grants_live(), 0);
}

TEST_P(Interrupted, AGrantBelongsToItsFirstReader) {
  open();
  stall_one(1);
  auto& thief = cluster->add({p});
  auto stolen = fetch;
  stolen.grant.port = p->node->port();
  expect_fails(thief, stolen, Code::kPermissionDenied, "another engine");
  thief.node->decline(stolen.grant);
  proxy->clear();
  auto event = d->next_of(1, Kind::kFetched);
  ASSERT_TRUE(event);
  EXPECT_FALSE(event->error) << event->error->message;
  EXPECT_TRUE(d->holds(fetch, offered, *p, event->valid_tokens));
}

TEST_P(Interrupted, ReconnectsToARestartedProducerAndRefusesItsOldGrants) {
  Cluster c({.transport = transport()});
  NodeSetup setup{.transport = transport()};
  auto* old = &c.add(setup, {});
  auto address = old->address();
  auto& consumer = c.add({old});
  auto before = old->offer_random(prng, 1);
  setup.port = old->node->port();
  c.kill(*old);
  auto& restarted = c.add(setup, {});
  before.grant.engine_id = "engine-1";
  while (true) {  // until the new life is connected, fetches fail at once: for want of a peer, or as not the old life's
    const bool reconnected = consumer.peer(address).engine_id == "engine-1";
    auto f = whole(consumer, before);
    consumer.node->fetch(f);
    auto event = consumer.next_of(1, Kind::kFetched);
    ASSERT_TRUE(event && event->error);
    if (reconnected && event->error->code == Code::kFailedPrecondition) break;
    if (reconnected) ASSERT_EQ(event->error->code, Code::kUnavailable);
    ASSERT_TRUE(consumer.wait_peer(address, "connected"));
  }
  expect_works(restarted, consumer, 2);
}

TEST(Options, AreChecked) {
  Metrics metrics;
  auto pool = *PoolMemory::create(1 << 20, "p");
  kv::KvLayout layout{.layers = 1, .kv_heads = 1, .head_dim = 32};
  auto fails = [&](NodeOptions o) { return !TransferNode::start(o, layout, pool, metrics); };
  EXPECT_TRUE(fails({}));
  EXPECT_TRUE(fails({.engine_id = "e", .transport = "rdma"}));
  EXPECT_TRUE(fails({.engine_id = "e", .lease_ms = 1}));
  EXPECT_TRUE(fails({.engine_id = "e", .chunk_bytes = 1}));
  EXPECT_TRUE(fails({.engine_id = std::string(5000, 'e')}));
  EXPECT_TRUE(fails({.engine_id = "e", .host = "256.1.1.1"}));
  EXPECT_FALSE(PoolMemory::create(0, "p"));
}

}  // namespace
}  // namespace baton::transfer
