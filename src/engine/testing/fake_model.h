#pragma once
// FakeModel: a model::Model for tests whose arithmetic is a hash, but whose use of the KV pool is real: each position writes its
// entry through the block table, and logits depend on the entries of all positions so far. So a wrong block, a lost or foreign KV
// entry, a wrong chunk or a wrong first position changes the tokens, as it would in a transformer, and 10,000 tokens take
// milliseconds. Counts what it computed. step() can be told to fail, or to wait, to put a test inside a step.
#include <atomic>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "base/prng.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/testing/tiny_lora.h"

namespace baton::engine::testing {

class FakeModel final : public model::Model {
 public:
  explicit FakeModel(int32_t vocab = 300, int32_t context = 4096, int32_t block_tokens = 16, uint64_t seed = 1) : seed_(seed) {
    config_.family = "fake";
    config_.layers = 1;
    config_.hidden = kHidden;
    config_.heads = 1;
    config_.ffn = 8;
    config_.kv_heads = 1;
    config_.head_dim = 8;  // 16 bytes of K a token: one 64-bit entry and its position
    config_.vocab = vocab;
    config_.context = context;
    layout_ = {.layers = 1, .kv_heads = 1, .head_dim = 8, .block_tokens = block_tokens};
  }

  const model::ModelConfig& config() const override { return config_; }
  kv::KvLayout kv_layout() const override { return layout_; }
  Result<> bind_kv(std::span<std::byte> pool) override {
    pool_ = pool;
    return {};
  }
  Result<> keep_weights(bool keep) override {
    if (keep && fail_next.exchange(false)) return fail(Code::kInternal, "told to fail");
    weights_kept = keep;
    return {};
  }
  void share_out(int64_t n, const std::function<void(int64_t i, int thread)>& f) override {
    std::vector<std::jthread> others;
    const auto part = [&](int thread) {
      for (int64_t i = thread; i < n; i += n_threads) f(i, thread);
    };
    for (int t = 1; t < n_threads; ++t) others.emplace_back(part, t);
    part(0);
  }
  int threads() const override { return n_threads; }
  std::string backend() const override { return "fake"; }
  size_t weight_bytes() const override { return 0; }
  std::string fingerprint() const override { return "fake"; }
  // Real files, of the shape lora_spec(); their digest takes part in every entry.
  Result<std::shared_ptr<const model::LoraAdapter>> load_lora(const std::string& path, int32_t rank_max, int32_t) const override {
    return model::LoraAdapter::load(path, config_, rank_max);
  }
  static model::testing::TinySpec lora_spec() {
    return {.layers = 1, .hidden = kHidden, .heads = 1, .kv_heads = 1, .head_dim = 8, .ffn = 8};
  }

  Result<std::span<const float>> step(std::span<const model::SeqInput> seqs) override {
    if (before_step) before_step();
    if (fail_next.exchange(false) || !weights_kept) return fail(Code::kInternal, "told to fail");
    ++steps;
    logits_.clear();
    hidden_.clear();
    for (const model::SeqInput& seq : seqs) {
      for (size_t i = 0; i < seq.tokens.size(); ++i) {
        const int32_t position = seq.first_position + static_cast<int32_t>(i);
        const uint64_t adapter = seq.lora ? std::stoull(seq.lora->digest().substr(0, 16), nullptr, 16) : 0;
        *entry(seq, position) =
            mix64(mix64(static_cast<uint64_t>(seq.tokens[i]) + seed_ + adapter) + static_cast<uint64_t>(position));
        ++tokens;
        if (seq.hidden) append_hidden(seq, position);
        const bool last = i + 1 == seq.tokens.size();
        if (seq.all_logits || (last && seq.last_logits)) append_logits(seq, position, seq.tokens[i]);
      }
    }
    return logits_;
  }

  std::span<const float> hidden() const override { return hidden_; }
  static constexpr int kHidden = 4;

  // The answer is these tokens, whatever the prompt says, and after them what it would be. Before a request, one sequence at a time.
  void say(std::vector<int32_t> ids) {
    said_ = std::move(ids);
    next_said_ = 0;
  }

  std::atomic<int64_t> tokens{0}, steps{0};
  int n_threads = 1;  // of share_out(); set before a step
  std::atomic<bool> weights_kept{true};
  std::atomic<bool> fail_next{false};
  std::function<void()> before_step;
  // Added to the logit of the token that usually follows: above 0, answers go in circles now and then, as drafts need them to.
  double habit = 0;
  std::function<bool(int32_t token)> no_number;  // the logits that follow this token are not numbers
  model::ModelConfig config_;

 private:
  uint64_t* entry(const model::SeqInput& seq, int32_t position) {
    const auto block = static_cast<size_t>(seq.blocks[static_cast<size_t>(position / layout_.block_tokens)]);
    const size_t within = static_cast<size_t>(position % layout_.block_tokens) * 16;
    return reinterpret_cast<uint64_t*>(pool_.data() + block * layout_.block_bytes() + layout_.k_offset(0, 0) + within);
  }
  void append_logits(const model::SeqInput& seq, int32_t position, int32_t token) {
    const size_t begin = logits_.size();
    append_random_logits(seq, position);
    const std::span<float> row = std::span(logits_).subspan(begin);
    row[static_cast<size_t>((token + 1) % 12)] += static_cast<float>(habit);
    if (no_number && no_number(token)) std::ranges::fill(row, std::numeric_limits<float>::quiet_NaN());
  }
  uint64_t state_at(const model::SeqInput& seq, int32_t position) {
    uint64_t state = seed_;
    for (int32_t p = 0; p <= position; ++p) state = mix64(state ^ *entry(seq, p));
    return state;
  }
  void append_hidden(const model::SeqInput& seq, int32_t position) {
    Prng prng(state_at(seq, position));
    for (int i = 0; i < kHidden; ++i) hidden_.push_back(static_cast<float>(prng.uniform() - 0.5));
  }
  void append_random_logits(const model::SeqInput& seq, int32_t position) {
    Prng prng(state_at(seq, position));
    for (int32_t v = 0; v < config_.vocab; ++v) logits_.push_back(static_cast<float>(prng.uniform() * 8));
    if (next_said_ < said_.size()) logits_[logits_.size() - static_cast<size_t>(config_.vocab) + static_cast<size_t>(said_[next_said_++])] = 1000;
  }

  uint64_t seed_;
  std::vector<int32_t> said_;
  size_t next_said_ = 0;
  kv::KvLayout layout_;
  std::span<std::byte> pool_;
  std::vector<float> logits_, hidden_;
};

}  // namespace baton::engine::testing
