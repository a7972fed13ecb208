// Push over both transports: blocks arrive before the producer has everything, whoever comes first; and every way it can end
// early. Nothing asserts a time: a wait that would never end is the failure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "transfer/limits.h"
#include "transfer/testing/cluster.h"

namespace baton::transfer {
namespace {

using testing::Cluster;
using ::testing::HasSubstr;
using testing::Offered;
using testing::TestNode;
using Kind = Event::Kind;

class Push : public ::testing::TestWithParam<const char*> {
 protected:
  Push() { static_cast<void>(cluster.add({&p})); }
  TestNode& d() { return *cluster.nodes[1]; }
  // What the sidecar does: the reader knows the token before the producer heard of it.
  struct Planned {
    Offered offered;
    Fetch fetch;
  };
  Planned plan(uint64_t request, int32_t blocks, TestNode& reader) {
    Planned out;
    out.offered.request = request;
    for (int32_t i = 0; i < blocks; ++i) out.offered.blocks.push_back(static_cast<int32_t>(prng.below(256)));
    out.offered.n_tokens = blocks * 16 - 5;
    for (auto& b : out.offered.digest) b = static_cast<uint8_t>(prng.next());
    out.offered.grant = {.token = random_hex(32), .engine_id = {}, .host = "127.0.0.1", .port = p.node->port()};
    out.fetch = reader.fetch_for(prng, out.offered, 0, out.offered.n_tokens);
    out.fetch.push = true;
    return out;
  }
  Planned plan(uint64_t request, int32_t blocks) { return plan(request, blocks, d()); }
  Grant promise(const Planned& x) {
    auto grant = p.node->promise(x.offered.grant.token, {x.offered.request, {}, x.offered.n_tokens, x.offered.digest});
    EXPECT_TRUE(grant);
    return grant.value_or(Grant{});
  }
  // Waits until the consumer has verified that many blocks of all its fetches together.
  void until_received(TestNode& reader, int64_t blocks) {
    auto want = static_cast<double>(blocks) * static_cast<double>(reader.layout.block_bytes());
    auto& received = reader.metrics.counter("kv_transfer_bytes", "Bytes of KV blocks received and verified, chunk by chunk.", {});
    while (received.value() != want) std::this_thread::yield();
  }
  // What was asked before has reached the producer: a later question on the same connection is answered. The answer, that there is
  // no such grant, changes no block and orders what the node's thread has written before our look at it.
  void until_asked() {
    auto gone = p.offer_random(prng, 1000, 1);
    p.node->release(1000);
    ASSERT_TRUE(p.next_of(1000, Kind::kGrantReleased));
    d().node->fetch({.request = 1000, .grant = gone.grant, .prompt_digest = gone.digest, .n_tokens = gone.n_tokens, .blocks = {0}});
    auto answer = d().next_of(1000, Kind::kFetched);
    ASSERT_TRUE(answer && answer->error);
  }
  Event fetched(uint64_t request) {
    auto event = d().next_of(request, Kind::kFetched);
    EXPECT_TRUE(event);
    return event.value_or(Event{});
  }
  void expect_failed(uint64_t request, Code code, const std::string& text, int32_t valid = 0) {
    auto event = fetched(request);
    ASSERT_TRUE(event.error);
    EXPECT_EQ(event.error->code, code) << event.error->message;
    EXPECT_THAT(event.error->message, HasSubstr(text));
    EXPECT_EQ(event.valid_tokens, valid);
  }
  uint64_t seed = secure_random_u64();
  ::testing::ScopedTrace trace{__FILE__, __LINE__, cat("seed ", seed)};
  Prng prng{seed};
  Cluster cluster{{.transport = GetParam()}};
  TestNode& p = cluster.add();
};
INSTANTIATE_TEST_SUITE_P(Paths, Push, ::testing::Values("shm", "tcp"), [](const auto& p) { return std::string(p.param); });

TEST_P(Push, BlocksArriveWhileTheProducerStillComputes) {
  auto x = plan(1, 10);
  d().node->fetch(x.fetch);
  promise(x);
  p.announce(x.offered, 70);  // four full blocks and a part
  until_received(d(), 4);     // the producer has not completed
  EXPECT_EQ(d().kept(Kind::kCompletion) + d().kept(Kind::kFetched), 0u);
  until_asked();
  EXPECT_TRUE(d().holds(x.fetch, x.offered, p, 64));
  p.announce(x.offered, 128);
  until_received(d(), 8);
  EXPECT_EQ(d().kept(Kind::kCompletion) + d().kept(Kind::kFetched), 0u);
  p.node->complete(1, {.first_token = 42, .queue_us = 5, .prefill_us = 6, .cached_tokens = 32});
  auto completion = d().next_of(1, Kind::kCompletion);
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->completion.first_token, 42);
  EXPECT_EQ(completion->completion.queue_us, 5);
  EXPECT_EQ(completion->completion.prefill_us, 6);
  EXPECT_EQ(completion->completion.cached_tokens, 32);
  EXPECT_EQ(completion->transport, GetParam());
  auto event = fetched(1);
  EXPECT_FALSE(event.error);
  EXPECT_EQ(event.valid_tokens, x.fetch.n_tokens);
  EXPECT_TRUE(d().holds(x.fetch, x.offered, p, event.valid_tokens));
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  EXPECT_EQ(p.node->grants_live(), 0);
  EXPECT_THAT(p.metrics.text(), HasSubstr("kv_retained_bytes 0"));
}

TEST_P(Push, ItMakesNoDifferenceWhoComesFirst) {
  for (uint64_t i = 1; i <= 30; ++i) {
    auto x = plan(i, 1 + static_cast<int32_t>(prng.below(20)));
    int fetch_at = static_cast<int>(prng.below(5));
    auto at = [&](int step) {
      if (step == fetch_at) d().node->fetch(x.fetch);
    };
    at(0);
    promise(x);
    at(1);
    p.announce(x.offered, static_cast<int32_t>(prng.below(static_cast<uint64_t>(x.offered.n_tokens))));
    at(2);
    p.announce(x.offered, x.offered.n_tokens);
    at(3);
    p.node->complete(i, {.first_token = static_cast<int32_t>(i)});
    at(4);
    auto completion = d().next_of(i, Kind::kCompletion);
    ASSERT_TRUE(completion);
    EXPECT_EQ(completion->completion.first_token, static_cast<int32_t>(i));
    auto event = fetched(i);
    ASSERT_FALSE(event.error) << event.error->message;
    EXPECT_TRUE(d().holds(x.fetch, x.offered, p, x.fetch.n_tokens));
    EXPECT_TRUE(p.next_of(i, Kind::kGrantReleased));
  }
}

TEST_P(Push, AReaderThatHasTheBeginningTakesTheRest) {
  auto x = plan(1, 10);
  x.fetch = d().fetch_for(prng, x.offered, 48, x.offered.n_tokens - 48);
  x.fetch.push = true;
  d().node->fetch(x.fetch);
  promise(x);
  p.announce(x.offered, 80);
  until_received(d(), 2);
  p.node->complete(1, {});
  auto completion = d().next_of(1, Kind::kCompletion);
  ASSERT_TRUE(completion);
  EXPECT_EQ(completion->completion.first_token, std::nullopt);
  EXPECT_FALSE(fetched(1).error);
  EXPECT_TRUE(d().holds(x.fetch, x.offered, p, x.fetch.n_tokens));
}

TEST_P(Push, SixtyFourAtOnceInterleaved) {
  std::vector<Planned> all;
  std::vector<int32_t> ready(64, 0);
  int32_t next_block = 0;
  for (uint64_t i = 0; i < 64; ++i) {
    auto x = plan(i, 1 + static_cast<int32_t>(prng.below(4)));
    for (auto& b : x.offered.blocks) b %= 60;  // sources
    for (auto& b : x.fetch.blocks) b = 0;
    x.fetch = d().fetch_into(x.offered, 0, x.offered.n_tokens, [&] {
      std::vector<int32_t> to;
      for (size_t k = 0; k < x.offered.blocks.size(); ++k) to.push_back(next_block++ % 256);
      return to;
    }());
    x.fetch.push = true;
    all.push_back(std::move(x));
    if (next_block > 250) break;
  }
  for (auto& x : all) {
    if (prng.chance(0.5)) {
      d().node->fetch(x.fetch);
      promise(x);
    } else {
      promise(x);
      d().node->fetch(x.fetch);
    }
  }
  for (size_t open = all.size(); open > 0;) {
    auto i = prng.below(all.size());
    auto& x = all[i];
    if (ready[i] > x.offered.n_tokens) continue;
    if (ready[i] == 0) p.announce(x.offered, 0);
    ready[i] += 16;
    if (ready[i] < x.offered.n_tokens) {
      p.announce(x.offered, ready[i]);
      continue;
    }
    ready[i] = x.offered.n_tokens + 1;
    p.node->complete(x.offered.request, {});
    --open;
  }
  for (auto& x : all) {
    auto event = fetched(x.offered.request);
    ASSERT_FALSE(event.error) << event.error->message;
    EXPECT_TRUE(d().holds(x.fetch, x.offered, p, x.fetch.n_tokens));
  }
  for (auto& x : all) EXPECT_TRUE(p.next_of(x.offered.request, Kind::kGrantReleased));
}

TEST_P(Push, WhatCameBeforeAnAbortIsKept) {
  auto x = plan(1, 10);
  d().node->fetch(x.fetch);
  promise(x);
  p.announce(x.offered, 64);
  until_received(d(), 4);
  p.node->release(1);
  expect_failed(1, Code::kAborted, "took the grant back", 64);
  EXPECT_TRUE(d().holds(x.fetch, x.offered, p, 64));
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
}

TEST_P(Push, AnAbortBeforeAnythingIsReadyIsToldAtOnce) {
  auto x = plan(1, 3);
  d().node->fetch(x.fetch);
  until_asked();
  promise(x);
  p.node->release(1);
  expect_failed(1, Code::kAborted, "");
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  auto y = plan(2, 3);  // the prefill request was refused, before and after its reader came
  d().node->fetch(y.fetch);
  until_asked();
  p.node->refuse(y.offered.grant.token, {Code::kResourceExhausted, "prefill worker is full"});
  expect_failed(2, Code::kResourceExhausted, "prefill worker is full");
  auto z = plan(3, 3);
  p.node->refuse(z.offered.grant.token, {Code::kResourceExhausted, "prefill worker is full"});
  d().node->fetch(z.fetch);
  expect_failed(3, Code::kNotFound, "no such grant");
}

TEST_P(Push, TheProducerDies) {
  auto x = plan(1, 10), y = plan(2, 4);  // both now: later, blocks of one might be written under the other
  d().node->fetch(x.fetch);
  promise(x);
  p.announce(x.offered, 48);
  until_received(d(), 3);
  d().node->fetch(y.fetch);  // waits for its grant
  p.node.reset();
  auto event = fetched(1);
  ASSERT_TRUE(event.error);
  EXPECT_EQ(event.valid_tokens, 48);
  ASSERT_TRUE(fetched(2).error);
}

TEST_P(Push, AReaderThatLeavesFreesTheBlocksAndTheProducerGoesOn) {
  auto x = plan(1, 10);
  d().node->fetch(x.fetch);
  promise(x);
  p.announce(x.offered, 64);
  until_received(d(), 4);
  d().node->cancel(1);
  expect_failed(1, Code::kCancelled, "", 64);
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased)) << "the prefill still runs, but nobody will read";
  p.announce(x.offered, 128);  // ignored
  p.node->complete(1, {});
  EXPECT_EQ(p.node->grants_live(), 0);
  auto y = plan(2, 4);  // the whole consumer leaves
  d().node->fetch(y.fetch);
  promise(y);
  p.announce(y.offered, 16);
  until_received(d(), 5);
  d().node.reset();
  EXPECT_TRUE(p.next_of(2, Kind::kGrantReleased));
}

