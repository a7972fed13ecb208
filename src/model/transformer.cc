#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/families/family.h"
#include "model/limits.h"

namespace baton::model {

using tensor::Activations;
using tensor::Share;

namespace {

// Up to this many rows each member prepares all rows itself instead of sharing them and waiting.
constexpr int64_t kAloneRows = 2;
// Rows of a slice whose linear layers compute longer than they wait for their weights, and that are not yet a prompt.
constexpr int64_t kAskRowsMin = 6, kAskRowsMax = 64;

ModelConfig part_of(ModelConfig c, const RankShard& shard) {
  c.heads = shard.heads;
  c.kv_heads = shard.kv_heads;
  c.ffn = shard.columns(c.ffn).n;
  c.dense_ffn = shard.columns(c.dense_ffn).n;
  return c;
}

tensor::KvFormat cache_format(kv::KvDtype dtype) {
  switch (dtype) {
    case kv::KvDtype::kE4m3:
      return tensor::KvFormat::kE4m3;
    case kv::KvDtype::kE5m2:
      return tensor::KvFormat::kE5m2;
    case kv::KvDtype::kI8Scaled:
      return tensor::KvFormat::kI8Scaled;
    case kv::KvDtype::kE4m3Scaled:
      return tensor::KvFormat::kE4m3Scaled;
    default:  // make() let nothing else through
      return tensor::KvFormat::kBf16;
  }
}

kv::KvDtype cache_dtype(const LoadOptions& options, const ModelConfig& c) {
  return options.kv_dtype.value_or(c.fp8_cache ? kv::KvDtype::kE4m3 : kv::KvDtype::kBf16);
}

}  // namespace

Transformer::Transformer(std::unique_ptr<WeightFile> file, const LoadOptions& options, const tensor::Ops& ops,
                         const RankShard& shard)
    : file_(std::move(file)),
      ranks_(options.ranks),
      shard_(shard),
      part_(part_of(file_->config(), shard)),
      ops_(ops),
      kv_format_(cache_format(cache_dtype(options, part_))),
      cache_(ops.of(kv_format_)),
      pool_(options.threads, options.pin_threads),
      lora_(ops) {
  const ModelConfig& c = file_->config();
  layout_ = {.layers = c.layers,
             .kv_heads = c.kv_heads,
             .head_dim = c.head_dim,
             .block_tokens = options.block_tokens,
             .dtype = cache_dtype(options, c),
             .tile_order = ops_.kv_pairs ? kv::TileOrder::kVnni : kv::TileOrder::kTokenMajor};
  tokens_ = static_cast<size_t>(c.vocab);
  if (const WeightFile::Vocab* vocab = file_->gguf_vocab()) tokens_ = std::min(tokens_, vocab->tokens.size());
  attention_scale_ = c.attention_scale > 0 ? c.attention_scale : 1.f / std::sqrt(static_cast<float>(c.head_dim));
  plan_layers(options.context > 0 ? options.context : c.context);
  members_.resize(static_cast<size_t>(pool_.size()));
  for (Member& m : members_) {
    m.attend_scratch.resize(tensor::attend_scratch_bytes());
    m.o.resize(static_cast<size_t>(tensor::kAttendRowsMax * c.head_dim));
    m.row.resize(static_cast<size_t>(std::max(c.hidden, c.heads * c.head_dim)));
    m.activations.resize(kAloneRows, std::max({c.hidden, c.heads * c.head_dim, c.ffn, c.dense_ffn}));
  }
}

Result<std::unique_ptr<Model>> Transformer::make(std::unique_ptr<WeightFile> file, const LoadOptions& options) {
  const ModelConfig& c = file->config();
  if (!find_family(c.family))
    return fail(Code::kUnimplemented, "model family \"", c.family, "\" is not supported; supported: ", known_gguf_families());
  BATON_OK(check_config(c));
  if (c.rotated() % 16 != 0)
    return fail(Code::kUnimplemented, "rotating ", c.rotated(), " dims of a head is not supported: it must be a multiple of 16");
  if (c.head_dim % 16 != 0 || c.head_dim <= 0 || c.head_dim > tensor::kHeadDimMax || c.kv_heads <= 0 ||
      c.heads % c.kv_heads != 0 || c.heads / c.kv_heads > tensor::kAttendRowsMax)
    return fail(Code::kUnimplemented, "heads ", c.heads, " x ", c.head_dim, " over ", c.kv_heads,
                " kv heads are not supported: head_dim must be a multiple of 16 up to ", tensor::kHeadDimMax,
                " and heads at most ", tensor::kAttendRowsMax, " times kv heads");
  if (options.block_tokens <= 0 || options.block_tokens % 16 != 0)
    return fail(Code::kInvalidArgument, "block size ", options.block_tokens, " is not supported: it must be a multiple of 16");
  if (options.kv_dtype == kv::KvDtype::kF16 || options.kv_dtype == kv::KvDtype::kF32)
    return fail(Code::kUnimplemented, "a KV cache of 16-bit or 32-bit IEEE floats is not supported: it is bf16, or of 8 bits");
  BATON_TRY(const tensor::Ops* ops, tensor::find_ops(options.isa));
  const RankGroup* ranks = options.ranks;
  BATON_TRY(const RankShard shard, shard_of(c, ranks ? ranks->rank() : 0, ranks ? ranks->ranks() : 1));
  std::unique_ptr<Transformer> model(new Transformer(std::move(file), options, *ops, shard));
  model->context_ = options.context > 0 ? options.context : model->config().context;
  model->fingerprint_ = weights_fingerprint(*model->file_, model->context_);
  BATON_OK(model->load_weights(options.progress));
  return model;
}

Result<> Transformer::load_weights(const std::function<void(double)>& progress) {
  BATON_TRY(weights_, pack_weights(*file_, shard_, pool_, progress));
  step_bytes_ = weights_.step_bytes;
  for (LayerWeights& layer : weights_.layers)
    if (kv_format_ != tensor::KvFormat::kE4m3) layer.k_scale = layer.v_scale = 1;  // what the others hold is of its own scale
  plan_reads();
  return {};
}

Result<> Transformer::keep_weights(bool keep) {
  if (keep == !weights_.layers.empty()) return {};
  if (!keep) {
    weights_ = {};
    return {};
  }
  if (weights_fingerprint(*file_, context_) != fingerprint_)
    return fail(Code::kInternal, "the file of the weights was overwritten: it is not what was loaded");
  return load_weights({});
}

Result<> Transformer::bind_kv(std::span<std::byte> pool) {
  if (reinterpret_cast<uintptr_t>(pool.data()) % 64 != 0 || pool.size() < layout_.block_bytes())
    return fail(Code::kInvalidArgument, "kv pool of ", pool.size(),
                " bytes must be 64-byte aligned and hold at least one block of ", layout_.block_bytes());
  kv_ = pool;
  return {};
}

std::string Transformer::backend() const {
  return cat("cpu ", ops_.name, ", ", pool_.size(), pool_.size() == 1 ? " thread" : " threads",
             ranks_ ? cat(" in each of ", shard_.ranks, " ranks") : std::string());
}

void Transformer::share_out(int64_t n, const std::function<void(int64_t, int)>& f) {
  pool_.run([&](Hand& hand) {
    hand.split(n, [&](tensor::Share some) {
      for (int64_t i = some.begin; i < some.end; ++i) f(i, hand.index());
    });
  });
}

Result<> Transformer::check(std::span<const SeqInput> seqs) const {
  if (weights_.layers.empty()) return fail(Code::kFailedPrecondition, "the weights were given back");
  const auto pool_blocks = static_cast<int64_t>(kv_.size() / layout_.block_bytes());
  for (size_t i = 0; i < seqs.size(); ++i) {
    const SeqInput& s = seqs[i];
    const int64_t end = s.first_position + static_cast<int64_t>(s.tokens.size());
    if (s.first_position < 0 || static_cast<int64_t>(s.blocks.size()) * layout_.block_tokens < end)
      return fail(Code::kInvalidArgument, "sequence ", i, ": ", s.blocks.size(), " blocks do not cover positions ",
                  s.first_position, " to ", end);
    for (const int32_t token : s.tokens)
      if (token < 0 || token >= config().vocab)
        return fail(Code::kInvalidArgument, "sequence ", i, ": token ", token, " is outside the vocabulary of ", config().vocab);
    for (const int32_t block : s.blocks)
      if (block < 0 || block >= pool_blocks)
        return fail(Code::kInvalidArgument, "sequence ", i, ": block ", block, " is outside the pool of ", pool_blocks);
  }
  return {};
}

Result<std::span<const float>> Transformer::step(std::span<const SeqInput> seqs) {
  BATON_OK(check(seqs));
  const bool empty = std::ranges::all_of(seqs, [](const SeqInput& s) { return s.tokens.empty(); });
  if (ranks_ && shard_.rank == 0 && !empty) BATON_OK(ranks_->give(RankGroup::Order::kStep, seqs));
  size_t rows = 0;
  for (const SeqInput& s : seqs) rows += s.all_logits ? s.tokens.size() : s.last_logits && !s.tokens.empty() ? 1 : 0;
  if (shard_.rank > 0) rows = 0;  // what they compute of the logits goes to rank 0
  const auto vocab = static_cast<size_t>(config().vocab);
  float* const logits = logits_.resize(rows * vocab);
  hidden_values_ = 0;
  for (const SeqInput& s : seqs) hidden_values_ += s.hidden ? s.tokens.size() * static_cast<size_t>(config().hidden) : 0;
  slice_.hidden = hidden_.resize(hidden_values_);
  peaks_.clear();
  slice_.hidden_rows.clear();
  slice_.rows.clear();
  slice_.logit_rows.clear();
  slice_.logits = logits;
  for (const SeqInput& s : seqs) {
    for (size_t i = 0; i < s.tokens.size(); ++i) {
      if (s.all_logits || (s.last_logits && i + 1 == s.tokens.size()))
        slice_.logit_rows.push_back(static_cast<int32_t>(slice_.rows.size()));
      if (s.hidden) slice_.hidden_rows.push_back(static_cast<int32_t>(slice_.rows.size()));
      if (s.lora) lora_.add(slice_.rows.size(), *s.lora);
      slice_.rows.push_back({s.tokens[i], s.first_position + static_cast<int32_t>(i), s.blocks.data()});
      if (slice_.rows.size() == kSliceTokens) run_slice();
    }
  }
  if (!slice_.rows.empty()) run_slice();
  if (ranks_ && ranks_->failed()) return fail(Code::kUnavailable, "a rank of the model was lost");
  for (size_t r = 0; r < rows; ++r)  // rows of the embedding that are no token
    std::fill(logits + r * vocab + tokens_, logits + (r + 1) * vocab, -std::numeric_limits<float>::infinity());
  return std::span<const float>(logits, rows * vocab);
}

void Transformer::run_slice() {
  const ModelConfig& c = part_;
  const auto n = static_cast<int64_t>(slice_.rows.size());
  slice_.asks = ops_.asks_ahead && n >= kAskRowsMin && n <= kAskRowsMax;
  for (Window& window : slice_.windows) plan_items(window);
  x_.resize(static_cast<size_t>(n * c.hidden));
  qkv_.resize(static_cast<size_t>(n * (c.heads + 2 * c.kv_heads) * c.head_dim));
  q_.resize(static_cast<size_t>(n * c.heads * c.head_dim));
  attended_.resize(static_cast<size_t>(n * c.heads * c.head_dim));
  gate_.resize(static_cast<size_t>(n * std::max(c.ffn, c.dense_ffn)));
  up_.resize(static_cast<size_t>(n * std::max(c.ffn, c.dense_ffn)));
  const size_t angles = ropes_.size() * static_cast<size_t>(n * c.head_dim / 2);
  cosine_.resize(angles);
  sine_.resize(angles);
  if (c.post_norms || c.o_bias || ranks_) branch_.resize(static_cast<size_t>(n * c.hidden));
  if (c.experts > 0) resize_mixture(n);
  if (n > kAloneRows || c.experts > 0) activations_.resize(n, std::max({c.hidden, c.heads * c.head_dim, c.ffn, c.dense_ffn}));
  if (n > kAloneRows) gated_.resize(n, std::max(c.ffn, c.dense_ffn));
  lora_.begin(slice_.rows.size(), c.experts > 0 ? static_cast<size_t>(mixture_.slots_max) : 0);
  const size_t wanted = slice_.logit_rows.size();
  for (Member& member : members_) member.peaks.assign(wanted, {});
  pool_.run([this](Hand& hand) { forward(hand); });
  lora_.end();
  if (shard_.rank == 0) {
    slice_.logits += wanted * static_cast<size_t>(c.vocab);
    for (size_t r = 0; r < wanted; ++r) {
      LogitPeak& all = peaks_.emplace_back();
      for (const Member& member : members_) all.join(member.peaks[r]);
    }
  }
  slice_.hidden += slice_.hidden_rows.size() * static_cast<size_t>(c.hidden);
  slice_.rows.clear();
  slice_.logit_rows.clear();
  slice_.hidden_rows.clear();
}

// A linear layer's input: a function that gives the prepared activations to a part of the next phase. values(r): row r's `cols`
// floats, possibly in the member's `row` memory. made: where an earlier phase has prepared all of it.
template <class RowValues>
auto Transformer::input(Hand& hand, int64_t rows, int64_t cols, unsigned forms, RowValues values, ActivationBuffer* made) {
  const bool alone = !made && rows <= kAloneRows;
  Member& mine = members_[static_cast<size_t>(hand.index())];
  const Activations view = asking((made ? *made : alone ? mine.activations : activations_).view(cols), hand);
  const auto prepare = [=, this](Share part) {
    for (int64_t r = part.begin; r < part.end; ++r) ops_.prepare(values(r), 0, cols, forms, view, r);
  };
  if (!alone && !made) hand.split(rows, prepare, tensor::kGroupOfRows);
  return [=, ready = !alone]() mutable {
    // Only a member that holds a part may read what the phase before wrote: a later phase may be writing it again.
    if (!ready) prepare(Share{0, rows});
    ready = true;
    return view;
  };
}

// x += w . in, through a norm or a bias if the model has them there. in(): the prepared activations; turn: of what ranks join.
template <class In>
void Transformer::add_output(Hand& hand, int turn, const tensor::Panels& w, int layer, LoraTarget target,
                             const std::vector<float>& bias, const std::vector<float>& norm, In in) {
  const auto n = static_cast<int64_t>(slice_.rows.size());
  const int64_t hidden = part_.hidden;
  const bool direct = !ranks_ && bias.empty() && norm.empty();
  float* const to = direct ? x_.get() : ranks_ ? ranks_->part(turn, shard_.rank) : branch_.get();
  if (lora_.active()) lora_.shrink(hand, layer, target, 1, [&] { return in(); });
  hand.split(w.panels(), [&](Share part) {
    ops_.gemm(w, part.begin, part.end, in(), n, to, hidden, direct);
    lora_.expand(layer, target, part, to, hidden);
  });
  if (!direct) join_branch(hand, turn, bias, norm);
}

// What a branch gave, of all ranks, into x.
void Transformer::join_branch(Hand& hand, int turn, const std::vector<float>& bias, const std::vector<float>& norm) {
  if (ranks_) meet(hand);
  hand.split(static_cast<int64_t>(slice_.rows.size()), [&](Share rows) {
    if (ranks_) add_parts(turn, rows);
    add_branch(bias, norm, rows);
  });
}

void Transformer::forward(Hand& hand) {
  const ModelConfig& c = part_;
  Member& mine = members_[static_cast<size_t>(hand.index())];
  const auto n = static_cast<int64_t>(slice_.rows.size());
  const int64_t hidden = c.hidden, attended = int64_t{c.heads} * c.head_dim;
  const auto normed = [&](const std::vector<float>& weight, int64_t row) -> const float* {
    ops_.rms_norm(x_.get() + row * hidden, weight.data(), hidden, c.rms_eps, mine.row.get());
    return mine.row.get();
  };
  int sums = 0;  // of parts that ranks give, in this slice: two in each layer
  const auto add_to_x = [&](const tensor::Panels& panels, int layer, LoraTarget target, const std::vector<float>& bias,
                            const std::vector<float>& norm,
                            auto in) { add_output(hand, sums++ % 2, panels, layer, target, bias, norm, in); };
  begin_reading(hand);
  hand.split(n, [&](Share rows) { embed(rows); });
  for (int i = 0; i < c.layers; ++i) {
    const LayerWeights& w = weights_.layers[static_cast<size_t>(i)];
    const unsigned qkv_forms =
        form_for(w.q.kind) | (shard_.stores_kv ? form_for(w.k.kind) | form_for(w.v.kind) : 0) | lora_.forms();
    read_from(mine, i, kReadsQkv);
    auto normed_x = input(hand, n, hidden, qkv_forms, [&](int64_t r) { return normed(w.attn_norm, r); });
    if (lora_.active()) lora_.shrink(hand, i, LoraTarget::kQ, 3, [&] { return normed_x(); });
    hand.split(
        w.q.panels() + w.k.panels() + w.v.panels(), [&](Share panels) { attention_inputs(w, i, panels, normed_x()); },
        heads_whole());
    if (shard_.ranks > config().kv_heads) meet(hand);  // one of them has stored what we attend to
    // What many rows attended is made ready for O by whoever has it, if a kv head's part of a row is whole records.
    const bool ready = n > kAloneRows && !slice_.split && c.heads / c.kv_heads * c.head_dim % tensor::kRecordInputs == 0;
    const unsigned o_forms = ready ? form_for(w.o.kind) | lora_.forms() : 0;
    read_from(mine, i, kReadsCache);
    const std::vector<Item>& items = slice_.windows[layers_[static_cast<size_t>(i)].window].items;
    hand.split(static_cast<int64_t>(items.size()), [&](Share part) {
      for (int64_t k = part.begin; k < part.end; ++k) attend_item(items[static_cast<size_t>(k)], w, i, mine, o_forms);
    });
    read_from(mine, i, kReadsO);
    const auto attended_rows = [&](int64_t r) { return attended_row(r, w, i, mine); };
    add_to_x(w.o, i, LoraTarget::kO, w.o_bias, w.post_attn_norm,
             input(hand, n, attended, form_for(w.o.kind) | lora_.forms(), attended_rows, ready ? &activations_ : nullptr));
    if (c.sparse(i)) {
      mixture(hand, sums++ % 2, w, i);
      continue;
    }
    read_from(mine, i, kReadsFfn);
    auto normed_y = input(hand, n, hidden, form_for(w.gate.kind) | form_for(w.up.kind) | lora_.forms(),
                          [&](int64_t r) { return normed(w.ffn_norm, r); });
    if (lora_.active()) lora_.shrink(hand, i, LoraTarget::kGate, 2, [&] { return normed_y(); });
    const unsigned down_forms = form_for(w.down.kind) | lora_.forms();
    const int64_t ffn = c.ffn_of(i);
    ActivationBuffer* const gated = n > kAloneRows ? &gated_ : nullptr;  // many rows' columns go there as soon as they are made
    hand.split(
        w.gate.panels(),
        [&](Share panels) { feed_forward(w, i, panels, normed_y(), gated ? down_forms : 0, gated_.view(ffn)); }, kRecordPanels);
    read_from(mine, i, kReadsDown);
    add_to_x(w.down, i, LoraTarget::kDown, {}, w.post_ffn_norm,
             input(hand, n, ffn, down_forms, [&](int64_t r) -> const float* { return gate_.get() + r * ffn; }, gated));
  }
  read_out(hand);
}

// Hidden states and logits of the rows that are asked for.
void Transformer::read_out(Hand& hand) {
  const ModelConfig& c = part_;
  const int64_t hidden = c.hidden;
  Member& mine = members_[static_cast<size_t>(hand.index())];
  if (!slice_.hidden_rows.empty()) {
    hand.split(static_cast<int64_t>(slice_.hidden_rows.size()), [&](Share part) {
      for (int64_t r = part.begin; r < part.end; ++r) {
        const float* x = x_.get() + slice_.hidden_rows[static_cast<size_t>(r)] * hidden;
        ops_.rms_norm(x, weights_.norm.data(), hidden, c.rms_eps, slice_.hidden + r * hidden);
      }
    });
  }
  const auto wanted = static_cast<int64_t>(slice_.logit_rows.size());
  if (wanted == 0) return;
  const tensor::Panels& head = weights_.lm_head;
  read_from(mine, c.layers, kReadsQkv);
  auto last = input(hand, wanted, hidden, form_for(head.kind), [&](int64_t r) -> const float* {
    const float* x = x_.get() + slice_.logit_rows[static_cast<size_t>(r)] * hidden;
    ops_.rms_norm(x, weights_.norm.data(), hidden, c.rms_eps, mine.row.get());
    return mine.row.get();
  });
  float* const logits = shard_.rank > 0 ? ranks_->logits() + shard_.vocab_first : slice_.logits;
  hand.split(head.panels(), [&](Share part) {
    ops_.gemm(head, part.begin, part.end, last(), wanted, logits, c.vocab, false);
    const int64_t from = part.begin * tensor::kPanelRows, to = std::min<int64_t>(head.rows, part.end * tensor::kPanelRows);
    for (int64_t r = 0; r < wanted; ++r) {
      if (c.logit_soft_cap > 0) ops_.soft_cap(logits + r * c.vocab + from, to - from, c.logit_soft_cap);
      if (shard_.rank == 0) look(mine, r, {from, to});
    }
  });
  if (ranks_) meet(hand);
  if (ranks_ && shard_.rank == 0) {
    hand.split(wanted, [&](Share rows) {
      take_logits(rows);
      for (int64_t r = rows.begin; r < rows.end; ++r) look(mine, r, {shard_.vocab, c.vocab});
    });
  }
}

// Columns of a row of the slice's logits that have just been computed; those that are no token say nothing.
void Transformer::look(Member& mine, int64_t row, Share columns) {
  const int64_t end = std::min(columns.end, static_cast<int64_t>(tokens_));
  if (columns.begin >= end) return;
  const float* const from = slice_.logits + row * config().vocab + columns.begin;
  mine.peaks[static_cast<size_t>(row)].join(
      peak_of({from, static_cast<size_t>(end - columns.begin)}, static_cast<int32_t>(columns.begin)));
}

// Rows of branch_, which hold what O or down gave: their bias and norm, and into x.
void Transformer::add_branch(const std::vector<float>& bias, const std::vector<float>& norm, Share rows) {
  const int64_t hidden = config().hidden;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    float* const branch = branch_.get() + r * hidden;
    float* const x = x_.get() + r * hidden;
    for (size_t i = 0; i < bias.size(); ++i) branch[i] += bias[i];
    if (!norm.empty()) ops_.rms_norm(branch, norm.data(), hidden, config().rms_eps, branch);
    for (int64_t i = 0; i < hidden; ++i) x[i] += branch[i];
  }
}

