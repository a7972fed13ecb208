// A consumer that may say anything, with correct checksums, against a real producer with a clock of our own. Properties: every
// grant ends exactly once; a chunk that leaves holds exactly the blocks of the grant it belongs to, and of a promise only what
// was said to be ready; nothing is left when the connection is gone and the requests have ended.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/log.h"
#include "transfer/auth.h"
#include "transfer/checksum.h"
#include "transfer/producer.h"
#include "transfer/testing/fuzz_input.h"

namespace baton::transfer {
namespace {

const kv::KvLayout kLayout{.layers = 1, .kv_heads = 1, .head_dim = 32, .block_tokens = 16};
constexpr int32_t kBlocks = 64;

class Harness : public FrameHandler {
 public:
  Harness(testing::FuzzInput input, PoolMemory& pool) : input_(input), pool_{pool.bytes(), kLayout.block_bytes()} {
    BATON_CHECK(loop_.open().has_value());
    context_.options.engine_id = "p";
    context_.options.lease_ms = 600;
    producer_.emplace(context_);
    producer_->adopt(far_.open());
  }

  void run() {
    handshake();
    while (!input_.done()) {
      step();
      turn();
    }
    far_.close();
    turn();
    for (auto& [request, promise] : promises_) producer_->release(request);
    clock_.advance_ms(10'000);
    turn();
    turn();
    BATON_CHECK(producer_->grants().size() == 0);
    for (auto& [request, n] : ended_) BATON_CHECK(n == 1);
  }

 private:
  struct Promise {
    bool named = false, complete = false;
    int32_t ready = 0;
  };
  void turn() {
    loop_.turn(0);
    auto bytes = far_.receive();
    for (std::string_view rest = bytes; !rest.empty();) {  // what the producer sends must be well formed
      auto want = reader_.want();
      auto n = std::min(want[0].iov_len, rest.size());
      std::memcpy(want[0].iov_base, rest.data(), n);
      BATON_CHECK(reader_.got(n).has_value());
      rest.remove_prefix(n);
    }
  }
  void handshake() {
    Hello hello;
    hello.engine_id = "d";
    hello.fingerprint = context_.options.fingerprint;
    hello.blocks = context_.rank_fields();
    if (input_.byte() >= 250) hello.blocks.shard.layout.head_dim = input_.number<int32_t>(3);
    far_.send(encode(hello));
    turn();
    far_.send(encode(Auth{handshake_proof("", Prover::kConsumer, hello, accept_)}));
    turn();
  }
  void step() {
    switch (input_.byte() % 14) {
      case 0:
        return offer();
      case 1:
        return fetch(false);
      case 9:
        return fetch(true);
      case 10:
        return promise();
      case 11:
        return progress();
      case 12:
        return complete();
      case 13:
        return producer_->refuse(token(), {Code::kAborted, "no"});
      case 2:
        return far_.send(encode(Credit{op(), input_.number<uint64_t>(4096)}));
      case 3:
        return far_.send(encode(Close{op(), input_.chance()}));
      case 4:
        return far_.send(encode(Heartbeat{1, {token(), token()}}));
      case 5:
        return far_.send(encode(Decline{token()}));
      case 6:
        return clock_.advance_ms(input_.byte() * 2);
      case 7:
        return producer_->release(1 + input_.byte() % 16);
      case 8:
        return far_.send(encode(Probe{input_.number<uint32_t>(1000)}));
    }
  }
  void offer() {
    auto request = offers_.size() + 1;
    if (request > 16) return;
    auto o = new_offer(request);
    offers_.push_back(o);
    ended_[request] = 0;
    producer_->offer(Token{static_cast<uint8_t>(request)}, o);
  }
  Offer new_offer(uint64_t request) {
    Offer o{.request = request, .blocks = {}, .n_tokens = 0, .prompt_digest = {static_cast<uint8_t>(request)}};
    auto n = 1 + input_.byte() % 8;
    for (int i = 0; i < n; ++i) o.blocks.push_back(input_.byte() % kBlocks);
    o.n_tokens = n * kLayout.block_tokens - input_.byte() % kLayout.block_tokens;
    return o;
  }
  void promise() {
    auto request = offers_.size() + 1;
    if (request > 16) return;
    auto o = new_offer(request);
    offers_.push_back(o);
    ended_[request] = 0;
    promises_[request] = {};
    o.blocks.clear();
    producer_->promise(Token{static_cast<uint8_t>(request)}, o);
  }
  Promise* any_promise(uint64_t& request) {
    if (promises_.empty()) return nullptr;
    auto it = std::next(promises_.begin(), input_.byte() % static_cast<int>(promises_.size()));
    request = it->first;
    return &it->second;
  }
  void progress() {
    uint64_t request = 0;
    auto* p = any_promise(request);
    if (p == nullptr || p->complete) return;
    auto& o = offers_[request - 1];
    p->ready = std::max(p->ready, input_.number<int32_t>(o.n_tokens * input_.byte() / 255));
    producer_->progress(request, std::exchange(p->named, true) ? std::vector<int32_t>{} : o.blocks, p->ready);
  }
  void complete() {
    uint64_t request = 0;
    auto* p = any_promise(request);
    if (p == nullptr || !p->named || std::exchange(p->complete, true)) return;
    producer_->complete(request, {.first_token = input_.byte()});
  }
  Token token() { return {static_cast<uint8_t>(1 + input_.byte() % (offers_.size() + 1))}; }  // the last is of no offer
  uint64_t op() { return input_.number<uint64_t>(next_op_ == 1 ? 1 : 1 + input_.byte() % (next_op_ - 1)); }
  void fetch(bool await) {
    auto t = token();
    auto* o = t[0] >= 1 && t[0] <= offers_.size() ? &offers_[t[0] - 1u] : nullptr;
    auto first = o ? 16 * (input_.byte() % static_cast<int32_t>(o->blocks.size())) : 0;
    auto id = input_.byte() < 240 ? next_op_++ : 0;  // 0 is no operation
    FetchMsg m{.op = id, .token = t, .incarnation = input_.number<uint64_t>(0), .digest = {t[0]}};
    m.first_token = input_.number<int32_t>(first);
    m.n_tokens = input_.number<int32_t>(o ? o->n_tokens - first : 16);
    m.path = static_cast<Path>(input_.number<uint8_t>(0));
    m.chunk_bytes = input_.number<uint32_t>(4096);
    m.credit = input_.number<uint64_t>(8192);
    m.layers = input_.number<int32_t>(kLayout.layers);
    m.heads = input_.number<int32_t>(kLayout.kv_heads);
    fetched_.try_emplace(id, t[0], m.first_token);  // an AWAIT may name what is promised only later
    far_.send(await ? encode(Await{m}) : encode(m));
  }

  Result<> on_frame(FrameType type, std::span<const std::byte> body) override {
    if (type == FrameType::kAccept) accept_ = *decode<Accept>(body);
    if (type == FrameType::kOpened) {
      auto it = fetched_.find(decode<Opened>(body)->op);
      BATON_CHECK(it != fetched_.end() && it->second.first <= offers_.size());
      BATON_CHECK(opened_.insert(it->second.first).second);  // one-shot
    }
    return {};
  }
  Result<Landing> on_chunk(const ChunkHead& head, size_t payload) override {
    if (head.op == 0) return Landing{};
    auto it = fetched_.find(head.op);
    BATON_CHECK(it != fetched_.end() && payload == head.n_blocks * pool_.block_bytes && payload <= kControlBodyMax);
    auto [number, first] = it->second;
    const Offer* offer = &offers_[number - 1u];
    Checksum sum;
    for (uint32_t i = 0; i < head.n_blocks; ++i) {
      auto at = static_cast<size_t>(first / kLayout.block_tokens) + head.first_block + i;
      BATON_CHECK(at < offer->blocks.size());
      if (auto p = promises_.find(offer->request); p != promises_.end() && !p->second.complete)
        BATON_CHECK(std::cmp_less_equal((at + 1) * static_cast<size_t>(kLayout.block_tokens), p->second.ready));
      sum.update(pool_[offer->blocks[at]]);
    }
    BATON_CHECK(sum.value() == head.checksum);
    return Landing{.kind = Landing::Kind::kCollect, .parts = {}};
  }
  Result<> on_chunk_end(const ChunkHead& head, std::span<const std::byte> collected) override {
    Checksum sum;
    sum.update(collected);
    BATON_CHECK(head.op == 0 || sum.value() == head.checksum);
    return {};
  }
  void on_closed(const Error&) override {}

  testing::FuzzInput input_;
  BlockArray pool_;
  ManualClock clock_;
  Loop loop_{clock_};
  Metrics metrics_;
  Stats stats_{metrics_, {}};
  std::deque<Offer> offers_;
  std::map<uint64_t, int> ended_;
  std::map<uint64_t, Promise> promises_;
  std::set<uint64_t> opened_;
  std::map<uint64_t, std::pair<uint8_t, int32_t>> fetched_;  // by op: number of the offer, first token
  Context context_{.loop = loop_,
                   .options = {},
                   .ranks = {kv::whole_shard(kLayout)},
                   .shard = kv::whole_shard(kLayout),
                   .boot_id = {},
                   .pool = pool_,
                   .stats = stats_,
                   .emit = [this](Event e) { ended_[e.request] += e.kind != Event::Kind::kPromiseGone; }};
  testing::FarEnd far_;
  FrameReader reader_{*this};
  Accept accept_;
  uint64_t next_op_ = 1;
  std::optional<Producer> producer_;
};

}  // namespace
}  // namespace baton::transfer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::transfer;
  static auto pool = [] {
    baton::log_setup("fuzz", baton::LogLevel::kOff);
    auto p = *PoolMemory::create(kLayout.block_bytes() * kBlocks, "fuzz");
    for (size_t i = 0; i < p.bytes().size(); ++i) p.bytes()[i] = static_cast<std::byte>(i / kLayout.block_bytes() + i % 7);
    return p;
  }();
  if (size <= 4096) Harness(testing::FuzzInput(data, size), pool).run();
  return 0;
}
