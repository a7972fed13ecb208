#include "model/transformer_weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/sha256.h"

namespace baton::model {
namespace {

tensor::Format format_of(Dtype d) {
  switch (d) {
    case Dtype::kF32:
      return tensor::Format::kF32;
    case Dtype::kF16:
      return tensor::Format::kF16;
    case Dtype::kBf16:
      return tensor::Format::kBf16;
    case Dtype::kQ8_0:
      return tensor::Format::kQ8_0;
    case Dtype::kQ4_0:
      return tensor::Format::kQ4_0;
    case Dtype::kQ4_1:
      return tensor::Format::kQ4_1;
    case Dtype::kQ5_0:
      return tensor::Format::kQ5_0;
    case Dtype::kQ5_1:
      return tensor::Format::kQ5_1;
    case Dtype::kQ4_K:
      return tensor::Format::kQ4_K;
    case Dtype::kQ5_K:
      return tensor::Format::kQ5_K;
    case Dtype::kQ6_K:
      return tensor::Format::kQ6_K;
  }
  return tensor::Format::kF32;
}

// The tensor, if it has the shape the configuration promises; the reader has checked that its bytes are all there.
Result<tensor::Matrix> matrix(const WeightFile& file, const std::string& name, int64_t rows, int64_t cols) {
  const TensorRef* t = file.find(name);
  if (!t) return fail(Code::kInvalidArgument, "weights lack tensor ", name);
  if (t->rows != rows || t->cols != cols)
    return fail(Code::kInvalidArgument, "tensor ", name, " is ", t->rows, " x ", t->cols, ", the configuration says ", rows,
                " x ", cols);
  const tensor::Matrix m{.format = format_of(t->dtype), .rows = rows, .cols = cols, .data = t->bytes.data()};
  if (cols % tensor::format_block(m.format) != 0 || t->bytes.size() < static_cast<size_t>(rows) * m.row_bytes())
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

// File row of each packed row of Q or K: see the header.
std::vector<int32_t> rotary_rows(int heads, int head_dim, bool interleaved) {
  std::vector<int32_t> rows;
  const int half = head_dim / 2;
  for (int h = 0; h < heads; ++h) {
    for (int n = 0; n < head_dim; ++n) {
      const int second = n % 16 / 8, i = n / 16 * 8 + n % 8;  // dim = second * half + i
      rows.push_back(h * head_dim + (interleaved ? 2 * i + second : second * half + i));
    }
  }
  return rows;
}

struct Packing {
  tensor::Matrix from;
  std::span<const int32_t> rows;
  tensor::Panels* to;
};

}  // namespace

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

Result<TransformerWeights> pack_weights(const WeightFile& file, tensor::ThreadPool& pool,
                                        const std::function<void(double)>& progress) {
  const ModelConfig& c = file.config();
  const int64_t q_rows = int64_t{c.heads} * c.head_dim, kv_rows = int64_t{c.kv_heads} * c.head_dim;
  const std::vector<int32_t> q_order = rotary_rows(c.heads, c.head_dim, file.rope_interleaved());
  const std::vector<int32_t> k_order = rotary_rows(c.kv_heads, c.head_dim, file.rope_interleaved());

  TransformerWeights w;
  w.layers.resize(static_cast<size_t>(c.layers));
  std::vector<Packing> packings;
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols, std::span<const int32_t> order,
                       tensor::Panels& to) -> Result<> {
    BATON_TRY(const tensor::Matrix m, matrix(file, name, rows, cols));
    packings.push_back({m, order, &to});
    return {};
  };
  for (int i = 0; i < c.layers; ++i) {
    LayerWeights& layer = w.layers[static_cast<size_t>(i)];
    const std::string at = cat("layers.", i, ".");
    BATON_TRY(layer.attn_norm, vector(file, at + "attn_norm.weight", c.hidden));
    BATON_TRY(layer.ffn_norm, vector(file, at + "ffn_norm.weight", c.hidden));
    BATON_OK(add(at + "q_proj.weight", q_rows, c.hidden, q_order, layer.q));
    BATON_OK(add(at + "k_proj.weight", kv_rows, c.hidden, k_order, layer.k));
    BATON_OK(add(at + "v_proj.weight", kv_rows, c.hidden, {}, layer.v));
    BATON_OK(add(at + "o_proj.weight", c.hidden, q_rows, {}, layer.o));
    BATON_OK(add(at + "gate_proj.weight", c.ffn, c.hidden, {}, layer.gate));
    BATON_OK(add(at + "up_proj.weight", c.ffn, c.hidden, {}, layer.up));
    BATON_OK(add(at + "down_proj.weight", c.hidden, c.ffn, {}, layer.down));
    BATON_TRY(const std::vector<float> q_bias, vector(file, at + "q_proj.bias", q_rows, !c.qkv_bias));
    BATON_TRY(const std::vector<float> k_bias, vector(file, at + "k_proj.bias", kv_rows, !c.qkv_bias));
    BATON_TRY(layer.v_bias, vector(file, at + "v_proj.bias", kv_rows, !c.qkv_bias));
    for (size_t n = 0; n < q_bias.size(); ++n) layer.q_bias.push_back(q_bias[static_cast<size_t>(q_order[n])]);
    for (size_t n = 0; n < k_bias.size(); ++n) layer.k_bias.push_back(k_bias[static_cast<size_t>(k_order[n])]);
  }
  BATON_TRY(w.norm, vector(file, "norm.weight", c.hidden));
  BATON_TRY(w.embed, matrix(file, "embed.weight", c.vocab, c.hidden));
  BATON_OK(add(c.tied_embeddings || !file.find("lm_head.weight") ? "embed.weight" : "lm_head.weight", c.vocab, c.hidden, {},
               w.lm_head));

