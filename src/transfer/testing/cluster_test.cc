#include "transfer/testing/cluster.h"

#include <cstring>

#include "transfer/ucx/fabric.h"

namespace baton::transfer::testing {

constexpr int kHangMs = 60'000;

std::vector<std::string> all_paths() {
  std::vector<std::string> out{"shm", "tcp"};
  if (ucx::built_in()) out.insert(out.end(), {"ucx", "ucx_get"});
  return out;
}

static PoolMemory make_pool(size_t bytes) {
  auto pool = PoolMemory::create(bytes, "baton-test-kv");
  BATON_CHECK(pool.has_value());
  return *std::move(pool);
}

TestNode::TestNode(const NodeSetup& setup, int number, std::vector<std::string> peers)
    : layout(setup.layout), pool(make_pool(setup.layout.block_bytes() * static_cast<size_t>(setup.blocks))) {
  Prng prng(static_cast<uint64_t>(number) + 1);
  for (size_t i = 0; i + 8 <= pool.bytes().size(); i += 8) {
    auto word = prng.next();
    std::memcpy(pool.bytes().data() + i, &word, 8);
  }
  NodeOptions options;
  options.engine_id = setup.engine_id.empty() ? cat("engine-", number) : setup.engine_id;
  options.ranks = setup.ranks;
  options.rank = setup.rank;
  options.port = setup.port;
  options.peers = std::move(peers);
  options.transport = setup.transport == "ucx_get" ? "ucx" : setup.transport;
  options.ucx_primitive = setup.transport == "ucx_get" ? "get" : setup.transport == "ucx" ? "am" : "auto";
  options.fingerprint = setup.fingerprint;
  options.lease_ms = setup.lease_ms;
  options.fetch_timeout_ms = setup.fetch_timeout_ms;
  options.chunk_bytes = setup.chunk_bytes;
  options.secret = setup.secret;
  auto started = TransferNode::start(options, layout, pool, metrics);
  BATON_CHECK(started.has_value());
  node = *std::move(started);
  node->set_wakeup([this] {
    std::scoped_lock lock(mutex_);
    woken_ = true;
    news_.notify_all();
  });
}

TestNode::~TestNode() { node.reset(); }

Offered TestNode::random_offer(Prng& prng, uint64_t request, int32_t blocks_max) {
  Offered out{.request = request, .blocks = {}, .grant = {}};
  auto n = static_cast<int32_t>(1 + prng.below(static_cast<uint64_t>(blocks_max)));
  auto pool_blocks = static_cast<int32_t>(pool.bytes().size() / layout.block_bytes());
  for (int32_t i = 0; i < n; ++i) out.blocks.push_back(static_cast<int32_t>(prng.below(static_cast<uint64_t>(pool_blocks))));
  out.n_tokens = n * layout.block_tokens - static_cast<int32_t>(prng.below(static_cast<uint64_t>(layout.block_tokens)));
  for (auto& b : out.digest) b = static_cast<uint8_t>(prng.next());
  return out;
}

Offered TestNode::offer_random(Prng& prng, uint64_t request, int32_t blocks_max) {
  auto out = random_offer(prng, request, blocks_max);
  out.grant = node->offer({out.request, out.blocks, out.n_tokens, out.digest});
  return out;
}

Offered TestNode::promise_random(Prng& prng, uint64_t request, int32_t blocks_max) {
  auto out = random_offer(prng, request, blocks_max);
  auto grant = node->promise(random_hex(32), {out.request, {}, out.n_tokens, out.digest});
  BATON_CHECK(grant.has_value());
  out.grant = *std::move(grant);
  return out;
}

Fetch TestNode::fetch_for(Prng& prng, const Offered& offered, int32_t first, int32_t n) {
  auto count = (n + layout.block_tokens - 1) / layout.block_tokens;
  auto pool_blocks = static_cast<int32_t>(pool.bytes().size() / layout.block_bytes());
  auto at = static_cast<int32_t>(prng.below(static_cast<uint64_t>(pool_blocks)));
  std::vector<int32_t> blocks;
  for (int32_t i = 0; i < count; ++i) {  // distinct, some of them neighbours
    blocks.push_back(at);
    at = (at + (prng.chance(0.5) ? 1 : 7)) % pool_blocks;
    while (std::find(blocks.begin(), blocks.end(), at) != blocks.end()) at = (at + 1) % pool_blocks;
  }
  return fetch_into(offered, first, n, std::move(blocks));
}

Fetch TestNode::fetch_into(const Offered& offered, int32_t first, int32_t n, std::vector<int32_t> blocks) {
  for (auto b : blocks) std::memset(block(b).data(), 0xEE, layout.block_bytes());
  return {.request = offered.request,
          .grant = offered.grant,
          .prompt_digest = offered.digest,
          .first_token = first,
          .n_tokens = n,
          .blocks = std::move(blocks)};
}

::testing::AssertionResult TestNode::holds(const Fetch& fetch, const Offered& offered, const TestNode& producer,
                                           int32_t valid_tokens) const {
  auto whole = (valid_tokens + layout.block_tokens - 1) / layout.block_tokens;
  for (int32_t i = 0; i < whole; ++i) {
    auto source = offered.blocks[static_cast<size_t>(fetch.first_token / layout.block_tokens + i)];
    if (std::memcmp(block(fetch.blocks[static_cast<size_t>(i)]).data(), producer.block(source).data(), layout.block_bytes()) != 0)
      return ::testing::AssertionFailure() << "block " << i << " of " << whole << " differs from the producer's block " << source;
  }
  return ::testing::AssertionSuccess();
}

void TestNode::collect() {
  for (auto& e : node->poll()) events_.push_back(std::move(e));
}

std::optional<Event> TestNode::next_of(uint64_t request, Event::Kind kind, int timeout_ms) {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (true) {
    {
      std::scoped_lock lock(mutex_);
      woken_ = false;
    }
    collect();
    for (auto it = events_.begin(); it != events_.end(); ++it) {
      if (it->kind != kind || (request != UINT64_MAX && it->request != request)) continue;
      auto event = std::move(*it);
      events_.erase(it);
      return event;
    }
    std::unique_lock lock(mutex_);
    if (!news_.wait_until(lock, deadline, [this] { return woken_; })) return std::nullopt;
  }
}

Event TestNode::next(Event::Kind kind) {
  auto event = next_of(UINT64_MAX, kind, kHangMs);
  EXPECT_TRUE(event) << "no event came";
  return event.value_or(Event{});
}

size_t TestNode::kept(Event::Kind kind) {
  collect();
  return static_cast<size_t>(std::count_if(events_.begin(), events_.end(), [&](const auto& e) { return e.kind == kind; }));
}

PeerStatus TestNode::peer(const std::string& address) const {
  for (auto& p : node->peers()) {
    if (p.address == address) return p;
  }
  return {};
}

bool TestNode::wait_peer(const std::string& address, const std::string& state) {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kHangMs);
  while (peer(address).state != state) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::unique_lock lock(mutex_);
    news_.wait_for(lock, std::chrono::milliseconds(1));  // peers() has no event of its own
  }
  return true;
}

