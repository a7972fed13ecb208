#pragma once
// Transformer: the CPU Model. A step is cut into slices of at most kSliceTokens tokens, which bounds buffers and keeps
// activations in L2; each slice runs through all layers on the whole thread team, in phases (tensor/threads.h):
//   [norm, quantise] Q K V, bias, norm, rotate, store K V | attend | [join spans, quantise] O, += x |
//   [norm, quantise] gate, up, activation | [quantise] down, += x
// Where a family has biases or norms behind O and down, those are a phase of their own; transformer_experts.cc has mixtures. Of a
// tensor-parallel model a rank has its heads and columns alone, and O and down end in a sum over the ranks
// (transformer_ranks.cc). Slices with rows that have a LoRA adapter: lora_step.h. A bracketed part is a phase of its own over
// rows, or, when the slice has at most kAloneRows tokens, done by every member for itself: it is then cheaper than a phase. A
// slice's rows meet only in attention, whose spans have fixed bounds and order: this is what makes results independent of batch,
// chunks and threads. Called by the owner of Model alone.
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "model/activation_buffer.h"
#include "model/lora_step.h"
#include "model/model.h"
#include "model/rank_group.h"
#include "model/rank_shard.h"
#include "model/rope.h"
#include "model/transformer_weights.h"
#include "tensor/ops.h"
#include "tensor/threads.h"

namespace baton::model {

class Transformer final : public Model {
 public:
  static Result<std::unique_ptr<Model>> make(std::unique_ptr<WeightFile> file, const LoadOptions& options);

  const ModelConfig& config() const override { return file_->config(); }
  kv::KvLayout kv_layout() const override { return layout_; }
  Result<> bind_kv(std::span<std::byte> pool) override;
  Result<> keep_weights(bool keep) override;
  Result<std::span<const float>> step(std::span<const SeqInput> seqs) override;
  std::span<const LogitPeak> peaks() const override { return peaks_; }
  std::span<const float> hidden() const override { return {hidden_.get(), hidden_values_}; }
  void share_out(int64_t n, const std::function<void(int64_t, int)>& f) override;
  int threads() const override { return pool_.size(); }
  std::string backend() const override;
  size_t weight_bytes() const override { return step_bytes_; }
  std::string fingerprint() const override { return fingerprint_; }
  Result<std::shared_ptr<const LoraAdapter>> load_lora(const std::string& path, int32_t rank_max, int32_t number) const override {
    return LoraAdapter::load(path, config(), rank_max, {.shard = shard_, .number = number});
  }

 private:
  // Panels whose outputs are a record of inputs to the next layer.
  static constexpr int64_t kRecordPanels = tensor::kRecordInputs / tensor::kPanelRows;
  // Panels of gate and up that are computed before they are joined: 256 rows of both, 256 KiB, are still in the core's cache.
  static constexpr int64_t kNearPanels = 8;
  template <class F>
  static void near_shares(tensor::Share part, F f) {
    for (tensor::Share some = part; some.begin < part.end; some.begin = some.end) {
      some.end = std::min(part.end, some.begin + kNearPanels);
      f(some);
    }
  }

  struct Row {  // one token of a slice
    int32_t token, position;
    const int32_t* blocks;
  };
  struct Item {  // queries of one sequence times one kv head (times one span, if split)
    int32_t first_row, rows, kv_head;
    int64_t span_begin, span_end;
  };
  struct Window {        // what attention does in the layers that see as far back
    int32_t tokens = 0;  // LayerKind::window
    std::vector<Item> items;
    Buffer<tensor::Partial> partials;  // if split: [row][head][span]
    struct CacheReads {                // of a member's own items, in layer 0
      std::vector<const std::byte*> blocks;
      std::vector<tensor::Stretch> stretches;
    };
    std::vector<CacheReads> reads;  // [member]; each makes its own
  };
  struct Layer {  // what a layer looks up, in windows of the slice and in ropes_
    size_t window = 0, rope = 0;
  };
  // The phases of a layer that read much; behind the last layer there is one more, the logits'.
  enum Reads : size_t { kReadsQkv, kReadsCache, kReadsO, kReadsFfn, kReadsDown, kReadsOfLayer };
  struct Slice {
    std::vector<Row> rows;
    std::vector<Window> windows;  // one for each kind of layer
    std::vector<int32_t> logit_rows, hidden_rows;
    bool split = false;     // items are single spans; partial states lie in Window::partials
    bool asks = false;      // for what its members read later (Member::ahead)
    int64_t spans_max = 0;  // most spans any row sees
    float *logits = nullptr, *hidden = nullptr;
  };
  struct Member {                           // one thread's own memory
    std::vector<tensor::Stretch> weights;   // its own parts of the panels, in the order in which a slice reads them
    std::vector<tensor::Passage> passages;  // Reads of each layer
    tensor::Ahead ahead;
    std::vector<LogitPeak> peaks;  // of the slice's logits: what it has seen of each row
    ActivationBuffer activations;
    Buffer<std::byte> attend_scratch;
    Buffer<float> o, row;
  };

