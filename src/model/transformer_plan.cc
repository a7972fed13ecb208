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

// How far ahead of what it reads a member asks: less than a core's second cache holds beside what is in use.
constexpr size_t kAskedBytes = 384 << 10;
// Blocks whose keys are asked for before their values.
constexpr size_t kBlocksTogether = 16;

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

// What each member reads in a slice: its own panels, in the order of forward(), and in each layer some of the cache, which
// begin_reading() knows. Weights may come again after a sleep.
void Transformer::plan_reads() {
  for (int m = 0; m < pool_.size(); ++m) {
    Member& member = members_[static_cast<size_t>(m)];
    member.weights.clear();
    member.passages.clear();
    const auto add = [&](const tensor::Panels& panels, Share part) {
      const size_t each = panels.panel_bytes(), first = static_cast<size_t>(part.begin),
                   n = static_cast<size_t>(part.end) - first;
      if (n == 0) return;
      member.weights.push_back({.chunks = &panels.data, .n = 1, .bytes = n * each, .offset = first * each});
      ++member.passages.back().n;
      member.passages.back().bytes += n * each;
    };
    const auto own = [&](int64_t panels, int64_t unit, auto add_part) {
      member.passages.push_back({});
      pool_.own(m, panels, add_part, unit);
    };
    const auto all_of = [&](const tensor::Panels& panels) { own(panels.panels(), 1, [&](Share part) { add(panels, part); }); };
    for (const LayerWeights& w : weights_.layers) {
      own(w.q.panels() + w.k.panels() + w.v.panels(), heads_whole(), [&](Share part) {
        const auto [q, k, v] = shares_of(w, part);
        add(w.q, q);
        add(w.k, k);
        add(w.v, v);
      });
      member.passages.push_back({});
      all_of(w.o);
      own(w.gate.panels(), kRecordPanels, [&](Share part) {
        near_shares(part, [&](Share some) {
          add(w.gate, some);
          add(w.up, some);
        });
      });
      all_of(w.down);
    }
    all_of(weights_.lm_head);
    const tensor::Stretch* next = member.weights.data();
    for (tensor::Passage& passage : member.passages) {
      passage.stretches = next;
      next += passage.n;
    }
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
  slice_.split =
      slice_.spans_max > 1 && pool_.size() > 1 && window.items.size() < kItemsPerMember * static_cast<size_t>(pool_.size());
  if (slice_.split) split_items(window);
  window.reads.resize(members_.size());
}

// What the member's own items read in layer 0: of each block the head's tile of K and that of V. Of ranks nothing.
void Transformer::plan_cache_reads(Window& window, int member) {
  Window::CacheReads& reads = window.reads[static_cast<size_t>(member)];
  reads.blocks.clear();
  reads.stretches.clear();
  if (ranks_) return;
  const auto for_items = [&](auto f) {  // f(item, blocks of its sequence)
    pool_.own(member, static_cast<int64_t>(window.items.size()), [&](Share part) {
      for (int64_t k = part.begin; k < part.end; ++k) {
        const Item& item = window.items[static_cast<size_t>(k)];
        const int64_t seen = slice_.rows[static_cast<size_t>(item.first_row + item.rows - 1)].position + 1;
        const int64_t end = std::min(item.span_end * tensor::kSpanTokens, seen);
        f(item, Share{item.span_begin * tensor::kSpanTokens / layout_.block_tokens,
                      (end + layout_.block_tokens - 1) / layout_.block_tokens});
      }
    });
  };
  size_t blocks = 0;
  for_items([&](const Item&, Share range) { blocks += static_cast<size_t>(range.end - range.begin); });
  reads.blocks.reserve(blocks);  // stretches point into it
  for_items([&](const Item& item, Share range) {
    const size_t first = reads.blocks.size();
    const int32_t* table = slice_.rows[static_cast<size_t>(item.first_row)].blocks;
    for (int64_t b = range.begin; b < range.end; ++b)
      reads.blocks.push_back(kv_.data() + static_cast<size_t>(table[b]) * layout_.block_bytes());
    for (size_t at = first; at < reads.blocks.size(); at += kBlocksTogether) {
      tensor::Stretch stretch{.chunks = reads.blocks.data() + at,
                              .n = std::min(kBlocksTogether, reads.blocks.size() - at),
                              .bytes = layout_.tile_bytes(),
                              .offset = layout_.k_offset(0, item.kv_head)};
      reads.stretches.push_back(stretch);
      stretch.offset = layout_.v_offset(0, item.kv_head);
      reads.stretches.push_back(stretch);
    }
  });
}

// Activations as this member multiplies them: its kernels ask for what it reads later.
Activations Transformer::asking(Activations view, const Hand& hand) {
  view.ahead = &members_[static_cast<size_t>(hand.index())].ahead;
  return view;
}

// From the first layer on: what the member reads of the cache is known now.
void Transformer::begin_reading(const Hand& hand) {
  Member& mine = members_[static_cast<size_t>(hand.index())];
  mine.ahead = {};
  if (!slice_.asks) return;
  for (Window& window : slice_.windows) plan_cache_reads(window, hand.index());
  for (int i = 0; i < config().layers; ++i) {
    const Window& window = slice_.windows[layers_[static_cast<size_t>(i)].window];
    const Window::CacheReads& reads = window.reads[static_cast<size_t>(hand.index())];
    mine.passages[static_cast<size_t>(i) * kReadsOfLayer + kReadsCache] = {
        .stretches = reads.stretches.data(),
        .n = reads.stretches.size(),
        .offset = layout_.k_offset(i, 0),
        .bytes = 2 * reads.blocks.size() * layout_.tile_bytes()};
  }
  size_t begin = 0;
  for (tensor::Passage& passage : mine.passages) {
    passage.begin = begin;
    begin += passage.bytes;
  }
  mine.ahead = {.passages = mine.passages.data(), .n = mine.passages.size()};
}

// The member now comes to these reads: what was not asked for before them is not any more.
void Transformer::read_from(Member& mine, int layer, Reads what) {
  tensor::Ahead& ahead = mine.ahead;
  if (ahead.n == 0) return;
  const size_t passage = static_cast<size_t>(layer) * kReadsOfLayer + what, begin = mine.passages[passage].begin;
  if (ahead.asked < begin) ahead.passage = passage, ahead.stretch = ahead.chunk = ahead.within = 0, ahead.asked = begin;
  ahead.limit = begin + kAskedBytes;
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