void Transformer::embed(Share rows) {
  const ModelConfig& c = config();
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const Row& row = slice_.rows[static_cast<size_t>(r)];
    float* const x = x_.get() + r * c.hidden;
    tensor::decode_row(weights_.embed, row.token, x);
    if (c.embed_scale != 1)
      for (int64_t i = 0; i < c.hidden; ++i) x[i] *= c.embed_scale;
    for (size_t k = 0; k < ropes_.size(); ++k) {
      const int64_t at = (static_cast<int64_t>(k * slice_.rows.size()) + r) * (c.head_dim / 2);
      rope_row(ropes_[k], row.position, cosine_.get() + at, sine_.get() + at);
    }
  }
}

// Panels of a head that one member must hold: for a norm or a scale of the whole.
int64_t Transformer::heads_whole() const {
  return part_.qk_norm || tensor::kv_scaled(kv_format_) ? part_.head_dim / tensor::kPanelRows : 1;
}

// What a part of the panels of Q, K and V taken as one list is of each.
std::array<Share, 3> Transformer::shares_of(const LayerWeights& w, Share part) {
  const auto clip = [&](int64_t first, int64_t count) {
    return Share{std::clamp<int64_t>(part.begin - first, 0, count), std::clamp<int64_t>(part.end - first, 0, count)};
  };
  const int64_t q = w.q.panels(), k = w.k.panels();
  return {clip(0, q), clip(q, k), clip(q + k, w.v.panels())};
}