  Transformer(std::unique_ptr<WeightFile> file, const LoadOptions& options, const tensor::Ops& ops, const RankShard& shard);
  Result<> load_weights(const std::function<void(double)>& progress);
  Result<> check(std::span<const SeqInput> seqs) const;
  void plan_layers(int32_t context);
  void plan_items(Window& window);
  void plan_cache_reads(Window& window, int member);
  void plan_reads();
  void split_items(Window& window);
  void run_slice();
  using Hand = tensor::ThreadPool::Member;
  void begin_reading(const Hand& hand);
  void read_from(Member& mine, int layer, Reads what);
  tensor::Activations asking(tensor::Activations view, const Hand& hand);
  int64_t heads_whole() const;
  static std::array<tensor::Share, 3> shares_of(const LayerWeights& w, tensor::Share part);
  template <class In>
  void add_output(Hand& hand, int turn, const tensor::Panels& w, int layer, LoraTarget target, const std::vector<float>& bias,
                  const std::vector<float>& norm, In in);
  void forward(Hand& hand);
  void read_out(Hand& hand);
  void embed(tensor::Share rows);
  void attention_inputs(const LayerWeights& w, int layer, tensor::Share panels, const tensor::Activations& x);
  void finish_heads(const LayerWeights& w, bool is_q, int64_t row, tensor::Share panels);
  void rotate_columns(const LayerWeights& w, int layer, bool is_q, tensor::Share panels);
  void store_values(const LayerWeights& w, int layer, tensor::Share panels);
  void attend_item(const Item& item, const LayerWeights& w, int layer, Member& mine, unsigned forms);
  const float* attended_row(int64_t r, const LayerWeights& w, int layer, Member& mine);
  void join_branch(Hand& hand, int turn, const std::vector<float>& bias, const std::vector<float>& norm);
  void add_branch(const std::vector<float>& bias, const std::vector<float>& norm, tensor::Share rows);
  void meet(Hand& hand);
  void add_parts(int turn, tensor::Share rows);
  void take_logits(tensor::Share rows);
  void look(Member& mine, int64_t row, tensor::Share columns);
  void feed_forward(const LayerWeights& w, int layer, tensor::Share panels, const tensor::Activations& x, unsigned forms,
                    const tensor::Activations& out);
  void resize_mixture(int64_t rows);
  void mixture(Hand& hand, int turn, const LayerWeights& w, int layer);
  void route(Hand& hand, const LayerWeights& w);
  void choose_experts(const LayerWeights& w, tensor::Share rows);
  void group_by_expert();
  void add_experts(tensor::Share rows, float* to);
  void join_experts(Hand& hand, int turn);
  template <class F>
  void for_groups(tensor::Share items, int64_t panels, F f);
  template <class RowValues>
  auto input(Hand& hand, int64_t rows, int64_t cols, unsigned forms, RowValues values, ActivationBuffer* made = nullptr);
  tensor::KvView kv_view(const Row& row, int layer, int kv_head) const;

  std::unique_ptr<WeightFile> file_;
  RankGroup* const ranks_;  // nullptr: this is all of the model
  const RankShard shard_;
  const ModelConfig part_;  // the configuration, with the heads, KV heads and feed-forward columns of this rank
  const tensor::Ops& ops_;
  const tensor::KvFormat kv_format_;
  const tensor::KvOps& cache_;
  tensor::ThreadPool pool_;
  std::vector<Rope> ropes_;
  std::vector<Layer> layers_;
  float attention_scale_ = 1;
  kv::KvLayout layout_;
  TransformerWeights weights_;  // no layers: given back
  size_t step_bytes_ = 0;
  size_t tokens_ = 0;  // of the vocabulary; the rest of its rows is padding
  std::string fingerprint_;
  int32_t context_ = 0;  // of the fingerprint
  std::span<std::byte> kv_;

  Slice slice_;
  LoraStep lora_;
  std::vector<Member> members_;
  ActivationBuffer activations_, gated_;  // gated_: what enters the down projection, made while activations_ is read
  // [rows][...] of the slice: residual stream, raw q|k|v in packed order, rotated q, attention output, gate and up, cosines and
  // sines
  Buffer<float> x_, qkv_, q_, attended_, gate_, up_, cosine_, sine_;  // cosine_, sine_: [rope][row][head_dim / 2]
  Buffer<float> branch_;     // [row]: what is normed, or added up over ranks, before it joins x_, if that is so
  Buffer<float> partial_o_;  // [row][head][span][head_dim]
  Buffer<float> logits_, hidden_;
  std::vector<LogitPeak> peaks_;  // [row of logits_]
  size_t hidden_values_ = 0;

  // A mixture's slice. A token's choice of an expert is a slot; slots of an expert lie together and begin at multiples of 4.
  struct Group {
    int32_t expert, first_slot, rows;
  };
  struct Mixture {
    Buffer<float> normed, scores;           // [row][hidden], [row][experts]
    Buffer<int32_t> expert, slot;           // [row][experts_used], best first
    Buffer<float> weight;                   // of the same
    int64_t groups_max = 0, slots_max = 0;  // of a slice of so many rows: known before its experts are
    std::vector<Group> groups;
    std::vector<int32_t> row_of;   // [slot]; -1: none
    ActivationBuffer activations;  // [slot]
    Buffer<float> gate, up, out;   // [slot][ffn], [slot][hidden]
  };
  Mixture mixture_;
};

}  // namespace baton::model
