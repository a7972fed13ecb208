#include "kv/reshard.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace baton::kv {
namespace {

// One level of a loop nest: n steps of so many bytes on either side.
struct Dim {
  uint64_t n = 1, from = 0, to = 0;
};

// Loop nests to copies, as few and as long as they can be.
class Emitter {
 public:
  Emitter(const CopyVisitor& visit, size_t source) : visit_(visit), source_(source) {}
  ~Emitter() { flush(); }
  Emitter(const Emitter&) = delete;

  // dims: outermost first; the innermost level is `length` contiguous bytes on both sides.
  template <size_t N>
  void nest(uint64_t from, uint64_t to, std::array<Dim, N> dims, uint64_t length) {
    std::array<Dim, N> kept;
    size_t n = 0;
    for (size_t i = N; i-- > 0;) {  // from the inside out: kept[0] is the innermost
      const auto& d = dims[i];
      if (d.n == 0) return;
      if (d.n == 1) continue;
      if (n == 0 && d.from == length && d.to == length) {
        length *= d.n;
      } else if (n > 0 && d.from == kept[n - 1].n * kept[n - 1].from && d.to == kept[n - 1].n * kept[n - 1].to) {
        kept[n - 1].n *= d.n;
      } else {
        kept[n++] = d;
      }
    }
    walk(from, to, std::span(kept).first(n), length);
  }

 private:
  void walk(uint64_t from, uint64_t to, std::span<const Dim> dims, uint64_t length) {
    if (dims.empty()) return put({.from = from, .to = to, .length = length, .source = source_});
    if (dims.size() == 1) return put({from, to, length, dims[0].n, dims[0].from, dims[0].to, source_});
    for (uint64_t i = 0; i < dims.back().n; ++i)
      walk(from + i * dims.back().from, to + i * dims.back().to, dims.first(dims.size() - 1), length);
  }
  void put(const Copy& c) {
    if (pending_.length > 0 && pending_.rows == 1 && c.rows == 1 && pending_.from + pending_.length == c.from &&
        pending_.to + pending_.length == c.to) {
      pending_.length += c.length;
      return;
    }
    flush();
    pending_ = c;
  }
  void flush() {
    if (pending_.length > 0) visit_(pending_);
    pending_.length = 0;
  }
  const CopyVisitor& visit_;
  size_t source_;
  Copy pending_;
};

// How tokens, pairs of dimensions and halves of a pair follow one another inside a tile, in bytes.
struct TileSteps {
  uint64_t k_token, k_pair;  // K: two neighbouring dimensions always lie together
  uint64_t v_dim, v_parity;  // V: two neighbouring tokens are always 2 x dim elements from the next two
  explicit TileSteps(const KvLayout& l) {
    auto e = dtype_bytes(l.dtype), dim = static_cast<size_t>(l.head_dim), tokens = static_cast<size_t>(l.block_tokens);
    bool vnni = l.tile_order == TileOrder::kVnni;
    k_token = vnni ? 2 * e : dim * e;
    k_pair = vnni ? tokens * 2 * e : 2 * e;
    v_dim = vnni ? 2 * e : e;
    v_parity = vnni ? e : dim * e;
  }
};

// Copies n tokens of a part between one block of each side.
class Run {
 public:
  Run(const KvShard& from, const KvShard& to, const ShardPart& part, Emitter& emit)
      : a_(from), b_(to), part_(part), emit_(emit), sa_(from.layout), sb_(to.layout) {}

  void operator()(int32_t from_block, int32_t to_block, uint64_t from_token, uint64_t to_token, uint64_t n) {
    const auto &la = a_.layout, &lb = b_.layout;
    from_ = start(a_, from_block);
    to_ = start(b_, to_block);
    bool same_order = la.tile_order == lb.tile_order;
    std::array tiles{Dim{2 * layers(), half(la), half(lb)}, heads()};  // K and V of a layer follow each other as layers do
    if (same_order && la.block_tokens == lb.block_tokens && n == block_tokens()) {
      return emit_.nest(from_, to_, tiles, la.tile_bytes());
    }
    if (auto s = scale_bytes(la.dtype); s > 0)
      emit_.nest(from_ + la.element_bytes() + from_token * s, to_ + lb.element_bytes() + to_token * s, tiles, n * s);
    auto row = static_cast<uint64_t>(la.head_dim) * dtype_bytes(la.dtype);
    if (same_order && la.tile_order == TileOrder::kTokenMajor)
      return emit_.nest(from_ + from_token * row, to_ + to_token * row, tiles, n * row);
    keys(from_token, to_token, n);
    from_ += half(la);
    to_ += half(lb);
    values(from_token, to_token, n);
  }

