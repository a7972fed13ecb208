#include "model/transformer_weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/sha256.h"
#include "model/rope.h"

namespace baton::model {
namespace {

// The tensor, if it has the shape the configuration promises; the reader has checked that its bytes are all there.
Result<tensor::Matrix> matrix(const WeightFile& file, const std::string& name, int64_t rows, int64_t cols) {
  const TensorRef* t = file.find(name);
  if (!t) return fail(Code::kInvalidArgument, "weights lack tensor ", name);
  if (t->rows != rows || t->cols != cols)
    return fail(Code::kInvalidArgument, "tensor ", name, " is ", t->rows, " x ", t->cols, ", the configuration says ", rows,
                " x ", cols);
  const tensor::Matrix m = t->matrix();
  if (cols % tensor::format_block(m.format) != 0 || t->bytes.size() < m.file_bytes())
    return fail(Code::kInvalidArgument, "tensor ", name, " of type ", dtype_name(t->dtype), " has ", t->bytes.size(),
                " bytes, too few for its shape");
  return m;
}

// A vector in f32; missing: an error, or empty if optional.
Result<std::vector<float>> vector(const WeightFile& file, const std::string& name, int64_t n, bool optional = false) {
  if (optional && !file.find(name)) return std::vector<float>{};
  BATON_TRY(const tensor::Matrix m, matrix(file, name, 1, n));
  std::vector<float> out(static_cast<size_t>(n));
  tensor::decode_row(m, 0, out.data());
  return out;
}

// A norm's weights, with what the family adds to them.
Result<std::vector<float>> norm(const WeightFile& file, const std::string& name, int64_t n, bool optional = false) {
  BATON_TRY(std::vector<float> out, vector(file, name, n, optional));
  for (float& f : out) f += file.config().norm_offset;
  return out;
}

std::vector<float> reordered(const std::vector<float>& values, std::span<const int32_t> order) {
  std::vector<float> out;
  if (values.empty()) return out;
  for (const int32_t row : order) out.push_back(values[static_cast<size_t>(row)]);
  return out;
}

// The same where no order is all of them.
std::vector<float> picked(const std::vector<float>& values, std::span<const int32_t> order) {
  return order.empty() ? values : reordered(values, order);
}

// Inputs of a matrix that a rank multiplies; n 0: all.
struct Inputs {
  int64_t first = 0, n = 0;
};

struct Packing {
  tensor::Matrix from;
  std::span<const std::byte> bytes;  // of the file
  std::span<const int32_t> rows;     // which of the file's; empty: all, in their order
  tensor::Panels* to;
  Inputs inputs;
  tensor::Panels shape() const {
    tensor::Panels out = tensor::panels_for(from);
    if (!rows.empty()) out.rows = std::ssize(rows);
    if (inputs.n > 0) out.cols = inputs.n;
    return out;
  }
};

// Reads a layer's vectors and lists its matrices for packing.
class LayerReader {
 public:
  LayerReader(const WeightFile& file, const RankShard& shard, std::vector<Packing>& packings)
      : file_(file),
        c_(file.config()),
        shard_(shard),
        head_order_(rotary_rows(0, 1, c_, file.rope_interleaved())),
        q_order_(rotary_rows(shard.head_first, shard.heads, c_, file.rope_interleaved())),
        k_order_(rotary_rows(shard.kv_head_first, shard.kv_heads, c_, file.rope_interleaved())),
        v_order_(part_rows(shard, shard.kv_head_first * c_.head_dim, shard.kv_heads * c_.head_dim)),
        ffn_order_(columns_of(c_.ffn)),
        dense_order_(columns_of(c_.dense_ffn)),
        packings_(packings) {}

  Result<> matrix(const std::string& name, int64_t rows, int64_t cols, std::span<const int32_t> order, tensor::Panels& to,
                  Inputs inputs = {}) {
    BATON_TRY(const tensor::Matrix m, model::matrix(file_, name, rows, cols));
    packings_.push_back({m, file_.find(name)->bytes, order, &to, inputs});
    return {};
  }
  Result<> read(int i, LayerWeights& layer) {
    at_ = cat("layers.", i, ".");
    BATON_OK(attention(layer));
    BATON_TRY(layer.ffn_norm, norm(file_, at_ + "ffn_norm.weight", c_.hidden));
    BATON_TRY(layer.post_ffn_norm, norm(file_, at_ + "post_ffn_norm.weight", c_.hidden, !c_.post_norms));
    if (c_.sparse(i)) return mixture(layer);
    return feed_forward("", c_.ffn_of(i), c_.experts > 0 ? dense_order_ : ffn_order_, layer.gate, layer.up, layer.down);
  }

