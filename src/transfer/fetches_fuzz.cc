// A producer that may say anything, with correct frame checksums, against real fetches. Properties: exactly one event a fetch;
// only its own destination is written, and never after its event; valid_tokens covers only blocks whose bytes are what was truly
// sent.
#include <map>
#include <set>
#include <utility>

#include "base/log.h"
#include "transfer/checksum.h"
#include "transfer/fetches.h"
#include "transfer/tcp/tcp_transport.h"
#include "transfer/testing/fuzz_input.h"
#include "transfer/ucx/ucx_transport.h"

namespace baton::transfer {
namespace {

const kv::KvLayout kLayout{.layers = 1, .kv_heads = 1, .head_dim = 32, .block_tokens = 16};
constexpr int32_t kBlocks = 64, kBlocksPerFetch = 4;

// What arrives is made here; nothing leaves.
class NoFabric final : public ucx::Fabric {
 public:
  const ucx::Local& local() const override { return local_; }
  void expect(const Nonce&, size_t, Arrived) override {}
  void forget(const Nonce&) override {}
  uint64_t dial(std::string, std::string, Lost) override { return 1; }
  void hang_up(uint64_t) override {}
  void send(uint64_t, const Nonce&, const ChunkHead&, std::vector<iovec>) override {}
  void read(uint64_t, const Nonce&, const ChunkHead&, std::vector<ucx::RemotePiece>) override {}

 private:
  ucx::Local local_;
};

class Harness : public FrameHandler {
 public:
  Harness(testing::FuzzInput input, PoolMemory& pool) : input_(input), pool_{pool.bytes(), kLayout.block_bytes()} {
    BATON_CHECK(loop_.open().has_value());
    context_.options.fetch_timeout_ms = 500;
    std::memset(pool_.bytes.data(), kUntouched, pool_.bytes.size());
    conn_.emplace(loop_, far_.open(), *this);
    beside_ = input_.byte() % 2 == 1;
    fetches_.emplace(context_, *conn_, beside_ ? ucx::make_ucx_receiver(Path::kUcx, channel_, {}) : make_tcp_transport(pool_),
                     context_.shard);
  }

  void run() {
    while (!input_.done() && !closed_) {
      step();
      loop_.turn(0);
      far_.receive();
      check_ended();
    }
    fetches_.reset();
    for (auto& [request, f] : all_) BATON_CHECK(f.events == 1);
    check_ended();
    auto used = static_cast<size_t>(all_.size()) * kBlocksPerFetch;
    for (size_t b = used; b < static_cast<size_t>(kBlocks); ++b) BATON_CHECK(is(static_cast<int32_t>(b), kUntouched));
  }