TEST_P(Push, AReaderThatLeavesBeforeTheGrantExistsLeavesNothingBehind) {
  auto x = plan(1, 4);
  d().node->fetch(x.fetch);
  d().node->cancel(1);
  expect_failed(1, Code::kCancelled, "");
  auto y = plan(2, 4);
  d().node->decline(y.offered.grant);
  auto z = plan(3, 4);  // comes through after the two above
  d().node->fetch(z.fetch);
  promise(z);
  p.announce(z.offered, 1);
  p.node->complete(3, {});
  ASSERT_TRUE(d().next_of(3, Kind::kCompletion));
  promise(x);
  promise(y);
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  EXPECT_TRUE(p.next_of(2, Kind::kGrantReleased));
}

TEST_P(Push, ATokenIsReadOnce) {
  auto x = plan(1, 4);
  d().node->fetch(x.fetch);
  promise(x);
  p.announce(x.offered, 16);
  until_received(d(), 1);
  auto again = x.fetch;
  again.request = 2;
  d().node->fetch(again);
  expect_failed(2, Code::kAlreadyExists, "");
  p.node->complete(1, {});
  EXPECT_FALSE(fetched(1).error);
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  again.request = 3;
  d().node->fetch(again);
  expect_failed(3, Code::kNotFound, "no such grant");
  auto replay = plan(4, 4);
  replay.offered.grant.token = x.offered.grant.token;
  promise(replay);
  EXPECT_TRUE(p.next_of(4, Kind::kGrantReleased)) << "a used token promises nothing";
}

