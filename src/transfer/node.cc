#include <pthread.h>

#include <thread>

#include "base/log.h"
#include "base/prng.h"
#include "transfer/consumer.h"
#include "transfer/driven.h"
#include "transfer/producer.h"

namespace baton::transfer {
namespace {

// The step thread's end: commands go to the loop's inbox, events come back through a queue.
class Node final : public DrivenNode {
 public:
  Node(NodeOptions options, PoolMemory& pool, Metrics& metrics, std::optional<Surroundings> around)
      : loop_(around ? around->clock : clock_),
        stats_(metrics, options.metric_labels),
        context_{.loop = loop_,
                 .options = std::move(options),
                 .boot_id = boot_id(),
                 .pool = {pool.bytes(), 1},
                 .pool_fd = pool.fd(),
                 .stats = stats_,
                 .emit = [this](Event e) { emit(std::move(e)); }} {
    if (around) {
      context_.dial = std::move(around->dial);
      context_.random = std::move(around->random);
      context_.probe_bytes = around->probe_bytes;
      context_.listens = false;
    }
    context_.incarnation = context_.random_u64();
    context_.ranks = context_.options.ranks;
    context_.shard = context_.ranks[static_cast<size_t>(context_.options.rank)];
    context_.pool.block_bytes = context_.layout().block_bytes();
  }

  ~Node() override {
    if (thread_.joinable()) {
      loop_.stop();
      thread_.join();
    }
    wakeup_ = nullptr;  // what ends now has no listener
    consumer_.reset();
    producer_.reset();
    fabric_.reset();
  }

  Result<> open() {
    BATON_OK(loop_.open());
    BATON_OK(open_fabric());
    producer_ = std::make_unique<Producer>(context_);
    consumer_ = std::make_unique<Consumer>(context_);
    BATON_OK(producer_->listen());
    port_ = producer_->port();
    set_peers(context_.options.peers);
    if (!context_.listens) return {};
    thread_ = std::thread([this] { loop_.run(); });
    ::pthread_setname_np(thread_.native_handle(), "kv-transfer");
    log_info("kv transfer ready", "host={} port={} engine={} layout={} transport={}", context_.options.host, port_,
             context_.options.engine_id, context_.shard.id(), context_.options.transport);
    return {};
  }

  void turn() override { loop_.turn(0); }
  void adopt(Fd socket) override { producer_->adopt(std::move(socket)); }
  int port() const override { return port_; }
  uint64_t incarnation() const override { return context_.incarnation; }
  void set_peers(std::vector<std::string> peers) override {
    loop_.post([this, peers = std::move(peers)] { consumer_->set_peers(peers); });
  }

  Grant offer(Offer offer) override {
    auto bt = context_.layout().block_tokens;
    BATON_CHECK(offer.n_tokens > 0 && offer.blocks.size() >= static_cast<size_t>((offer.n_tokens + bt - 1) / bt));
    for (auto b : offer.blocks) BATON_CHECK(context_.pool.has(b));
    Token token;
    context_.random(token);
    ++grants_live_;
    loop_.post([this, token, offer = std::move(offer)]() mutable { producer_->offer(token, std::move(offer)); });
    return grant_of(token);
  }
  Result<Grant> promise(const std::string& text, Offer offer) override {
    BATON_TRY(auto token, token_from(text));
    BATON_CHECK(offer.n_tokens > 0);
    ++grants_live_;
    loop_.post([this, token, offer = std::move(offer)]() mutable { producer_->promise(token, std::move(offer)); });
    return grant_of(token);
  }
  void progress(uint64_t request, std::vector<int32_t> blocks, int32_t ready_tokens) override {
    for (auto b : blocks) BATON_CHECK(context_.pool.has(b));
    loop_.post([this, request, blocks = std::move(blocks), ready_tokens]() mutable {
      producer_->progress(request, std::move(blocks), ready_tokens);
    });
  }
  void complete(uint64_t request, Completion completion) override {
    loop_.post([this, request, completion] { producer_->complete(request, completion); });
  }
  void refuse(const std::string& text, Error why) override {
    auto token = token_from(text);
    if (token) loop_.post([this, token = *token, why = std::move(why)] { producer_->refuse(token, why); });
  }
  void release(uint64_t request) override {
    loop_.post([this, request] { producer_->release(request); });
  }
  void hold(const Grant& grant) override {
    loop_.post([this, grant] { consumer_->hold(grant); });
  }
  void decline(const Grant& grant) override {
    loop_.post([this, grant] { consumer_->decline(grant); });
  }
  void fetch(Fetch fetch) override {
    loop_.post([this, fetch = std::move(fetch)]() mutable { consumer_->fetch(std::move(fetch)); });
  }
  void cancel(uint64_t request) override {
    loop_.post([this, request] { consumer_->cancel(request); });
  }

  std::vector<Event> poll() override {
    std::scoped_lock lock(mutex_);
    return std::exchange(events_, {});
  }
  void set_wakeup(std::function<void()> wakeup) override {
    std::scoped_lock lock(mutex_);
    wakeup_ = std::move(wakeup);
  }
  std::vector<PeerStatus> peers() const override { return consumer_->status(); }
  int grants_live() const override { return grants_live_; }
  void drain() override {
    loop_.post([this] { producer_->drain(); });
  }