 private:
  static constexpr int kUntouched = 0xEE, kAfter = 0x11, kGood = 0x77;
  struct State {
    int32_t first_block = 0;
    uint32_t next = 0;  // block that an honest producer would send now
    int events = 0;
    bool push = false, completed = false;
    bool filled = false;  // overwritten by us after the event: no byte may change any more
  };
  bool is(int32_t block, int value) {
    for (auto b : pool_[block]) {
      if (b != static_cast<std::byte>(value)) return false;
    }
    return true;
  }
  void step() {
    switch (input_.byte() % 10) {
      case 0:
        return start();
      case 1:
        return (void)fetches_->cancel(1 + input_.byte() % 16);
      case 2:
        return far_.send(encode(Opened{op(), input_.number<uint32_t>(kBlocksPerFetch), input_.number<uint32_t>(10'000)}));
      case 3:
        return far_.send(encode(Failed{op(), input_.byte(), "no"}));
      case 4:
        return beside_ ? arrival() : chunk();
      case 5:
        return clock_.advance_ms(input_.byte() * 2);
      case 6:
        return fetches_->renewed(clock_.now_ms() - input_.byte(), clock_.now_ms() + input_.byte());
      case 7:
        return far_.send(encode(Completed{op(), input_.number<int32_t>(5), 1, input_.number<uint64_t>(2), 3}));
      case 8:
        return far_.send(encode(Keep{{op(), op()}}));
      case 9:
        return arrival();
    }
  }
  uint64_t op() { return input_.number<uint64_t>(all_.empty() ? 1 : 1 + input_.byte() % all_.size()); }
  void start() {
    auto request = all_.size() + 1;
    if (request > kBlocks / kBlocksPerFetch) return;
    auto& f = all_[request];
    f.first_block = static_cast<int32_t>(request - 1) * kBlocksPerFetch;
    Fetch fetch{.request = request, .grant = {}, .first_token = 0, .n_tokens = kBlocksPerFetch * 16 - 3, .blocks = {}};
    fetch.push = f.push = input_.chance();
    for (int32_t i = 0; i < kBlocksPerFetch; ++i) fetch.blocks.push_back(f.first_block + i);
    fetches_->start(std::move(fetch), {}, clock_.now_ms(), {.part = {0, 0, kLayout.layers, 0, kLayout.kv_heads}, .joint = {}});
  }
  // Beside the connection, in any order.
  void arrival() {
    auto n = input_.number<uint32_t>(1 + input_.byte() % 2);
    auto buffer = staging_->take_extra(std::min<uint32_t>(n, 8) * pool_.block_bytes);
    std::memset(buffer->data.get(), kGood, buffer->size);
    ChunkHead head{op(), input_.number<uint32_t>(input_.byte() % kBlocksPerFetch), n, 0, buffer->size};
    head.checksum = input_.number<uint64_t>(checksum(buffer->bytes()));
    if (head.checksum != checksum(buffer->bytes())) buffer->data[0] ^= std::byte{1};
    if (auto r = fetches_->on_arrival(head, buffer); !r) conn_->close(r.error());
    check_ended();
  }
  // Sometimes cut in two, so that an event can come in the middle of a payload.
  void chunk() {
    auto n = input_.number<uint32_t>(1 + input_.byte() % 2);
    std::string payload(std::min<uint32_t>(n, 8) * pool_.block_bytes, static_cast<char>(kGood));
    auto sum = input_.number<uint64_t>(checksum(std::as_bytes(std::span(payload))));
    if (sum != checksum(std::as_bytes(std::span(payload)))) payload[input_.byte() % std::max<size_t>(1, payload.size())] ^= 1;
    ChunkHead head{op(), 0, n, sum, 0};
    auto it = all_.find(head.op);
    head.first_block = input_.number<uint32_t>(it == all_.end() ? 0 : std::exchange(it->second.next, it->second.next + n));
    auto wire = encode_chunk(head, payload.size()) + payload;
    auto cut = std::min<size_t>(wire.size(), input_.byte() * size_t{16});
    far_.send(std::string_view(wire).substr(0, cut));
    loop_.turn(0);
    if (input_.byte() < 60) fetches_->cancel(head.op);
    check_ended();
    far_.send(std::string_view(wire).substr(cut));
  }
  void ended(Event e) {
    auto& f = all_.at(e.request);
    if (e.kind == Event::Kind::kCompletion) {
      BATON_CHECK(f.push && f.events == 0 && !std::exchange(f.completed, true));
      return;
    }
    BATON_CHECK(e.error || f.completed == f.push);
    BATON_CHECK(++f.events == 1 && e.valid_tokens >= 0 && e.valid_tokens <= kBlocksPerFetch * 16 - 3);
    BATON_CHECK(e.error || e.valid_tokens == kBlocksPerFetch * 16 - 3);
    for (int32_t i = 0; i * 16 < e.valid_tokens; ++i) BATON_CHECK(is(f.first_block + i, kGood));
  }
  void check_ended() {
    for (auto& [request, f] : all_) {
      if (f.events == 0) continue;
      for (int32_t i = 0; i < kBlocksPerFetch; ++i) {
        if (f.filled) BATON_CHECK(is(f.first_block + i, kAfter));
        std::memset(pool_[f.first_block + i].data(), kAfter, pool_.block_bytes);
      }
      f.filled = true;
    }
  }

  Result<> on_frame(FrameType type, std::span<const std::byte> body) override {
    if (type == FrameType::kOpened) return fetches_->on_opened(*decode<Opened>(body));
    if (type == FrameType::kCompleted) return fetches_->on_completed(*decode<Completed>(body));
    if (type == FrameType::kKeep) return fetches_->on_keep(*decode<Keep>(body));
    return fetches_->on_failed(*decode<Failed>(body));
  }
  Result<Landing> on_chunk(const ChunkHead& head, size_t payload) override { return fetches_->on_chunk(head, payload); }
  Result<> on_chunk_end(const ChunkHead& head, std::span<const std::byte> collected) override {
    return fetches_->on_chunk_end(head, collected);
  }
  void on_closed(const Error& why) override {
    fetches_->fail_all(why);
    closed_ = true;
  }

  testing::FuzzInput input_;
  BlockArray pool_;
  ManualClock clock_;
  Loop loop_{clock_};
  Metrics metrics_;
  Stats stats_{metrics_, {}};
  std::map<uint64_t, State> all_;
  Context context_{.loop = loop_,
                   .options = {},
                   .ranks = {kv::whole_shard(kLayout)},
                   .shard = kv::whole_shard(kLayout),
                   .boot_id = {},
                   .pool = pool_,
                   .stats = stats_,
                   .emit = [this](Event e) { ended(std::move(e)); }};
  testing::FarEnd far_;
  std::shared_ptr<ucx::Staging> staging_ = std::make_shared<ucx::Staging>(kStagingBytes, [] {});
  NoFabric fabric_;
  ucx::Channel channel_{fabric_, "", "", {}, {}};
  bool closed_ = false, beside_ = false;
  std::optional<Conn> conn_;
  std::optional<Fetches> fetches_;
};

}  // namespace
}  // namespace baton::transfer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::transfer;
  static auto pool = [] {
    baton::log_setup("fuzz", baton::LogLevel::kOff);
    return *PoolMemory::create(kLayout.block_bytes() * kBlocks, "fuzz");
  }();
  if (size <= 4096) Harness(testing::FuzzInput(data, size), pool).run();
  return 0;
}
