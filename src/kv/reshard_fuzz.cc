// Shapes as a stranger may claim them. Properties: what check() lets through reshards exactly as the plain model says, or is
// refused with no copy made; no copy leaves a pool and no byte is written twice.
#include "kv/testing/memory_model.h"

namespace baton::kv {
namespace {

constexpr size_t kPoolBytesMax = 1u << 18;  // so that an input costs milliseconds

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  int32_t number(int32_t usual) {  // mostly what makes sense
    auto b = byte();
    return b < 250 ? b % usual + 1 : b == 250 ? 0 : b == 251 ? -1 : b == 252 ? INT32_MAX : b == 253 ? 65'536 : 255;
  }
  KvShard shard() {
    KvShard s;
    s.layout = {number(3), number(4), number(6), number(9), static_cast<KvDtype>(byte() % (kKvDtypes + 1)), static_cast<TileOrder>(byte() % 3)};
    s.model_layers = number(4), s.model_heads = number(4);
    s.layer_first = number(3) - 1, s.head_first = number(3) - 1;
    return s;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

void run(Input in) {
  std::vector<KvShard> shards;
  for (int n = 1 + in.byte() % 3; n > 0; --n) shards.push_back(in.shard());
  auto mine = in.shard();
  auto first = in.number(40) - 1, n_tokens = in.number(40);
  for (auto& s : shards) {
    if (in.byte() % 8 != 0) {  // else nothing ever fits
      s.model_layers = mine.model_layers, s.model_heads = mine.model_heads;
      s.layout.head_dim = mine.layout.head_dim, s.layout.dtype = mine.layout.dtype;
    }
    if (!check(s)) return;
  }
  if (!check(mine) || first < 0 || first > 200 || n_tokens < 0 || n_tokens > 200) return;
  Prng prng(in.byte());
  std::vector<testing::Rank> sources;
  std::vector<BlockMap> maps;
  auto rank = [&](const KvShard& s, bool short_of_blocks) {
    auto bt = s.layout.block_tokens, from = first / bt * bt;
    auto blocks = static_cast<size_t>((first + n_tokens - from + bt - 1) / bt);
    if (short_of_blocks && blocks > 0) --blocks;
    return (blocks + 4) * s.layout.block_bytes() > kPoolBytesMax ? testing::Rank{} : testing::make_rank(prng, s, from, blocks);
  };
  for (const auto& s : shards) {
    sources.push_back(rank(s, in.byte() % 16 == 1));
    if (sources.back().pool.empty() && n_tokens > 0) return;
    testing::fill(sources.back());
    maps.push_back(sources.back().map());
  }
  auto to = rank(mine, in.byte() % 16 == 1);
  if (to.pool.empty()) return;
  auto plan = reshard(maps, to.map(), in.byte(), first, n_tokens);
  if (plan) BATON_CHECK(testing::judge(*plan, sources, to, first, first + n_tokens).empty());
}

}  // namespace
}  // namespace baton::kv

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  baton::kv::run({data, size});
  return 0;
}