 private:
  static uint64_t half(const KvLayout& l) { return l.layer_bytes() / 2; }
  uint64_t layers() const { return static_cast<uint64_t>(part_.layers); }
  uint64_t block_tokens() const { return static_cast<uint64_t>(a_.layout.block_tokens); }
  Dim heads() const { return {static_cast<uint64_t>(part_.heads), a_.layout.tile_bytes(), b_.layout.tile_bytes()}; }
  Dim layer_dim() const { return {layers(), a_.layout.layer_bytes(), b_.layout.layer_bytes()}; }
  uint64_t start(const KvShard& s, int32_t block) const {
    return static_cast<uint64_t>(block) * s.layout.block_bytes() +
           s.layout.k_offset(part_.layer_first - s.layer_first, part_.head_first - s.head_first);
  }
  void keys(uint64_t from_token, uint64_t to_token, uint64_t n) {
    auto two = 2 * dtype_bytes(a_.layout.dtype);
    Dim pairs{static_cast<uint64_t>(a_.layout.head_dim) / 2, sa_.k_pair, sb_.k_pair}, tokens{n, sa_.k_token, sb_.k_token};
    emit_.nest(from_ + from_token * sa_.k_token, to_ + to_token * sb_.k_token, std::array{layer_dim(), heads(), pairs, tokens},
               two);
  }
  // In pairs of tokens; a range may begin and end in the middle of one. Where both sides have pairs, blocks are even, so a token
  // has the same place in its pair on both.
  void values(uint64_t from_token, uint64_t to_token, uint64_t n) {
    if ((a_.layout.tile_order == TileOrder::kVnni ? from_token : to_token) % 2 == 1) {
      tokens(from_token++, to_token++, 1, 1);
      --n;
    }
    if (n >= 2) tokens(from_token, to_token, n / 2, 2);
    if (n % 2 == 1) tokens(from_token + n - 1, to_token + n - 1, 1, 1);
  }
  void tokens(uint64_t from_token, uint64_t to_token, uint64_t pairs, uint64_t of) {
    auto e = dtype_bytes(a_.layout.dtype);
    auto dims = static_cast<uint64_t>(a_.layout.head_dim), pair_bytes = 2 * dims * e;
    auto at = [&](uint64_t token, const KvShard& s) {
      return s.layout.tile_order == TileOrder::kVnni ? token / 2 * pair_bytes + token % 2 * e : token * dims * e;
    };
    Dim pair{pairs, pair_bytes, pair_bytes}, parity{of, sa_.v_parity, sb_.v_parity}, dim{dims, sa_.v_dim, sb_.v_dim};
    bool same = a_.layout.tile_order == b_.layout.tile_order;  // then the two tokens' elements lie side by side on both
    emit_.nest(from_ + at(from_token, a_), to_ + at(to_token, b_),
               std::array{layer_dim(), heads(), pair, same ? dim : parity, same ? parity : dim}, e);
  }

  const KvShard &a_, &b_;
  const ShardPart& part_;
  Emitter& emit_;
  TileSteps sa_, sb_;
  uint64_t from_ = 0, to_ = 0;
};

bool holds(const BlockMap& map, int64_t first, int64_t n) {
  auto bt = map.shard.layout.block_tokens;
  return map.first_token >= 0 && map.first_token % bt == 0 && first >= map.first_token && n >= 0 &&
         first + n <= map.first_token + static_cast<int64_t>(map.blocks.size()) * bt;
}

}  // namespace

Result<> reshard(const BlockMap& from, const BlockMap& to, const ShardPart& part, int32_t first_token, int32_t n_tokens,
                 const CopyVisitor& visit) {
  if (!holds(from, first_token, n_tokens) || !holds(to, first_token, n_tokens))
    return fail(Code::kOutOfRange, "tokens [", first_token, ", ", int64_t{first_token} + n_tokens,
                ") are not in the blocks given");
  if (!covers(from.shard, part) || !covers(to.shard, part)) return fail(Code::kOutOfRange, "layers or heads that a rank lacks");
  Emitter emit(visit, part.source);
  Run run(from.shard, to.shard, part, emit);
  auto a = from.shard.layout.block_tokens, b = to.shard.layout.block_tokens;
  for (int64_t t = first_token, end = t + n_tokens; t < end;) {
    auto at = t - from.first_token, bt = t - to.first_token;
    auto n = std::min({end - t, a - at % a, b - bt % b});
    run(from.blocks[static_cast<size_t>(at / a)], to.blocks[static_cast<size_t>(bt / b)], static_cast<uint64_t>(at % a),
        static_cast<uint64_t>(bt % b), static_cast<uint64_t>(n));
    t += n;
  }
  return {};
}

Result<std::vector<Copy>> reshard(std::span<const BlockMap> sources, const BlockMap& to, int to_rank, int32_t first_token,
                                  int32_t n_tokens) {
  std::vector<KvShard> shards;
  for (const auto& s : sources) shards.push_back(s.shard);
  BATON_TRY(auto parts, parts_for(shards, to.shard, to_rank));
  std::vector<Copy> out;
  for (const auto& part : parts)
    BATON_OK(reshard(sources[part.source], to, part, first_token, n_tokens, [&](const Copy& c) { out.push_back(c); }));
  return out;
}

void run_copy(const Copy& c, const std::byte* from_pool, std::byte* to_pool) {
  const auto* from = from_pool + c.from;
  auto* to = to_pool + c.to;
  auto rows = [&](auto copy) {
    for (uint64_t i = 0; i < c.rows; ++i, from += c.from_stride, to += c.to_stride) copy();
  };
  switch (c.length) {  // single elements and pairs of another tile order: a constant size is one move
    case 1:
      return rows([&] { *to = *from; });
    case 2:
      return rows([&] { std::memcpy(to, from, 2); });
    case 4:
      return rows([&] { std::memcpy(to, from, 4); });
    case 8:
      return rows([&] { std::memcpy(to, from, 8); });
    default:
      return rows([&] { std::memcpy(to, from, c.length); });
  }
}

}  // namespace baton::kv