TEST_P(Push, OneReaderOfTwoIsServed) {
  auto& other = cluster.add({&p});
  auto x = plan(1, 4);
  d().node->fetch(x.fetch);
  promise(x);
  p.announce(x.offered, 16);
  until_received(d(), 1);
  auto stolen = other.fetch_for(prng, x.offered, 0, x.offered.n_tokens);
  stolen.push = true;
  other.node->fetch(stolen);
  auto refused = other.next_of(1, Kind::kFetched);
  ASSERT_TRUE(refused && refused->error);
  EXPECT_EQ(refused->error->code, Code::kPermissionDenied);
  p.node->complete(1, {});
  EXPECT_FALSE(fetched(1).error);
}

TEST_P(Push, AnotherPromptsGrantIsRefused) {
  auto x = plan(1, 4);
  x.fetch.prompt_digest[0] ^= 1;
  d().node->fetch(x.fetch);
  promise(x);
  expect_failed(1, Code::kFailedPrecondition, "another prompt");
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased)) << "declined by who was to read it";
}

TEST_P(Push, APeerThatIsStillBeingConnectedIsWaitedFor) {
  Cluster late({.transport = GetParam()});
  auto& reader = late.add();
  auto x = plan(1, 4, reader);
  reader.node->fetch(x.fetch);  // nobody told it of p before
  promise(x);
  p.announce(x.offered, 32);
  until_received(reader, 2);
  p.node->complete(1, {.first_token = 3});
  EXPECT_TRUE(reader.next_of(1, Kind::kCompletion));
  auto event = reader.next_of(1, Kind::kFetched);
  ASSERT_TRUE(event);
  EXPECT_FALSE(event->error);
  EXPECT_TRUE(reader.holds(x.fetch, x.offered, p, x.fetch.n_tokens));
}