TestNode& Cluster::add(const NodeSetup& setup, const std::vector<std::string>& peers) {
  nodes.push_back(std::make_unique<TestNode>(setup, static_cast<int>(nodes.size()), peers));
  return *nodes.back();
}

TestNode& Cluster::add(const std::vector<TestNode*>& peers) {
  std::vector<std::string> addresses;
  for (auto* p : peers) addresses.push_back(p->address());
  auto& node = add(setup_, addresses);
  for (const auto& a : addresses) EXPECT_TRUE(node.wait_peer(a, "connected")) << node.peer(a).state << " " << node.peer(a).detail;
  return node;
}

std::vector<TestNode*> Cluster::add_engine(const std::string& engine_id, const std::vector<kv::KvShard>& ranks,
                                           const std::vector<TestNode*>& peers) {
  std::vector<TestNode*> out;
  for (size_t r = 0; r < ranks.size(); ++r) {
    auto setup = setup_;
    setup.engine_id = engine_id;
    setup.ranks = ranks;
    setup.rank = static_cast<int>(r);
    setup.layout = ranks[r].layout;
    std::vector<std::string> addresses;
    for (auto* p : peers) addresses.push_back(p->address());
    out.push_back(&add(setup, addresses));
    for (const auto& a : addresses) EXPECT_TRUE(out.back()->wait_peer(a, "connected")) << out.back()->peer(a).detail;
  }
  return out;
}

void Cluster::kill(TestNode& node) {
  std::erase_if(nodes, [&](const auto& n) { return n.get() == &node; });
}

}  // namespace baton::transfer::testing