 private:
  Result<> attention(LayerWeights& layer) {
    const int64_t q_rows = int64_t{c_.heads} * c_.head_dim, kv_rows = int64_t{c_.kv_heads} * c_.head_dim;
    BATON_TRY(layer.attn_norm, norm(file_, at_ + "attn_norm.weight", c_.hidden));
    BATON_TRY(layer.post_attn_norm, norm(file_, at_ + "post_attn_norm.weight", c_.hidden, !c_.post_norms));
    BATON_OK(matrix(at_ + "q_proj.weight", q_rows, c_.hidden, q_order_, layer.q));
    if (shard_.stores_kv) {
      BATON_OK(matrix(at_ + "k_proj.weight", kv_rows, c_.hidden, k_order_, layer.k));
      BATON_OK(matrix(at_ + "v_proj.weight", kv_rows, c_.hidden, v_order_, layer.v));
    }
    BATON_OK(matrix(at_ + "o_proj.weight", c_.hidden, q_rows, {}, layer.o, cut(shard_.head_first, shard_.heads, c_.head_dim)));
    BATON_TRY(const std::vector<float> q_bias, vector(file_, at_ + "q_proj.bias", q_rows, !c_.qkv_bias));
    BATON_TRY(const std::vector<float> k_bias, vector(file_, at_ + "k_proj.bias", kv_rows, !c_.qkv_bias));
    BATON_TRY(const std::vector<float> v_bias, vector(file_, at_ + "v_proj.bias", kv_rows, !c_.qkv_bias));
    BATON_TRY(layer.o_bias, vector(file_, at_ + "o_proj.bias", c_.hidden, !c_.o_bias));
    BATON_TRY(const std::vector<float> q_norm, norm(file_, at_ + "q_norm.weight", c_.head_dim, !c_.qk_norm));
    BATON_TRY(const std::vector<float> k_norm, norm(file_, at_ + "k_norm.weight", c_.head_dim, !c_.qk_norm));
    BATON_TRY(layer.sinks, vector(file_, at_ + "sinks.weight", c_.heads, !c_.attention_sinks));
    if (!layer.sinks.empty()) layer.sinks.erase(layer.sinks.begin(), layer.sinks.begin() + shard_.head_first);
    BATON_TRY(layer.k_scale, cache_scale("k_scale"));
    BATON_TRY(layer.v_scale, cache_scale("v_scale"));
    layer.q_bias = reordered(q_bias, q_order_);
    layer.k_bias = reordered(k_bias, k_order_);
    layer.v_bias = picked(v_bias, v_order_);
    layer.q_norm = reordered(q_norm, head_order_);  // the first head's order is every head's
    layer.k_norm = reordered(k_norm, head_order_);
    return {};
  }
  Result<float> cache_scale(const char* name) {
    BATON_TRY(const std::vector<float> scale, vector(file_, at_ + name, 1, true));
    if (scale.empty()) return 1.f;
    if (!(scale[0] > 1e-30f && scale[0] < 1e30f)) return fail(Code::kInvalidArgument, "tensor ", at_, name, " is no scale");
    return scale[0];
  }
  // order: which of its `ffn` columns are ours.
  Result<> feed_forward(const std::string& name, int32_t ffn, std::span<const int32_t> order, tensor::Panels& gate,
                        tensor::Panels& up, tensor::Panels& down) {
    BATON_OK(matrix(at_ + name + "gate_proj.weight", ffn, c_.hidden, order, gate));
    BATON_OK(matrix(at_ + name + "up_proj.weight", ffn, c_.hidden, order, up));
    const auto [first, n] = shard_.columns(ffn);
    return matrix(at_ + name + "down_proj.weight", c_.hidden, ffn, {}, down, cut(first, n, 1));
  }
  std::vector<int32_t> columns_of(int32_t ffn) const {
    const auto [first, n] = shard_.columns(ffn);
    return part_rows(shard_, first, n);
  }
  Inputs cut(int64_t first, int64_t n, int64_t unit) const { return shard_.whole() ? Inputs{} : Inputs{first * unit, n * unit}; }
  Result<> mixture(LayerWeights& layer) {
    BATON_OK(matrix(at_ + "router.weight", c_.experts, c_.hidden, {}, layer.router));
    BATON_TRY(layer.router_bias, vector(file_, at_ + "router.bias", c_.experts, !c_.expert_bias));
    layer.experts.resize(static_cast<size_t>(c_.experts));
    for (int x = 0; x < c_.experts; ++x) {
      ExpertWeights& e = layer.experts[static_cast<size_t>(x)];
      const std::string name = cat("experts.", x, ".");
      for (const std::string_view what : {"gate_proj.weight", "up_proj.weight", "down_proj.weight"}) {
        const TensorRef *one = file_.find(cat(at_, "experts.0.", what)), *mine = file_.find(cat(at_, name, what));
        if (one && mine && one->dtype != mine->dtype)
          return fail(Code::kUnimplemented, "tensor ", mine->name, " is ", dtype_name(mine->dtype), " and that of expert 0 ",
                      dtype_name(one->dtype), ": experts of one layer must be of one type");
      }
      BATON_OK(feed_forward(name, c_.ffn, ffn_order_, e.gate, e.up, e.down));
      BATON_TRY(const std::vector<float> gate_bias, vector(file_, at_ + name + "gate_proj.bias", c_.ffn, !c_.expert_bias));
      BATON_TRY(const std::vector<float> up_bias, vector(file_, at_ + name + "up_proj.bias", c_.ffn, !c_.expert_bias));
      BATON_TRY(e.down_bias, vector(file_, at_ + name + "down_proj.bias", c_.hidden, !c_.expert_bias));
      e.gate_bias = picked(gate_bias, ffn_order_);
      e.up_bias = picked(up_bias, ffn_order_);
      if (shard_.rank > 0) e.down_bias.clear();  // ranks add up what down gives: one of them adds the bias
    }
    return {};
  }

