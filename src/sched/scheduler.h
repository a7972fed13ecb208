#pragma once
// Scheduler: (queues, block pool, limits) -> StepPlan. vLLM V1's semantics (facts sheet "engine" section 3): no prefill or decode
// phases, each step moves num_computed up to num_tokens within a token budget; running first, then waiting; chunked prefill;
// prefix cache; preemption by recompute; priorities. P/D: a request may wait for remote KV, and may keep its blocks after it
// finished. Other than vLLM: a request is admitted only with blocks for all its known tokens; one that cannot grow and has nobody
// behind it to preempt keeps its blocks and waits; a fetch holds a place among max_num_seqs.
// Requires: steps run in plan order; a plan's fetches start once the steps planned before it have run.
// Guarantees: a plan made while has_work() is true schedules, fetches, preempts or gives up something.
// Pure: no I/O, no clock (arrival is a number the caller gives). Owner and only caller: the engine's step thread.
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "kv/block_pool.h"

namespace baton::sched {

using RequestId = uint64_t;

struct SchedulerConfig {
  int32_t max_num_batched_tokens = 2048;
  int32_t max_num_seqs = 256;
  int32_t max_model_len = 8192;
  int32_t block_tokens = 16;
  int32_t long_prefill_token_threshold = 0;  // 0 = off
  // false: a prompt is cut only if it is longer than a whole step's budget, or for what a failed fetch left.
  bool chunked_prefill = true;
  bool priority_policy = false;  // false: first come first served
  // Blocks that requests with remote_computing may hold while they wait, in percent of the pool. Beyond it such a request is
  // passed over: two engines that prefill for each other would else wait for each other's blocks for ever.
  int32_t remote_computing_percent = 50;
  // Different LoRA adapters among those that run or fetch; a request with another one is passed over until one of them is through.
  int32_t max_loras = 1;
};

struct NewRequest {
  RequestId id = 0;             // unique for the life of the scheduler
  std::vector<int32_t> prompt;  // 1 .. max_model_len - 1 tokens
  int32_t max_tokens = 16;      // output tokens at most
  int32_t priority = 0;         // lower first
  int64_t arrival = 0;          // any increasing number
  std::string cache_salt;
  std::shared_ptr<const kv::Adapter> adapter{};  // nullptr: the base model
  bool skip_prefix_lookup = false;  // prompt_logprobs
  int32_t remote_tokens = 0;        // > 0: KV of prompt tokens [0, remote_tokens) can be fetched from a peer (P/D decode leg)
  bool retain_on_finish = false;    // P/D prefill leg: blocks stay after finish() until release_retained()
  // 0 = off. A prompt that is read while it is computed is cut into steps of so many tokens. A step that cut one takes no other
  // prompt in: it would only delay the first without ending sooner itself.
  int32_t chunk_tokens = 0;
  bool remote_computing = false;  // the peer computes remote_tokens only now: the fetch may take as long as a prefill's queue
};

enum class State : uint8_t { kWaiting, kWaitingRemote, kRunning, kPreempted, kFinished };

// One request's part of a step: compute tokens [first_position, first_position + n_tokens) of prompt + output.
struct ScheduledSeq {
  RequestId id = 0;
  int32_t first_position = 0;
  int32_t n_tokens = 0;
  bool samples = false;                 // the last of these tokens that is known is the last known token: its logits give a new one
  std::span<const kv::BlockId> blocks;  // whole block table; valid until the next call on the scheduler
  // Of n_tokens the last n_drafts are guesses of what follows (speculative decoding): the logits before a guess say if it is right.
  int32_t n_drafts = 0;
  std::span<const int32_t> drafts{};  // as long as blocks
};

// Fetch KV of tokens [first_token, first_token + n_tokens) into blocks[i] (block i covers tokens first_token + i * block_tokens
// ...). n_tokens == 0: every full block of the prompt was hit locally. The request runs already and waits for nothing: release
// the peer's grant.
struct RemoteFetch {
  RequestId id = 0;
  int32_t first_token = 0;  // a multiple of block_tokens
  int32_t n_tokens = 0;
  std::vector<kv::BlockId> blocks;
};

struct StepPlan {
  std::vector<ScheduledSeq> seqs;    // empty: nothing to compute now
  std::vector<RemoteFetch> fetches;  // start these; answer those of more than 0 tokens with remote_done()
  std::vector<RequestId> preempted;
  std::vector<RequestId> exhausted;  // outgrew the whole pool: finish() these (finish_reason length), or they are named again
  uint64_t step = 0;                 // 1, 2, 3, ...
  int32_t n_tokens = 0;
};

struct RequestView {  // for metrics and replies
  State state = State::kFinished;
  int32_t num_prompt = 0, num_output = 0, num_computed = 0;
  int32_t num_cached = 0;    // prompt tokens served by the local prefix cache at first admission
  int32_t num_external = 0;  // prompt tokens served by a peer
  int32_t num_preemptions = 0;
  std::span<const kv::BlockId> blocks;
  std::span<const int32_t> tokens;  // prompt + output
};

// Who wants a LoRA adapter now.
struct AdapterUse {
  std::shared_ptr<const kv::Adapter> adapter;
  int32_t waiting = 0, active = 0;  // requests that wait, or were preempted; those that run or fetch
};

class Scheduler {
 public:
  Scheduler(SchedulerConfig config, kv::BlockPool pool, kv::BlockHash hash_root);
  ~Scheduler();