  size_t total = 0;
  for (Packing& p : packings) {
    *p.to = tensor::panels_for(p.from);
    total += (p.to->bytes() + 63) / 64 * 64;
  }
  BATON_TRY(w.arena, Arena::make(total));
  size_t done = 0;
  for (Packing& p : packings) {
    std::byte* const base = w.arena.data() + done;
    p.to->data = base;
    pool.run([&](tensor::ThreadPool::Member& member) {
      member.split(p.to->panels(), [&](tensor::Share part) {
        pack_panels(p.from, p.rows, *p.to, part.begin, part.end, base + static_cast<size_t>(part.begin) * p.to->panel_bytes());
      });
    });
    done += (p.to->bytes() + 63) / 64 * 64;
    if (progress) progress(static_cast<double>(done) / static_cast<double>(total));
  }
  w.step_bytes = total + (static_cast<size_t>(c.layers) * 2 + 1) * static_cast<size_t>(c.hidden) * sizeof(float);
  return w;
}

std::string weights_fingerprint(const WeightFile& file) {
  const ModelConfig& c = file.config();
  Sha256 hash;
  hash.update(cat(c.family, " ", c.layers, " ", c.hidden, " ", c.heads, " ", c.kv_heads, " ", c.head_dim, " ", c.ffn, " ",
                  c.vocab, " ", c.rms_eps, " ", c.rope_theta, " ", static_cast<int>(c.rope_scaling), " ", c.rope_factor, " ",
                  c.rope_low_freq_factor, " ", c.rope_high_freq_factor, " ", c.rope_original_context, " ", c.yarn_beta_fast, " ",
                  c.yarn_beta_slow, " ", c.rope_attention_factor, " ", c.sliding_window, "\n"));
  constexpr size_t kSample = 4096;
  const std::string last = cat("layers.", c.layers - 1, ".");
  for (const std::string& name :
       {std::string("embed.weight"), std::string("norm.weight"), std::string("layers.0.attn_norm.weight"),
        std::string("layers.0.q_proj.weight"), std::string("layers.0.k_proj.weight"), last + "v_proj.weight",
        last + "down_proj.weight", last + "ffn_norm.weight"}) {
    const TensorRef* t = file.find(name);
    if (!t) continue;
    hash.update(cat(name, " ", dtype_name(t->dtype), " ", t->rows, " ", t->cols, "\n"));
    const auto* p = reinterpret_cast<const uint8_t*>(t->bytes.data());
    const size_t n = std::min(kSample, t->bytes.size());
    hash.update(std::span(p, n)).update(std::span(p + t->bytes.size() - n, n));
  }
  return hex(hash.finish());
}

}  // namespace baton::model
