#pragma once
// Model: a loaded transformer that advances sequences over paged KV. Families: families/table.cc. CPU backend chosen by cpuid.
// Batch invariance: the logits of a sequence do not depend on what else is in the step, on how its prompt was cut into chunks, or on
// whether its KV came from the cache or a peer; every reduction has a fixed order. Tests hold this bit for bit.
// Owner and only caller of step(): the engine's step thread; the model runs its own pinned worker threads inside.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "kv/layout.h"
#include "model/config.h"
#include "model/logit_peak.h"

namespace baton::model {

class LoraAdapter;
class RankGroup;

struct LoadOptions {
  int threads = 0;                       // 0 = all cores; engines that share a machine should share them out
  std::string isa = "auto";              // auto, avx512, avx2, plain
  bool pin_threads = false;              // keep worker threads on a CPU each; for a machine that runs nothing else
  int block_tokens = 16;
  std::optional<kv::KvDtype> kv_dtype = {};  // of the cache: one of kv::cache_dtypes(); not said: FP8 where the checkpoint was made
                                             // for that (ModelConfig::fp8_cache), else BF16
  int32_t context = 0;                   // longest sequence to be served; 0 = the model's own. LongRoPE turns differently beyond its
                                         // original context, so workers that exchange KV must agree (the fingerprint tells)
  RankGroup* ranks = nullptr;            // tensor parallel: load and compute this rank's part alone (rank_group.h); outlives the model
  std::function<void(double fraction)> progress;  // called now and then while weights load and repack, from the loading thread
};

// One sequence's part of a step.
struct SeqInput {
  std::span<const int32_t> tokens;       // the tokens to compute, at positions first_position ...
  int32_t first_position = 0;
  std::span<const int32_t> blocks;       // block table covering [0, first_position + tokens.size())
  bool last_logits = false;              // logits of the last token wanted
  bool all_logits = false;               // logits of every token wanted (prompt_logprobs, echo); implies last_logits
  bool hidden = false;                   // hidden states of every token wanted (embeddings)
  const LoraAdapter* lora = nullptr;     // of this model's load_lora(), alive for the step; nullptr: the base model alone
};

class Model {
 public:
  virtual ~Model() = default;
  // path: a GGUF file or a Hugging Face directory.
  static Result<std::unique_ptr<Model>> load(const std::string& path, const LoadOptions& options);

  virtual const ModelConfig& config() const = 0;
  virtual kv::KvLayout kv_layout() const = 0;
  // pool: blocks x kv_layout().block_bytes(), 64-byte aligned, zeroed, owned by the caller, kept alive as long as the model.
  virtual Result<> bind_kv(std::span<std::byte> pool) = 0;
  // false: the weights' memory goes back to the system, and step() fails until true has read them again, the same bits, from the
  // file that was opened; all else stays. Of a tensor-parallel model this rank's. Doing it twice does nothing. No step running.
  // kUnimplemented: this model keeps them; others: it has none, and may be asked again.
  virtual Result<> keep_weights(bool keep);
  // Computes all sequences. Returns f32 logits rows in input order (a seq with all_logits gives tokens.size() rows, one with
  // last_logits one row), each row vocab_size long, padded vocabulary entries at -inf; valid until the next step().
  // Ranks but the first return none; if a rank is lost: kUnavailable, now and ever after.
  virtual Result<std::span<const float>> step(std::span<const SeqInput> seqs) = 0;
  // What the model saw of the last step's rows of logits, one each. Empty from a model that does not look.
  virtual std::span<const LogitPeak> peaks() const { return {}; }
  // Of the last step's sequences with `hidden`, in input order: a row a token, config().hidden wide, after the final norm. Valid
  // until the next step(). Empty from a model that has none.
  virtual std::span<const float> hidden() const { return {}; }
  // A LoRA adapter of this model: a directory as PEFT writes it, of rank rank_max at most; of a tensor-parallel model this rank's part
  // of it. number: LoraPart::number. Any thread, also while step() runs.
  virtual Result<std::shared_ptr<const LoraAdapter>> load_lora(const std::string& path, int32_t rank_max, int32_t number = 0) const;
  // Work of the caller's on the threads that compute steps: f(i, thread) for every i below n, each once, in any order, with thread below
  // threads(). Returns when all is done. f throws nothing. No step running.
  virtual void share_out(int64_t n, const std::function<void(int64_t i, int thread)>& f) {
    for (int64_t i = 0; i < n; ++i) f(i, 0);
  }
  virtual int threads() const { return 1; }
  virtual std::string backend() const = 0;      // "cpu avx512-vnni-bf16, 2 threads"
  virtual size_t weight_bytes() const = 0;      // bytes read per decode step at batch 1, KV excluded
  virtual std::string fingerprint() const = 0;  // hex digest of config and a sample of the weights: P and D must agree
};

}  // namespace baton::model