  // kInvalidArgument: empty, too long, or prompt + 1 token can never fit the pool; kAlreadyExists.
  Result<> add(NewRequest request);
  StepPlan plan();  // advances num_computed of what it schedules
  // drafts: what may follow the tokens of a running request, for the next plan. It takes as many as fit in what that step leaves
  // free. Ignored unless the last known token is the next to be computed.
  void propose(RequestId id, std::span<const int32_t> drafts);
  // After the step ran: the tokens of every seq with samples == true, in plan order; counts: how many of each, empty = one each. A
  // seq with drafts gives up to 1 + n_drafts: the drafts that are what was sampled before them, and the token sampled after those.
  // Appends them and caches full blocks; what was computed for wrong drafts counts as not computed.
  void commit(const StepPlan& plan, std::span<const int32_t> sampled, std::span<const int32_t> counts = {});
  // KV of tokens [0, valid_tokens) is in place (valid_tokens = what was fetched, or less after a failure: the rest is
  // recomputed). first_token: the peer's sampled token, appended as output so that no prompt token is recomputed; nullopt: the
  // last prompt token is computed here. Returns false if nobody waits for it: first_token was not taken. Either the request is
  // gone (aborted) and its blocks are freed only now, when no write is in flight, or the fetch was one of 0 tokens.
  bool remote_done(RequestId id, int32_t valid_tokens, std::optional<int32_t> first_token);
  // Ends a request; frees its blocks unless retained (retain_on_finish) or a fetch is in flight (then remote_done frees them).
  void finish(RequestId id);  // stop, length, error: retains if asked
  void abort(RequestId id);   // never retains; unknown and finished ids are ignored (use release_retained)
  // Somebody reads the blocks of a running request: it is not preempted, and its blocks stay after finish() and abort() until
  // release_retained().
  void pin(RequestId id);
  // The blocks of a finished request are free. One that still lives is pinned no more and will not be retained.
  void release_retained(RequestId id);

  std::optional<RequestView> view(RequestId id) const;  // kFinished: retained, or gone but for a fetch in flight
  int32_t num_waiting() const;                          // kWaiting, kPreempted and kWaitingRemote
  int32_t num_waiting_remote() const;
  int32_t num_waiting_adapter() const;                  // of num_waiting(): max_loras other adapters are in use
  int32_t num_running() const;
  const std::map<int32_t, AdapterUse>& adapters() const;  // by kv::Adapter::id: those that somebody wants
  int32_t num_retained_blocks() const;
  bool has_work() const;  // plan() could schedule something now
  const kv::BlockPool& pool() const;
  bool reset_prefix_cache();
  std::vector<kv::CacheChange> take_cache_changes();  // for KV events: what changed since the last call; the first one starts it
  uint64_t prefix_queries() const;  // tokens, counted once per request, when it is first admitted
  uint64_t prefix_hits() const;
  uint64_t preemptions() const;

 private:
  struct Core;
  std::unique_ptr<Core> core_;
};

}  // namespace baton::sched