 private:
  Grant grant_of(const Token& token) const {
    return {token_text(token),         context_.incarnation, context_.options.engine_id, context_.options.host, port_,
            context_.options.lease_ms, context_.options.rank};
  }
  Result<> open_fabric() {
    const auto& o = context_.options;
    if (o.transport != "ucx" && !(o.transport == "auto" && ucx::rdma_device_present())) return {};
    auto fabric = ucx::Fabric::open(loop_, context_.pool.bytes, o.interface);
    if (fabric) {
      fabric_ = *std::move(fabric);
      context_.fabric = fabric_.get();
      // UCX reads addresses that peers send; with a secret, only peers that know it.
      if (o.secret.empty()) log_warn("kv ucx without a shared secret: whoever reaches the port is believed", "port={}", o.port);
      return {};
    }
    if (o.transport == "ucx") return std::unexpected(fabric.error());
    log_warn("kv ucx unavailable, peers use tcp", "error=\"{}\"", fabric.error().message);
    return {};
  }

  void emit(Event event) {
    if (event.kind == Event::Kind::kGrantReleased || event.kind == Event::Kind::kGrantExpired) --grants_live_;
    std::function<void()> wakeup;
    {
      std::scoped_lock lock(mutex_);
      events_.push_back(std::move(event));
      if (events_.size() == 1) wakeup = wakeup_;  // else the wakeup for the first of them is not answered yet
    }
    if (wakeup) wakeup();
  }

  SteadyClock clock_;
  Loop loop_;
  Stats stats_;
  Context context_;
  int port_ = 0;
  std::atomic<int> grants_live_{0};
  std::mutex mutex_;
  std::vector<Event> events_;     // guarded by mutex_
  std::function<void()> wakeup_;  // guarded by mutex_
  std::unique_ptr<ucx::Fabric> fabric_;
  std::unique_ptr<Producer> producer_;  // these two live on the loop's thread while it runs
  std::unique_ptr<Consumer> consumer_;
  std::thread thread_;
};

Result<> check(const NodeOptions& o, const PoolMemory& pool) {
  if (o.transport != "auto" && o.transport != "shm" && o.transport != "ucx" && o.transport != "tcp")
    return fail(Code::kInvalidArgument, "transport \"", o.transport, "\": expected auto, shm, ucx or tcp");
  if (pool.fd() < 0) return fail(Code::kInvalidArgument, "a pool that no peer on this host can map");
  if (o.ucx_primitive != "auto" && o.ucx_primitive != "am" && o.ucx_primitive != "get")
    return fail(Code::kInvalidArgument, "ucx primitive \"", o.ucx_primitive, "\": expected auto, am or get");
  if (o.engine_id.empty() || o.engine_id.size() > kStringMax || o.fingerprint.size() > kStringMax)
    return fail(Code::kInvalidArgument, "engine id or fingerprint missing or longer than ", kStringMax);
  if (o.lease_ms < kLeaseMinMs || o.lease_ms > kLeaseMaxMs)
    return fail(Code::kInvalidArgument, "lease of ", o.lease_ms, " ms: expected ", kLeaseMinMs, " to ", kLeaseMaxMs);
  if (o.fetch_timeout_ms < 1) return fail(Code::kInvalidArgument, "fetch timeout of ", o.fetch_timeout_ms, " ms");
  if (o.chunk_bytes < kChunkBytesMin || o.chunk_bytes > kChunkPayloadMax)
    return fail(Code::kInvalidArgument, "chunks of ", o.chunk_bytes, " bytes: expected ", kChunkBytesMin, " to ",
                kChunkPayloadMax);
  if (o.ranks.size() > kRanksMax || o.rank < 0 || static_cast<size_t>(o.rank) >= o.ranks.size())
    return fail(Code::kInvalidArgument, "rank ", o.rank, " of ", o.ranks.size());
  for (const auto& shard : o.ranks) BATON_OK(kv::check(shard));
  const auto& layout = o.ranks[static_cast<size_t>(o.rank)].layout;
  if (layout.block_bytes() == 0 || layout.block_bytes() > kChunkPayloadMax || pool.bytes().size() < layout.block_bytes())
    return fail(Code::kInvalidArgument, "a pool of ", pool.bytes().size(), " bytes for blocks of ", layout.block_bytes());
  return {};
}

}  // namespace

Result<std::unique_ptr<TransferNode>> TransferNode::start(NodeOptions options, kv::KvLayout layout, PoolMemory& pool,
                                                          Metrics& metrics) {
  if (options.ranks.empty()) options.ranks = {kv::whole_shard(layout)};
  BATON_OK(check(options, pool));
  auto node = std::make_unique<Node>(std::move(options), pool, metrics, std::nullopt);
  BATON_OK(node->open());
  return node;
}

Result<std::unique_ptr<DrivenNode>> drive(NodeOptions options, kv::KvLayout layout, PoolMemory& pool, Metrics& metrics,
                                          Surroundings surroundings) {
  if (options.ranks.empty()) options.ranks = {kv::whole_shard(layout)};
  auto node = std::make_unique<Node>(std::move(options), pool, metrics, std::move(surroundings));
  BATON_OK(node->open());
  return node;
}

}  // namespace baton::transfer