// A part of that list, to the end: bias, rotation, store.
void Transformer::attention_inputs(const LayerWeights& w, int layer, Share part, const Activations& x) {
  const ModelConfig& c = part_;
  const auto n = static_cast<int64_t>(slice_.rows.size());
  const int64_t stride = int64_t{c.heads + 2 * c.kv_heads} * c.head_dim;
  const auto [q, k, v] = shares_of(w, part);
  float* const k_out = qkv_.get() + int64_t{c.heads} * c.head_dim;
  float* const v_out = k_out + int64_t{c.kv_heads} * c.head_dim;
  ops_.gemm(w.q, q.begin, q.end, x, n, qkv_.get(), stride, false);
  lora_.expand(layer, LoraTarget::kQ, q, qkv_.get(), stride);
  rotate_columns(w, layer, true, q);
  ops_.gemm(w.k, k.begin, k.end, x, n, k_out, stride, false);
  lora_.expand(layer, LoraTarget::kK, k, k_out, stride);
  rotate_columns(w, layer, false, k);
  ops_.gemm(w.v, v.begin, v.end, x, n, v_out, stride, false);
  lora_.expand(layer, LoraTarget::kV, v, v_out, stride);
  store_values(w, layer, v);
}

// Panels of gate and up, and what they make of x: in gate_, or in `out` where `forms` asks for any.
void Transformer::feed_forward(const LayerWeights& w, int layer, Share part, const Activations& x, unsigned forms,
                               const Activations& out) {
  const int64_t ffn = part_.ffn_of(layer);
  const auto n = static_cast<int64_t>(slice_.rows.size());
  const auto activate = ops_.gate_mul[static_cast<size_t>(config().activation)];
  near_shares(part, [&](Share some) {
    ops_.gemm(w.gate, some.begin, some.end, x, n, gate_.get(), ffn, false);
    lora_.expand(layer, LoraTarget::kGate, some, gate_.get(), ffn);
    ops_.gemm(w.up, some.begin, some.end, x, n, up_.get(), ffn, false);
    lora_.expand(layer, LoraTarget::kUp, some, up_.get(), ffn);
    const int64_t from = some.begin * tensor::kPanelRows, to = std::min(ffn, some.end * tensor::kPanelRows);
    for (int64_t r = 0; r < n; ++r) {
      float* const gate = gate_.get() + r * ffn + from;
      activate(gate, up_.get() + r * ffn + from, to - from);
      if (forms != 0) ops_.prepare(gate, from, to - from, forms, out, r);
    }
  });
}

}  // namespace baton::model
