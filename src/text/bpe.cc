#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>

#include "base/json.h"
#include "text/unicode.h"
#include "text/word_cache.h"

namespace baton::text {
namespace {

// Up to this many symbols a linear search for the best pair beats a heap.
constexpr size_t kShortWord = 32;
constexpr uint32_t kNoRank = ~0u;

// A possible merge in the heap. Stale if the symbols at `left` have changed since: a symbol only ever grows, so its id tells.
struct Candidate {
  uint32_t rank;
  uint32_t left;
  TokenId left_id, right_id, merged_id;
  bool operator>(const Candidate& o) const { return rank != o.rank ? rank > o.rank : left > o.left; }
};

struct Node {
  TokenId id;
  int32_t prev, next;  // -1: none
};

}  // namespace

MergeTable::MergeTable(size_t merges) {
  size_t capacity = std::bit_ceil(std::max<size_t>(16, merges * 2));
  mask_ = capacity - 1;
  shift_ = 64 - std::countr_zero(capacity);
  slots_.assign(capacity, Slot{kEmpty, {}});
}

void MergeTable::put(TokenId left, TokenId right, Merge merge) {
  uint64_t k = key(left, right);
  size_t i = slot(k);
  while (slots_[i].key != kEmpty && slots_[i].key != k) i = (i + 1) & mask_;
  slots_[i] = {k, merge};
}

Bpe::Bpe(BpeConfig config) : config_(std::move(config)), table_(config_.merges.size()), cache_(std::make_unique<WordCache>()) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (size_t b = 0; b < byte_ids_.size(); ++b) {
    std::string name(1, static_cast<char>(b));
    if (!config_.byte_level) name = cat("<0x", kHex[b >> 4], kHex[b & 15], ">");
    auto it = config_.vocabulary.find(name);
    byte_ids_[b] = it == config_.vocabulary.end() ? -1 : it->second;
  }
}

Bpe::~Bpe() = default;

Result<std::unique_ptr<Bpe>> Bpe::build(BpeConfig config) {
  std::unique_ptr<Bpe> bpe(new Bpe(std::move(config)));
  auto id_of = [&](std::string_view s) -> TokenId {
    auto it = bpe->config_.vocabulary.find(s);
    return it == bpe->config_.vocabulary.end() ? -1 : it->second;
  };
  uint32_t at = 0;
  for (auto& [left, right] : bpe->config_.merges) {
    TokenId l = id_of(left), r = id_of(right), merged = id_of(left + right);
    if (l < 0 || r < 0 || merged < 0) {
      const std::string missing = l < 0 ? left : r < 0 ? right : left + right;
      return fail(Code::kInvalidArgument, "merge ", at, " needs the token ", json_string(replace_invalid_utf8(missing)),
                  ", which is not in the vocabulary");
    }
    bpe->table_.put(l, r, {bpe->config_.ranks.empty() ? at : bpe->config_.ranks[at], merged});
    ++at;
  }
  bpe->config_.merges = {};  // the table has them
  return bpe;
}

void Bpe::unknown_symbol(std::vector<TokenId>& out) const {
  if (config_.unknown >= 0) out.push_back(config_.unknown);
}

void Bpe::symbols_of(std::string_view word, std::vector<TokenId>& out) const {
  if (config_.byte_level) {
    for (char c : word) {
      TokenId id = byte_ids_[static_cast<unsigned char>(c)];
      if (id >= 0) {
        out.push_back(id);
      } else {
        unknown_symbol(out);
      }
    }
    return;
  }
  bool after_unknown = false;
  for (size_t i = 0; i < word.size();) {
    std::string_view character = word.substr(i, code_point_at(word, i).length);
    i += character.size();
    if (auto it = config_.vocabulary.find(character); it != config_.vocabulary.end()) {
      out.push_back(it->second);
      after_unknown = false;
      continue;
    }
    auto byte_id = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
    if (config_.byte_fallback && std::ranges::all_of(character, [&](char c) { return byte_id(c) >= 0; })) {
      for (char c : character) out.push_back(byte_id(c));
      after_unknown = false;
      continue;
    }
    if (!(after_unknown && config_.fuse_unknown)) unknown_symbol(out);
    after_unknown = true;
  }
}

void Bpe::encode(std::string_view word, std::vector<TokenId>& out) const {
  if (word.empty()) return;
  bool cacheable = word.size() <= WordCache::kWordBytesMax;
  if (cacheable && cache_->get(word, out)) return;
  size_t from = out.size();
  if (auto it = config_.ignore_merges ? config_.vocabulary.find(word) : config_.vocabulary.end();
      it != config_.vocabulary.end()) {
    out.push_back(it->second);
  } else {
    symbols_of(word, out);
    if (out.size() - from <= kShortWord) {
      merge_short(out, from);
    } else {
      merge_long(out, from);
    }
  }
  if (cacheable) cache_->put(word, std::span(out).subspan(from));
}

void Bpe::merge_short(std::vector<TokenId>& ids, size_t from) const {
  TokenId* id = ids.data() + from;
  size_t n = ids.size() - from;
  MergeTable::Merge merges[kShortWord];
  auto look_up = [&](size_t i) {
    const MergeTable::Merge* m = i + 1 < n ? table_.find(id[i], id[i + 1]) : nullptr;
    merges[i] = m != nullptr ? *m : MergeTable::Merge{kNoRank, -1};
  };
  for (size_t i = 0; i < n; ++i) look_up(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoRank) break;
    id[best] = merges[best].id;
    std::copy(id + best + 2, id + n, id + best + 1);
    std::copy(merges + best + 2, merges + n, merges + best + 1);
    --n;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids.resize(from + n);
}

void Bpe::merge_long(std::vector<TokenId>& ids, size_t from) const {
  auto n = static_cast<int32_t>(ids.size() - from);
  std::vector<Node> nodes(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i)
    nodes[static_cast<size_t>(i)] = {ids[from + static_cast<size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1};
  auto node = [&](int32_t i) -> Node& { return nodes[static_cast<size_t>(i)]; };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  auto push = [&](int32_t left) {
    if (left < 0 || node(left).next < 0) return;
    TokenId l = node(left).id, r = node(node(left).next).id;
    if (auto* m = table_.find(l, r)) heap.push({m->rank, static_cast<uint32_t>(left), l, r, m->id});
  };
  for (int32_t i = 0; i < n; ++i) push(i);
  while (!heap.empty()) {
    Candidate c = heap.top();
    heap.pop();
    auto left = static_cast<int32_t>(c.left);
    int32_t right = node(left).next;
    if (node(left).id != c.left_id || right < 0 || node(right).id != c.right_id) continue;
    node(left).id = c.merged_id;
    node(left).next = node(right).next;
    node(right).id = -1;  // gone: no candidate that starts here holds any more
    if (node(left).next >= 0) node(node(left).next).prev = left;
    push(left);
    push(node(left).prev);
  }
  size_t at = from;
  for (int32_t i = 0; i >= 0 && n > 0; i = node(i).next) ids[at++] = node(i).id;
  ids.resize(at);
}

}  // namespace baton::text
