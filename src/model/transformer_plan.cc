// What the transformer's layers have in common, found once, and how a slice's attention is cut into items.
#include <algorithm>
#include <functional>

#include "model/transformer.h"

namespace baton::model {

using tensor::Activations;
using tensor::Share;

namespace {

// Fewer attention items than this a member, and long contexts are split into spans to keep everyone busy.
constexpr size_t kItemsPerMember = 4;

// Rows of a slice whose linear layers compute longer than they wait for their weights, and that are not yet a prompt: what they
// attend to is asked for ahead.
constexpr size_t kAheadRowsMin = 6, kAheadRowsMax = 64;
constexpr size_t kPieceBytes = 4096;
constexpr size_t kAheadBytes = 16 << 20;  // of a layer: what a last-level cache can hold beside the weights that pass through it

// What one member asks for.
tensor::Ahead share_of(const std::vector<const std::byte*>& chunks, int member, int members, size_t bytes, size_t offset) {
  const Share part = tensor::share(static_cast<int64_t>(chunks.size()), member, members);
  return {
      .chunks = chunks.data() + part.begin, .n = static_cast<size_t>(part.end - part.begin), .bytes = bytes, .offset = offset};
}

}  // namespace

// Layers that see as far back share a plan of attention, layers that turn alike their cosines.
void Transformer::plan_layers(int32_t context) {
  const ModelConfig& c = config();
  std::vector<LayerRope> ropes;
  const auto place = [](auto& list, const auto& value, const auto& key, auto make) {
    const auto at = std::ranges::find(list, value, key);
    const auto index = static_cast<size_t>(at - list.begin());
    if (at == list.end()) list.push_back(make());
    return index;
  };
  for (int i = 0; i < c.layers; ++i) {
    const LayerKind kind = c.layer_kind(i);
    Layer layer;
    layer.window = place(slice_.windows, kind.window, &Window::tokens, [&] {
      Window window;
      window.tokens = kind.window;
      return window;
    });
    layer.rope = place(ropes, kind.rope, std::identity{}, [&] { return kind.rope; });
    layers_.push_back(layer);
  }
  for (const LayerRope kind : ropes) ropes_.push_back(make_rope(c, kind, context));
}

// What ask_for_weights() asks for, of large models the beginning; weights may come again after a sleep.
void Transformer::plan_weights() {
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].weights.clear();
    const LayerWeights& w = weights_.layers[i];
    for (const tensor::Panels* panels : {&w.o, &w.gate, &w.up, &w.down})
      for (size_t at = 0; panels->data && at + kPieceBytes <= panels->bytes(); at += kPieceBytes)
        if (layers_[i].weights.size() < kAheadBytes / kPieceBytes) layers_[i].weights.push_back(panels->data + at);
  }
}

// Items of a kind of layer: for each run of consecutive positions of one block table, kv heads times tiles of queries.
// Consecutive items go to one member: tiles of a head find its keys in cache, and heads of a decoded sequence lie side by side in
// every block.
void Transformer::plan_items(Window& window) {
  const ModelConfig& c = part_;
  const std::vector<Row>& rows = slice_.rows;
  const int32_t tile = tensor::kAttendRowsMax / (c.heads / c.kv_heads);
  const auto n = static_cast<int32_t>(rows.size());
  window.items.clear();
  slice_.spans_max = 0;  // the same for every window
  for (int32_t first = 0, end; first < n; first = end) {
    for (end = first + 1; end < n && rows[end].blocks == rows[first].blocks && rows[end].position == rows[end - 1].position + 1;)
      ++end;
    for (int32_t h = 0; h < c.kv_heads; ++h) {
      for (int32_t at = first; at < end; at += tile) {
        const int32_t count = std::min(tile, end - at);
        const int32_t low = window.tokens > 0 ? std::max(0, rows[at].position + 1 - window.tokens) : 0;
        const int64_t spans = rows[at + count - 1].position / tensor::kSpanTokens + 1;
        window.items.push_back({at, count, h, low / tensor::kSpanTokens, spans});
        slice_.spans_max = std::max(slice_.spans_max, spans);
      }
    }
  }
  plan_ahead(window);
  slice_.split =
      slice_.spans_max > 1 && pool_.size() > 1 && window.items.size() < kItemsPerMember * static_cast<size_t>(pool_.size());
  if (slice_.split) split_items(window);
}

// Blocks that the window's items read. Of ranks nothing: each reads some heads of a block.
void Transformer::plan_ahead(Window& window) {
  window.blocks.clear();
  if (ranks_ || slice_.rows.size() < kAheadRowsMin || slice_.rows.size() > kAheadRowsMax) return;
  const size_t most = kAheadBytes / layout_.layer_bytes();
  for (const Item& item : window.items) {
    if (item.kv_head != 0) continue;
    const Row& row = slice_.rows[static_cast<size_t>(item.first_row)];
    const int64_t first = item.span_begin * tensor::kSpanTokens / layout_.block_tokens,
                  last = row.position / layout_.block_tokens;
    for (int64_t b = first; b <= last && window.blocks.size() < most; ++b)
      window.blocks.push_back(kv_.data() + static_cast<size_t>(row.blocks[b]) * layout_.block_bytes());
  }
}

// Activations as this member multiplies them: its kernels ask for what it reads later.
Activations Transformer::asking(Activations view, const Hand& hand) {
  view.ahead = &members_[static_cast<size_t>(hand.index())].ahead;
  return view;
}

// From now on kernels ask for this member's share of what attention reads in `layer`.
void Transformer::ask_for_cache(Member& mine, const Hand& hand, int layer) {
  mine.ahead = {};
  if (layer == config().layers) return;
  const std::vector<const std::byte*>& blocks = slice_.windows[layers_[static_cast<size_t>(layer)].window].blocks;
  mine.ahead = share_of(blocks, hand.index(), pool_.size(), layout_.layer_bytes(), layout_.k_offset(layer, 0));
}
// ... of what the linear layers after attention multiply with.
void Transformer::ask_for_weights(Member& mine, const Hand& hand, int layer) {
  mine.ahead = {};
  if (slice_.windows[layers_[static_cast<size_t>(layer)].window].blocks.empty()) return;
  const std::vector<const std::byte*>& pieces = layers_[static_cast<size_t>(layer)].weights;
  mine.ahead = share_of(pieces, hand.index(), pool_.size(), kPieceBytes, 0);
}

// One item a span, and room for their partial states.
void Transformer::split_items(Window& window) {
  std::vector<Item> single;
  for (const Item& item : window.items) {
    for (int64_t s = item.span_begin; s < item.span_end; ++s) {
      single.push_back(item);
      single.back().span_begin = s;
      single.back().span_end = s + 1;
    }
  }
  window.items = std::move(single);
  const auto states = slice_.rows.size() * static_cast<size_t>(part_.heads * slice_.spans_max);
  std::fill_n(window.partials.resize(states), states, tensor::Partial{});
  partial_o_.resize(states * static_cast<size_t>(part_.head_dim));
}

}  // namespace baton::model
