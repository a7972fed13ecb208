#pragma once
// Core: one engine's step logic over scheduler, model, samplers and transfer. No threads, no waiting: StepLoop drives it, tests
// call it. Life of a sequence: submit -> (fetch KV from a peer) -> planned steps -> token events -> finish, and for a prefill
// leg: offer the KV. Guarantees: every submitted sequence gets exactly one event with finish set unless it is aborted; a grant
// that came in with a submission is fetched or declined, never forgotten; blocks with a transfer in flight go back to the pool
// only after its event. Owner and only caller: the step thread.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "engine/draft_policy.h"
#include "engine/metrics.h"
#include "engine/request.h"
#include "engine/speculative_config.h"
#include "model/model.h"
#include "sched/scheduler.h"
#include "transfer/transfer.h"

namespace baton::engine {

struct CoreOptions {
  sched::SchedulerConfig scheduler;
  bool prefix_caching = true;
  bool fail_on_load_error = false;  // kv_load_failure_policy: fail (true) or recompute
  double retained_share_max = 0.4;  // of the pool, for KV that waits for its decode worker
  int32_t push_chunk_tokens = 0;  // a prompt whose KV is read meanwhile is computed in steps of so many tokens; 0 = in one
  std::optional<SpeculativeConfig> speculation{};
  kv::BlockHash hash_root{};
  std::function<void(std::vector<kv::CacheChange>)> on_cache_changes{};  // KV events; called on the step thread
  std::function<void()> on_transfer_events{};  // called on the step thread after it handled some
  // The weights give no numbers: every request is refused from now on. Called on the step thread, before the first one hears of it.
  std::function<void()> on_broken{};
};

// What every request hears of an engine that cannot go on, in vLLM's words.
inline constexpr const char* kEngineDead = "EngineCore encountered an issue. See stack trace (above) for the root cause.";

// Digest of token ids as little-endian 32-bit words.
Digest token_digest(std::span<const int32_t> tokens);
// What both legs compute of the same prompt: token_digest() of its first n tokens or, if an adapter reads them, one of its weights too.
Digest prompt_digest(const Submission& submission, size_t n_tokens);

class Core {
 public:
  Core(CoreOptions options, model::Model& model, kv::BlockPool pool, transfer::TransferNode* node, EngineMetrics& metrics,
       const Clock& clock);
  ~Core();

  void submit(Submission submission);
  void abort(uint64_t first_id, int32_t n);
  void finish_on_stop_string(uint64_t id);  // the frontend saw one in the text
  void release_grant(uint64_t id);          // nobody will read this prefill leg's answer
  void decline(const transfer::Grant& grant);
  bool reset_prefix_cache();
  size_t cached_blocks(std::span<const kv::BlockHash> chain) const { return scheduler_.pool().lookup(chain).size(); }
  void refuse(const Error& error);  // every live sequence and every later submission gets this error

  void accept() { refusal_.reset(); }  // the opposite

  bool step();  // true: something was done, call again
  bool idle() const { return sequences_.empty(); }
  std::string stats_line(double seconds);  // vLLM's 10 s line; "" if nothing happened since the last
  std::string speculation_line(double seconds);  // the same of drafts

 private:
  struct Group;
  struct Sequence;
  struct Sampled;
  struct SampledRow;
  using Sequences = std::unordered_map<sched::RequestId, std::unique_ptr<Sequence>>;

  void tell_cache_changes();
  Result<> admit(const Submission& s);
  void start_sequence(const std::shared_ptr<Group>& group, int32_t index);
  void start_siblings(const std::shared_ptr<Group>& group);
  bool poll_transfers();
  void on_fetched(const transfer::Event& event);
  void on_completion(const transfer::Event& event);
  void announce(Sequence& seq, int32_t ready_tokens);
  void break_promise(const Submission& s);
  void stop_fetch(sched::RequestId id);  // its event frees the blocks
  void remote_ready(Sequence& seq, int32_t valid_tokens, const std::optional<Error>& error);
  void start_fetch(sched::RemoteFetch fetch);
  void mark_scheduled(Sequence& seq);

  void run(const sched::StepPlan& plan);
  Result<> score_prompts(const sched::StepPlan& plan);
  Result<std::span<const float>> run_model(const sched::StepPlan& plan);
  void pool(const sched::StepPlan& plan);
  void end_pooled(Sequence& seq);
  void keep_prompt_rows(Sequence& seq, int32_t position, std::span<const float> rows, size_t count);
  void fail_plan(const sched::StepPlan& plan, const Error& error);
  std::vector<Sampled> sample(const sched::StepPlan& plan, std::span<const float> logits);
  void sample_part(const SampledRow& from, std::span<const float> rows, SamplerScratch& scratch, Sampled& out) const;
  void commit(const sched::StepPlan& plan, std::span<const Sampled> samples);
  void hand_out(std::vector<Sampled> samples);
  void on_no_token(Sequence& seq, const Error& error);
  bool weights_give_numbers();

  void propose(Sequence& seq);
  void note_step_cost(const sched::StepPlan& plan, int64_t began_ns);
  void note_drafts(Sequence& seq, int32_t drafted, int32_t accepted);

  void on_peer_token(Sequence& seq, int32_t token);
  void on_token(Sequence& seq, int32_t token, LogprobTable table, bool same_step = false);
  Finish finish_after(const Sequence& seq, int32_t token, int32_t n_output) const;
  void note_first_token(Sequence& seq, TokenEvent& event, int64_t now);
  void end(Sequence& seq, Finish finish, TokenEvent event);
  void end_exhausted(sched::RequestId id);
  void end_with_error(Sequence& seq, Error error);
  void offer(Sequence& seq, TokenEvent& event);
  void fulfil(Sequence& seq, const TokenEvent& event);
  void observe_end(const Sequence& seq, Finish finish);
  void drop(sched::RequestId id);
  void update_gauges();
  void show_adapters();
  Sequence* find(sched::RequestId id);

  CoreOptions options_;
  model::Model& model_;
  transfer::TransferNode* node_;
  EngineMetrics& metrics_;
  const Clock& clock_;
  sched::Scheduler scheduler_;
  Sequences sequences_;
  std::unordered_map<sched::RequestId, sched::RemoteFetch> fetches_;  // in flight; may outlive their sequence
  std::vector<SamplerScratch> scratch_;  // [thread of the model]
  grammar::WalkerTable walkers_;
  StepCost step_cost_;
  std::vector<int32_t> draft_rows_;  // last known tokens and drafts of the step that runs
  std::optional<Error> refusal_;
  int64_t arrivals_ = 0;
  int64_t prefill_blocks_ = 0;  // reserved by live prefill legs
  uint64_t seen_preemptions_ = 0, seen_queries_ = 0, seen_hits_ = 0;
  struct {
    double prompt_tokens = 0, generated = 0;
    uint64_t queries = 0, hits = 0;
  } interval_;
  struct {
    int64_t drafts = 0, drafted = 0, accepted = 0;
    std::vector<int64_t> accepted_at;
  } drafts_;  // of the interval of the log line
};

}  // namespace baton::engine
