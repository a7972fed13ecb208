// Peers that lie: raw sockets that speak the protocol wrongly, with correct checksums. The liar is disconnected or refused; what
// it named that is not its own is never touched, and other peers do not notice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transfer/auth.h"
#include "transfer/checksum.h"
#include "transfer/frame.h"
#include "transfer/socket.h"
#include "transfer/testing/cluster.h"
#include "transfer/testing/raw.h"
#include "transfer/ucx/fabric.h"

namespace baton::transfer {
namespace {

using testing::Cluster;
using testing::NodeSetup;
using testing::Raw;
using testing::TestNode;
using Kind = Event::Kind;

class Liar : public ::testing::Test {
 protected:
  // A consumer with a proper handshake.
  Raw join(TestNode& p, bool shm = false, std::string engine = "liar") {
    auto raw = Raw::dial(p.node->port());
    auto hello = hello_of(engine, shm);
    raw.send(encode(hello));
    auto accept = raw.expect<Accept>();
    raw.send(encode(Auth{handshake_proof("s3cret", Prover::kConsumer, hello, accept)}));
    ready = raw.expect<Ready>();
    return raw;
  }
  Hello hello_of(const std::string& engine, bool shm) {
    Hello hello;
    hello.engine_id = engine;
    hello.incarnation = 1;
    hello.fingerprint = "model-a";
    hello.blocks.shard = kv::whole_shard(NodeSetup{}.layout);
    hello.boot_id = shm ? boot_id() : "";
    hello.wants_shm = shm;
    hello.ucx = ucx::version();
    return hello;
  }
  FetchMsg fetch_of(const testing::Offered& o, TestNode& p, uint64_t op = 1) {
    return {.op = op,
            .token = *token_from(o.grant.token),
            .incarnation = p.node->incarnation(),
            .digest = o.digest,
            .first_token = 0,
            .n_tokens = o.n_tokens,
            .path = Path::kTcp,
            .chunk_bytes = 65536,
            .credit = 1 << 20,
            .layers = p.layout.layers,
            .heads = p.layout.kv_heads};
  }
  // Another pair still works.
  void expect_unharmed(TestNode& p, TestNode& d) {
    static uint64_t request = 1'000'000;
    auto offered = p.offer_random(prng, ++request);
    auto fetch = d.fetch_for(prng, offered, 0, offered.n_tokens);
    d.node->fetch(fetch);
    auto event = d.next_of(request, Kind::kFetched);
    ASSERT_TRUE(event && !event->error);
    EXPECT_TRUE(d.holds(fetch, offered, p, event->valid_tokens));
    EXPECT_TRUE(p.next_of(request, Kind::kGrantReleased));
  }
  uint64_t seed = secure_random_u64();
  ::testing::ScopedTrace trace{__FILE__, __LINE__, cat("seed ", seed)};
  Prng prng{seed};
  Ready ready;
};

TEST_F(Liar, GarbageAndFramesOutOfTurnCloseTheConnection) {
  Cluster cluster;
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  auto o = p.offer_random(prng, 1);
  std::string noise(5000, '\0');
  for (auto& c : noise) c = static_cast<char>(prng.next());
  auto hello = hello_of("liar", false);
  auto old = hello;
  old.version_min = old.version_max = 0;
  auto newer = hello;
  newer.version_min = newer.version_max = 99;
  auto magic = hello;
  magic.magic = 1;
  for (const auto& bytes :
       {noise, std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), std::string(100, '\0'),
        encode_body(FrameHeader{~0u, static_cast<uint16_t>(FrameType::kHello), 0, 0}), encode(fetch_of(o, p)),
        encode(Heartbeat{}), encode(Auth{}), frame(FrameType::kHello, "short"), encode(hello) + encode(hello),
        encode(hello) + encode(Auth{}), encode(hello) + encode(fetch_of(o, p)), encode(old), encode(newer), encode(magic)}) {
    auto raw = Raw::dial(p.node->port());
    raw.send(bytes);
    EXPECT_TRUE(raw.closed());
  }
  EXPECT_EQ(p.node->grants_live(), 1);
  expect_unharmed(p, d);
}

TEST_F(Liar, ConsumerCannotReadWhatItWasNotGranted) {
  Cluster cluster({.transport = "tcp"});
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  auto raw = join(p);
  auto o = p.offer_random(prng, 1);
  auto refused = [&](FetchMsg m) {
    static uint64_t op = 10;
    m.op = ++op;
    raw.send(encode(m));
    auto failed = raw.expect<Failed>();
    EXPECT_EQ(failed.op, op);
    return static_cast<Code>(failed.code);
  };
  auto m = fetch_of(o, p);
  m.token = {};
  EXPECT_EQ(refused(m), Code::kNotFound);
  m = fetch_of(o, p);
  m.incarnation ^= 1;
  EXPECT_EQ(refused(m), Code::kFailedPrecondition);
  m = fetch_of(o, p);
  m.digest[0] ^= 1;
  EXPECT_EQ(refused(m), Code::kFailedPrecondition);
  m = fetch_of(o, p);
  m.path = Path::kShm;
  EXPECT_EQ(refused(m), Code::kInvalidArgument) << "not on one host, it said";
  m.path = static_cast<Path>(77);
  EXPECT_EQ(refused(m), Code::kInvalidArgument);
  struct {
    int32_t first, n;
  } ranges[] = {{-16, 16}, {0, o.n_tokens + 1},    {0, -1},         {0, 0},
                {1, 1},    {INT32_MIN, INT32_MAX}, {16, INT32_MAX}, {INT32_MAX - 15, INT32_MAX}};
  for (auto [first, n] : ranges) {
    m = fetch_of(o, p);
    m.first_token = first;
    m.n_tokens = n;
    EXPECT_EQ(refused(m), Code::kOutOfRange) << first << " + " << n;
  }
  for (auto [layer, layers, head, heads] :
       {std::array{0, 4, 0, 2}, {-1, 2, 0, 2}, {3, 1, 0, 2}, {0, 0, 0, 2}, {0, 3, 1, 2}, {0, 3, 0, -1}, {1, INT32_MAX, 0, 2}}) {
    m = fetch_of(o, p);
    m.layer_first = layer, m.layers = layers, m.head_first = head, m.heads = heads;
    EXPECT_EQ(refused(m), Code::kOutOfRange) << "layers " << layer << " + " << layers << ", heads " << head << " + " << heads;
  }
  for (uint16_t readers : {uint16_t{0}, uint16_t{kReadersMax + 1}}) {
    m = fetch_of(o, p);
    m.readers = readers;
    EXPECT_EQ(refused(m), Code::kInvalidArgument);
  }
  EXPECT_EQ(p.node->grants_live(), 1);
  // It may have the grant's own blocks, with silly credit and chunk numbers, and closing twice or something else frees nothing
  // else.
  m = fetch_of(o, p, 100);
  m.credit = ~0ull;
  m.chunk_bytes = 0;
  raw.send(encode(m));
  EXPECT_EQ(raw.expect<Opened>().blocks, o.blocks.size());
  raw.send(encode(Credit{100, ~0ull}) + encode(Credit{5, 1}) + encode(Close{77, true}));
  for (size_t i = 0; i < o.blocks.size(); ++i)
    EXPECT_EQ(static_cast<int>(raw.receive().first), static_cast<int>(FrameType::kChunk));
  raw.send(encode(Close{100, true}) + encode(Close{100, true}));
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  raw.send(encode(fetch_of(o, p, 0)));  // operation 0 is not one
  EXPECT_TRUE(raw.closed());
  expect_unharmed(p, d);
}

// Over UCX blocks go where a key says. The address here is the producer's own, which nobody gave this key: its messages reach it
// and are dropped.
TEST_F(Liar, UcxIsOpenedOnceAndUsedInTurn) {
  if (!ucx::built_in()) GTEST_SKIP() << "no UCX in this build";
  Cluster cluster({.transport = "ucx"});
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  auto o = p.offer_random(prng, 1);
  auto m = fetch_of(o, p);
  m.path = Path::kUcx;
  auto probe = [](uint32_t bytes, Path path) { return encode(Probe{bytes, path}); };
  for (int lie = 0; lie < 7; ++lie) {
    SCOPED_TRACE(lie);
    auto raw = join(p);
    ASSERT_FALSE(ready.ucx_address.bytes.empty());
    auto open = encode(Ucx{.key = {1, 2, 3}, .address = ready.ucx_address});
    std::string lies[] = {encode(Ucx{}),                           // nowhere
                          open + open,                             // twice
                          probe(1, Path::kUcx),                    // before it is there
                          open + probe(1, Path::kUcxGet),          // the producer reads nothing
                          open + probe(~0u, Path::kUcx),           // more than a self-test may ask for
                          open + probe(1, static_cast<Path>(77)),  // no path at all
                          open};
    for (int i = 0; i <= kUcxProbesMax; ++i) lies[6] += probe(1, Path::kUcx);  // beside the send queue: so many and no more
    raw.send(lies[lie]);
    EXPECT_TRUE(raw.closed());
  }
  EXPECT_EQ(p.node->grants_live(), 1);
  auto raw = join(p);
  raw.send(encode(m));
  EXPECT_EQ(static_cast<Code>(raw.expect<Failed>().code), Code::kInvalidArgument) << "no UCX was opened on this connection";
  raw.send(encode(Ucx{.key = {1, 2, 3}, .address = ready.ucx_address}));
  m.op = 2;
  raw.send(encode(m));
  EXPECT_EQ(raw.expect<Opened>().blocks, o.blocks.size());
  expect_unharmed(p, d);
  raw.send(encode(Close{2, false}));
  EXPECT_TRUE(p.next_of(1, Kind::kGrantReleased));
  expect_unharmed(p, d);
}

TEST_F(Liar, ConsumerThatStopsReadingOrSendsBlocksLosesItsGrant) {
  Cluster cluster({.transport = "tcp", .lease_ms = 300});
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  {
    auto raw = join(p);
    auto o = p.offer_random(prng, 1);
    raw.send(encode(fetch_of(o, p)));  // and never reads, beats or closes
    EXPECT_TRUE(p.next_of(1, Kind::kGrantExpired));
  }
  for (auto& bad : {encode_chunk({.op = 1}, 0), encode(Probe{~0u}), frame(FrameType::kFetch, "x"),
                    frame(FrameType::kHeartbeat, std::string(70'000, 'x'))}) {
    auto raw = join(p);
    raw.send(bad);
    EXPECT_TRUE(raw.closed());
  }
  auto raw = join(p);  // unknown types are of later versions
  raw.send(frame(static_cast<FrameType>(500), "whatever") + encode(Heartbeat{.echo = 42, .grants = std::vector<Token>(2000)}));
  EXPECT_EQ(raw.expect<Echo>().echo, 42u);
  expect_unharmed(p, d);
}

TEST_F(Liar, ConsumerThatAsksWithoutReadingIsCutOff) {
  Cluster cluster;
  auto& p = cluster.add();
  auto& d = cluster.add({&p});
  auto raw = join(p);
  std::string beats;
  while (beats.size() < 1u << 20) beats += encode(Heartbeat{});
  // Answers of 28 bytes to each of 26: the sockets hold a few MiB of them, the queue 4 MiB, no more.
  EXPECT_FALSE(raw.send(beats, 64));
  expect_unharmed(p, d);
}

TEST_F(Liar, SharedMemoryNeedsTheKeyOfTheHandshake) {
  Cluster cluster;
  auto& p = cluster.add();
  auto raw = join(p, true);
  ASSERT_FALSE(ready.shm_name.empty());
  auto ask = [&](Nonce key) {
    auto fd = unix_connect(ready.shm_name);
    BATON_CHECK(fd.has_value());
    ::send(fd->get(), key.data(), key.size(), MSG_NOSIGNAL);
    pollfd w{fd->get(), POLLIN, 0};
    ::poll(&w, 1, 60'000);
    return receive_descriptor(*fd);
  };
  EXPECT_FALSE(ask({}));
  auto fd = ask(ready.shm_key);
  ASSERT_TRUE(fd) << fd.error().message;
  EXPECT_LT(::write(fd->get(), "x", 1), 0) << "the pool must be sealed against its readers";
}

// A producer by hand: what a consumer must not believe.
class LyingProducer : public Liar {
 protected:
  void open(std::string transport = "tcp") {
    listener = *tcp_listen({"127.0.0.1", 0});
    port = *local_port(listener);
    NodeSetup setup{.transport = std::move(transport), .fetch_timeout_ms = 300};
    d = &cluster.add(setup, {cat("127.0.0.1:", port)});
    block_bytes = setup.layout.block_bytes();
  }
  Raw serve(bool honest_proof = true) {
    auto raw = shake(honest_proof);
    if (!honest_proof) return raw;
    raw.send(encode(Ready{}));
    for (int i = 0; i < 8; ++i) raw.send(encode(Echo{.echo = raw.expect<Heartbeat>().echo}));
    auto probe = raw.expect<Probe>();
    raw.send(encode_chunk({.op = 0}, probe.bytes) + std::string(probe.bytes, 'p'));
    EXPECT_TRUE(d->wait_peer(cat("127.0.0.1:", port), "connected"));
    return raw;
  }
  // Up to AUTH.
  Raw shake(bool honest_proof = true) {
    wait_readable(listener);
    Raw raw(accept_on(listener));
    auto hello = raw.expect<Hello>();
    Accept accept{.version = kVersionMax, .engine_id = "liar", .incarnation = 5, .lease_ms = 30'000};
    accept.blocks.shard = kv::whole_shard(NodeSetup{}.layout);
    accept.proof = handshake_proof(honest_proof ? "s3cret" : "guess", Prover::kProducer, hello, accept);
    raw.send(encode(accept));
    if (!honest_proof) return raw;
    raw.expect<Auth>();
    return raw;
  }
  void wait_readable(const Fd& fd) {
    pollfd w{fd.get(), POLLIN, 0};
    ::poll(&w, 1, 60'000);
  }
  // Asks for 4 blocks into blocks 10..13; the others must stay as they are.
  FetchMsg fetch(Raw& raw) {
    d->node->fetch(
        {.request = 1,
         .grant = {.token = std::string(32, 'a'), .incarnation = 5, .engine_id = "liar", .host = "127.0.0.1", .port = port},
         .first_token = 0,
         .n_tokens = 60,
         .blocks = {10, 11, 12, 13}});
    while (true) {
      auto [type, body] = raw.receive();
      if (type == FrameType::kFetch) return *decode<FetchMsg>(std::as_bytes(std::span(body)));
      BATON_CHECK(static_cast<int>(type) != 0);  // skip heartbeats and the end of earlier fetches
    }
  }
  Event fetched() {
    auto event = d->next_of(1, Kind::kFetched);
    EXPECT_TRUE(event);
    return event.value_or(Event{});
  }
  std::string blocks(size_t n) { return std::string(n * block_bytes, 'z'); }
  std::string chunk(uint64_t op, uint32_t first, uint32_t n, uint64_t sum, const std::string& payload) {
    return encode_chunk({.op = op, .first_block = first, .n_blocks = n, .checksum = sum, .block_bytes = n * block_bytes},
                        payload.size()) +
           payload;
  }
  Cluster cluster;
  Fd listener;
  int port = 0;
  TestNode* d = nullptr;
  size_t block_bytes = 0;
};

TEST_F(LyingProducer, MustProveTheSecret) {
  open();
  auto raw = serve(false);
  EXPECT_TRUE(raw.closed());
  EXPECT_TRUE(d->wait_peer(cat("127.0.0.1:", port), "refused"));
}

TEST_F(LyingProducer, ChunksThatWereNotAskedForEndTheConnection) {
  open();
  auto before = std::vector<std::byte>(d->block(0).begin(), d->block(9).end());
  using Lie = std::function<std::string(uint64_t op)>;
  auto opened = [&](uint64_t op) { return encode(Opened{op, 4, 10'000}); };
  Lie lies[] = {[&](uint64_t op) { return encode(Opened{op, 5, 10'000}); },
                [&](uint64_t op) { return encode(Opened{op + 1, 4, 10'000}); },
                [&](uint64_t op) { return opened(op) + opened(op); },
                [&](uint64_t op) { return chunk(op, 0, 1, 0, blocks(1)); },  // before OPENED
                [&](uint64_t op) { return opened(op) + chunk(op, 0, 5, 0, blocks(5)); },
                [&](uint64_t op) { return opened(op) + chunk(op, 0, ~0u, 0, blocks(1)); },
                [&](uint64_t op) { return opened(op) + chunk(op, 1, 1, 0, blocks(1)); },
                [&](uint64_t op) { return opened(op) + chunk(op, ~0u, 1, 0, blocks(1)); },
                [&](uint64_t op) { return opened(op) + chunk(op, 0, 1, 0, blocks(1) + "x"); },
                [&](uint64_t op) { return opened(op) + chunk(op, 0, 2, 0, blocks(1)); },
                [&](uint64_t op) { return opened(op) + chunk(op, 0, 0, 0, ""); },
                [&](uint64_t op) { return opened(op) + chunk(op + 9, 0, 1, 0, blocks(1)); },
                [&](uint64_t op) { return opened(op) + chunk(0, 0, 1, 0, blocks(1)); },  // a self-test that nobody asked for
                [&](uint64_t) { return std::string(64, '\xff'); },
                [&](uint64_t) { return frame(FrameType::kOpened, "x"); }};
  for (auto& lie : lies) {
    auto raw = serve();
    auto op = fetch(raw).op;
    raw.send(lie(op));
    auto event = fetched();
    EXPECT_TRUE(event.error);
    EXPECT_EQ(event.valid_tokens, 0);
    EXPECT_TRUE(raw.closed());
  }
  EXPECT_EQ(std::memcmp(before.data(), d->block(0).data(), before.size()), 0);
}

TEST_F(LyingProducer, WrongBytesKeepTheLeadingVerifiedBlocks) {
  open();
  auto raw = serve();
  auto op = fetch(raw).op;
  auto good = blocks(2), bad = blocks(1);
  raw.send(encode(Opened{op, 4, 10'000}) + chunk(op, 0, 2, checksum(std::as_bytes(std::span(good))), good) +
           chunk(op, 2, 1, 1, bad));
  auto event = fetched();
  ASSERT_TRUE(event.error);
  EXPECT_EQ(event.error->code, Code::kDataLoss);
  EXPECT_EQ(event.valid_tokens, 32);
  EXPECT_EQ(std::memcmp(d->block(10).data(), good.data(), good.size()), 0);
  EXPECT_THAT(d->metrics.text(), ::testing::HasSubstr("kv_integrity_errors_total 1"));
  // The connection stays: one bad chunk fails one fetch.
  op = fetch(raw).op;
  raw.send(encode(Failed{op, 60'000, std::string(900, 'm')}));
  EXPECT_EQ(fetched().error->code, Code::kUnknown);
}

// The descriptor of another pool, or of none: what a consumer maps must be sealed and as large as it was told.
TEST_F(LyingProducer, SharedMemoryIsCheckedBeforeItIsReadFrom) {
  auto sealed = *PoolMemory::create(1 << 20, "liar");
  Fd unsealed(::memfd_create("liar", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(unsealed.get(), 1 << 20), 0);
  open("shm");
  auto where = cat("127.0.0.1:", port);
  struct {
    int fd;
    uint64_t pool_bytes;
    bool mapped;
  } pools[] = {{unsealed.get(), 1 << 20, false},
               {sealed.fd(), (1 << 20) + 1, false},
               {sealed.fd(), 0, false},
               {-1, 1 << 20, false},
               {sealed.fd(), 1 << 20, true}};
  for (auto& pool : pools) {
    auto name = cat(kShmNamePrefix, random_hex(16));
    auto handout = *unix_listen(name);
    auto raw = shake();
    Ready offer;
    offer.shm_name = name, offer.shm_key = {7}, offer.pool_bytes = pool.pool_bytes;
    raw.send(encode(offer));
    wait_readable(handout);
    auto caller = accept_on(handout);
    wait_readable(caller);
    Nonce key{};
    EXPECT_EQ(::recv(caller.get(), key.data(), key.size(), 0), static_cast<ssize_t>(key.size()));
    EXPECT_EQ(key, offer.shm_key);
    if (pool.fd >= 0) EXPECT_TRUE(send_descriptor(caller, pool.fd));
    caller = Fd();
    if (!pool.mapped) {
      EXPECT_TRUE(raw.closed());
      continue;
    }
    for (int i = 0; i < 8; ++i) raw.send(encode(Echo{.echo = raw.expect<Heartbeat>().echo}));
    ASSERT_TRUE(d->wait_peer(where, "connected"));
    auto op = fetch(raw).op;
    uint32_t beyond[] = {0, 1, 2, (1 << 20) / static_cast<uint32_t>(block_bytes)};
    std::string numbers(reinterpret_cast<const char*>(beyond), sizeof beyond);
    raw.send(encode(Opened{op, 4, 10'000}) + chunk(op, 0, 4, 0, numbers));
    EXPECT_TRUE(fetched().error);
    EXPECT_TRUE(raw.closed());
  }
}

TEST_F(LyingProducer, SilenceFailsTheFetch) {
  open();
  auto raw = serve();
  auto op = fetch(raw).op;
  raw.send(encode(Opened{op, 4, 10'000}));
  EXPECT_EQ(fetched().error->code, Code::kDeadlineExceeded);
  op = fetch(raw).op;
  raw.send(encode(Opened{op, 4, 0}) + chunk(op, 0, 1, 0, blocks(1)));  // a lease that is over already
  EXPECT_TRUE(fetched().error);
}

}  // namespace
}  // namespace baton::transfer
