#include "kv/shard.h"

#include <algorithm>

namespace baton::kv {
namespace {

constexpr int32_t kNumberMax = 1 << 16;

bool inside(int64_t first, int64_t n, int64_t outer_first, int64_t outer_n) {
  return first >= outer_first && first + n <= outer_first + outer_n;
}

bool same_ranges(const KvShard& a, const KvShard& b) {
  return a.layer_first == b.layer_first && a.head_first == b.head_first && a.layout.layers == b.layout.layers &&
         a.layout.kv_heads == b.layout.kv_heads;
}

// layers and heads 0: they do not meet.
ShardPart meet(const KvShard& a, const KvShard& b) {
  ShardPart p;
  p.layer_first = std::max(a.layer_first, b.layer_first);
  p.layers = std::min(a.layer_first + a.layout.layers, b.layer_first + b.layout.layers) - p.layer_first;
  p.head_first = std::max(a.head_first, b.head_first);
  p.heads = std::min(a.head_first + a.layout.kv_heads, b.head_first + b.layout.kv_heads) - p.head_first;
  return p.layers > 0 && p.heads > 0 ? p : ShardPart{};
}

bool overlap(const ShardPart& a, const ShardPart& b) {
  return a.layer_first < b.layer_first + b.layers && b.layer_first < a.layer_first + a.layers &&
         a.head_first < b.head_first + b.heads && b.head_first < a.head_first + a.heads;
}

}  // namespace

std::string KvShard::id() const {
  if (*this == whole_shard(layout)) return layout.id();
  return cat(layout.id(), "@l", layer_first, "/", model_layers, "-h", head_first, "/", model_heads);
}

KvShard whole_shard(const KvLayout& model) {
  return {.layout = model, .model_layers = model.layers, .model_heads = model.kv_heads};
}

Result<std::vector<KvShard>> shards_of(const KvLayout& model, int tp, int pp) {
  if (tp < 1 || pp < 1 || pp > model.layers || tp > kNumberMax ||
      (tp <= model.kv_heads ? model.kv_heads % tp : tp % std::max(1, model.kv_heads)) != 0)
    return fail(Code::kInvalidArgument, model.kv_heads, " KV heads and ", model.layers, " layers cannot be dealt to ", tp, " x ",
                pp, " ranks");
  std::vector<KvShard> out;
  for (int stage = 0, layer = 0; stage < pp; ++stage) {
    int layers = model.layers / pp + (stage < model.layers % pp ? 1 : 0);
    for (int r = 0; r < tp; ++r) {
      auto shard = whole_shard(model);
      shard.layout.layers = layers;
      shard.layer_first = layer;
      shard.layout.kv_heads = std::max(1, model.kv_heads / tp);
      shard.head_first = static_cast<int32_t>(int64_t{r} * model.kv_heads / tp);
      out.push_back(shard);
    }
    layer += layers;
  }
  return out;
}

Result<> check(const KvShard& s) {
  const auto& l = s.layout;
  for (auto n : {l.layers, l.kv_heads, l.head_dim, l.block_tokens, s.model_layers, s.model_heads}) {
    if (n < 1 || n >= kNumberMax) return fail(Code::kOutOfRange, "a KV layout with a dimension of ", n);
  }
  if (s.layer_first < 0 || s.head_first < 0 || s.layer_first >= kNumberMax || s.head_first >= kNumberMax ||
      !inside(s.layer_first, l.layers, 0, s.model_layers) || !inside(s.head_first, l.kv_heads, 0, s.model_heads))
    return fail(Code::kOutOfRange, "layers or heads outside the model");
  if (l.dtype > KvDtype::kE4m3Scaled || l.tile_order > TileOrder::kVnni) return fail(Code::kInvalidArgument, "unknown dtype or order");
  if (l.tile_order == TileOrder::kVnni && (l.block_tokens % 2 != 0 || l.head_dim % 2 != 0))
    return fail(Code::kInvalidArgument, "pairs need even blocks and heads");
  return {};
}

Result<> check_same_model(const KvShard& a, const KvShard& b) {
  if (a.model_layers != b.model_layers || a.model_heads != b.model_heads || a.layout.head_dim != b.layout.head_dim ||
      a.layout.dtype != b.layout.dtype)
    return fail(Code::kFailedPrecondition, "KV layout ", a.id(), " cannot be made of ", b.id());
  return {};
}

bool covers(const KvShard& shard, const ShardPart& part) {
  return part.layers > 0 && part.heads > 0 && inside(part.layer_first, part.layers, shard.layer_first, shard.layout.layers) &&
         inside(part.head_first, part.heads, shard.head_first, shard.layout.kv_heads);
}

Result<std::vector<ShardPart>> parts_for(std::span<const KvShard> sources, const KvShard& to, int rank) {
  std::vector<ShardPart> out;
  int64_t found = 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    BATON_OK(check_same_model(to, sources[i]));
    auto part = meet(sources[i], to);
    if (part.layers == 0) continue;
    std::vector<size_t> replicas;
    for (size_t j = 0; j < sources.size(); ++j) {
      if (same_ranges(sources[i], sources[j])) replicas.push_back(j);
    }
    if (replicas.front() != i) continue;  // dealt with at the first of them
    part.source = replicas[static_cast<size_t>(rank) % replicas.size()];
    for (const auto& other : out) {
      if (overlap(part, other)) return fail(Code::kInvalidArgument, "ranks ", other.source, " and ", part.source, " overlap");
    }
    found += int64_t{part.layers} * part.heads;
    out.push_back(part);
  }
  if (found != int64_t{to.layout.layers} * to.layout.kv_heads)
    return fail(Code::kFailedPrecondition, "the ranks given do not hold all of ", to.id());
  return out;
}

Result<int> readers_of(std::span<const KvShard> sources, size_t source, std::span<const KvShard> to) {
  int n = 0;
  for (size_t r = 0; r < to.size(); ++r) {
    BATON_TRY(auto parts, parts_for(sources, to[r], static_cast<int>(r)));
    n += std::any_of(parts.begin(), parts.end(), [&](const auto& p) { return p.source == source; }) ? 1 : 0;
  }
  return n;
}

}  // namespace baton::kv