  const WeightFile& file_;
  const ModelConfig& c_;
  const RankShard& shard_;
  const std::vector<int32_t> head_order_, q_order_, k_order_, v_order_, ffn_order_, dense_order_;
  std::vector<Packing>& packings_;
  std::string at_;
};

// Bytes of experts that a token does not use.
size_t idle_expert_bytes(const TransformerWeights& w, const ModelConfig& c) {
  size_t experts = 0;
  for (const LayerWeights& layer : w.layers)
    for (const ExpertWeights& e : layer.experts) experts += e.gate.bytes() + e.up.bytes() + e.down.bytes();
  return c.experts == 0 ? 0 : experts / static_cast<size_t>(c.experts) * static_cast<size_t>(c.experts - c.experts_used);
}

// The configuration's values that only some families set.
std::string features_text(const ModelConfig& c, int32_t context) {
  std::string out = cat(c.rotated() - c.head_dim, " ", c.rope_local_theta, " ", c.yarn_truncate, " ", c.o_bias, " ", c.qk_norm,
                        " ", c.post_norms, " ", c.norm_offset, " ", c.embed_scale, " ", c.attention_scale, " ",
                        c.attention_soft_cap, " ", c.logit_soft_cap, " ", static_cast<int>(c.activation), " ", c.attention_sinks,
                        " ", c.experts, " ", c.experts_used, " ", c.expert_norm, " ", c.expert_bias);
  if (!c.dense_layers.empty()) out += cat(" dense ", c.dense_ffn, " ");
  for (const bool dense : c.dense_layers) out += dense ? '1' : '0';
  for (const LayerKind& k : c.layer_kinds) out += cat(" ", k.window, "/", static_cast<int>(k.rope));
  if (c.rope_scaling == RopeScaling::kLongRope)
    for (const float f : make_rope(c, LayerRope::kGlobal, context).frequencies) out += cat(" ", f);
  return out;
}

}  // namespace

std::vector<int32_t> rotary_rows(int first, int heads, const ModelConfig& c, bool interleaved) {
  std::vector<int32_t> rows;
  const int turning = c.rotated();
  for (int h = first; h < first + heads; ++h) {
    for (int n = 0; n < c.head_dim; ++n) {
      const int second = n % 16 / 8, i = n / 16 * 8 + n % 8;  // dim = second * turning / 2 + i
      const int dim = n >= turning ? n : interleaved ? 2 * i + second : second * (turning / 2) + i;
      rows.push_back(h * c.head_dim + dim);
    }
  }
  return rows;
}

std::vector<int32_t> part_rows(const RankShard& shard, int32_t first, int32_t n) {
  std::vector<int32_t> rows(shard.whole() ? 0 : static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

Result<Arena> Arena::make(size_t bytes) {
  constexpr size_t kHugePage = 2u << 20;
  Arena arena;
  arena.bytes_ = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* p = mmap(nullptr, arena.bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return fail(Code::kResourceExhausted, "cannot reserve ", arena.bytes_ >> 20, " MiB of memory for weights");
  arena.data_ = static_cast<std::byte*>(p);
  madvise(p, arena.bytes_, MADV_HUGEPAGE);  // a hint: without it the same bytes cost more TLB misses
  return arena;
}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Arena::~Arena() {
  if (data_) munmap(data_, bytes_);
}

Result<TransformerWeights> pack_weights(const WeightFile& file, const RankShard& shard, tensor::ThreadPool& pool,
                                        const std::function<void(double)>& progress) {
  const ModelConfig& c = file.config();
  TransformerWeights w;
  w.layers.resize(static_cast<size_t>(c.layers));
  std::vector<Packing> packings;
  LayerReader reader(file, shard, packings);
  const std::vector<int32_t> vocab_order = part_rows(shard, shard.vocab_first, shard.vocab);
  for (int i = 0; i < c.layers; ++i) BATON_OK(reader.read(i, w.layers[static_cast<size_t>(i)]));
  BATON_TRY(w.norm, norm(file, "norm.weight", c.hidden));
  BATON_TRY(w.embed, matrix(file, "embed.weight", c.vocab, c.hidden));
  BATON_OK(reader.matrix(c.tied_embeddings || !file.find("lm_head.weight") ? "embed.weight" : "lm_head.weight", c.vocab, c.hidden,
                         vocab_order, w.lm_head));

  size_t total = 0;
  for (Packing& p : packings) {
    *p.to = p.shape();
    total += Arena::room(p.to->bytes());
  }
  BATON_TRY(w.arena, Arena::make(total));
  size_t done = 0;
  for (Packing& p : packings) {
    std::byte* const base = w.arena.data() + done;
    p.to->data = base;
    pool.run([&](tensor::ThreadPool::Member& member) {
      member.split(p.to->panels(), [&](tensor::Share part) {
        pack_panels(p.from, p.rows, *p.to, part.begin, part.end, base + static_cast<size_t>(part.begin) * p.to->panel_bytes(),
                    p.inputs.first / tensor::kRecordInputs);
      });
    });
    file.release(p.bytes);  // so that weights are resident once
    done += Arena::room(p.to->bytes());
    if (progress) progress(static_cast<double>(done) / static_cast<double>(total));
  }
  for (const Packing& p : packings) file.release(p.bytes);  // a page fault may have brought neighbours back
  w.step_bytes =
      total - idle_expert_bytes(w, c) + (static_cast<size_t>(c.layers) * 2 + 1) * static_cast<size_t>(c.hidden) * sizeof(float);
  return w;
}

std::string weights_fingerprint(const WeightFile& file, int32_t context) {
  const ModelConfig& c = file.config();
  Sha256 hash;
  hash.update(cat(c.family, " ", c.layers, " ", c.hidden, " ", c.heads, " ", c.kv_heads, " ", c.head_dim, " ", c.ffn, " ",
                  c.vocab, " ", c.rms_eps, " ", c.rope_theta, " ", static_cast<int>(c.rope_scaling), " ", c.rope_factor, " ",
                  c.rope_low_freq_factor, " ", c.rope_high_freq_factor, " ", c.rope_original_context, " ", c.yarn_beta_fast, " ",
                  c.yarn_beta_slow, " ", c.rope_attention_factor, " ", c.sliding_window, "\n"));
  if (const std::string features = features_text(c, context); features != features_text({}, 0)) hash.update(features + "\n");
  constexpr size_t kSample = 4096;
  const std::string last = cat("layers.", c.layers - 1, ".");
  for (const std::string& name :
       {std::string("embed.weight"), std::string("norm.weight"), std::string("layers.0.attn_norm.weight"),
        std::string("layers.0.q_proj.weight"), std::string("layers.0.k_proj.weight"), last + "v_proj.weight",
        last + "down_proj.weight", last + "ffn_norm.weight", last + "router.weight", last + "experts.0.down_proj.weight"}) {
    const TensorRef* t = file.find(name);
    if (!t) continue;
    hash.update(cat(name, " ", dtype_name(t->dtype), " ", t->rows, " ", t->cols, "\n"));
    const auto* p = reinterpret_cast<const uint8_t*>(t->bytes.data());
    const size_t n = std::min(kSample, t->bytes.size());
    hash.update(std::span(p, n)).update(std::span(p + t->bytes.size() - n, n));
    if (tensor::scales_apart(format_of(t->dtype)))
      hash.update(cat(t->scales.scale(0, 0), " ", t->scales.scale(t->rows - 1, t->cols - 1), "\n"));
  }
  return hex(hash.finish());
}

}  // namespace baton::model