TEST_P(Push, NobodyThereFailsAtOnce) {
  auto x = plan(1, 4);
  x.fetch.grant.port = 1;  // nothing listens
  d().node->fetch(x.fetch);
  expect_failed(1, Code::kUnavailable, "");
}

TEST_P(Push, MoreReadersThanMayWaitAreRefused) {
  std::vector<Planned> all;
  for (uint64_t i = 0; i <= kAwaitsPerSessionMax; ++i) {
    auto x = plan(i, 1);
    x.fetch.blocks = {static_cast<int32_t>(i % 256)};
    d().node->fetch(x.fetch);
    all.push_back(std::move(x));
  }
  expect_failed(kAwaitsPerSessionMax, Code::kResourceExhausted, "too many readers wait");
  for (uint64_t i = 0; i < kAwaitsPerSessionMax; ++i) d().node->cancel(i);
  for (uint64_t i = 0; i < kAwaitsPerSessionMax; ++i) expect_failed(i, Code::kCancelled, "");
}

// Waiting for the model is no lack of progress; waiting for a producer that says nothing is.
TEST_P(Push, AComputingProducerIsWaitedForAndASilentOneIsNot) {
  Cluster quick({.transport = GetParam(), .lease_ms = 600, .fetch_timeout_ms = 1500});
  auto& producer = quick.add();
  auto& reader = quick.add({&producer});
  auto x = plan(1, 4, reader);
  x.fetch.grant.port = producer.node->port();
  ASSERT_TRUE(producer.node->promise(x.offered.grant.token, {1, {}, x.offered.n_tokens, x.offered.digest}));
  reader.node->fetch(x.fetch);
  // Several times the fetch timeout and the lease go by.
  EXPECT_FALSE(reader.next_of(1, Kind::kFetched, 3500));
  producer.node->progress(1, x.offered.blocks, 0);
  producer.node->complete(1, {});
  auto event = reader.next_of(1, Kind::kFetched);
  ASSERT_TRUE(event);
  EXPECT_FALSE(event->error) << event->error->message;
}

}  // namespace
}  // namespace baton::transfer
