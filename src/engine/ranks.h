#pragma once
// Ranks: tensor parallelism over processes of one host (--tensor-parallel-size N, facts/engine.md 7). The engine's process is
// rank 0: scheduler, sampler, HTTP, KV transfer, and its own part of the model; it starts N - 1 processes of the same program
// (kRankCommand) that compute the other parts, step by step as it tells them (model/rank_group.h).
// The KV pool is one for all: every rank maps it and writes its own heads where one process alone would. So a block means the
// same to a peer whatever either side's N is, and nothing of the hand-over knows of ranks. A rank that ends, or is late beyond
// patience, is lost, and with it the model: steps fail at once, on_lost() is called. Ranks end with rank 0 (PR_SET_PDEATHSIG),
// and ignore what asks it to stop: it still needs them while it drains. LoRA adapters: rank_adapters.h. Owner: the engine; outlives the model. Threads: one of
// its own watches; calls by the engine's start and step threads.
#include <sys/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/result.h"
#include "engine/config.h"
#include "engine/rank_adapters.h"
#include "model/model.h"
#include "model/rank_group.h"
#include "transfer/loop.h"
#include "transfer/transfer.h"

namespace baton::engine {

inline constexpr std::string_view kRankCommand = "tensor-parallel-rank";

// What a rank is given of rank 0: its ends of two sockets, and the memory of the group, which stays rank 0's.
struct RankLinks {
  transfer::Fd control, adapters;
  int group_fd = -1;
};

// How this process loads its part, but for `ranks` and `progress`. Threads are shared out among the ranks unless --threads says.
model::LoadOptions load_options(const EngineConfig& config);

class Ranks {
 public:
  // Makes rank `rank` run; gives its process, 0 if it has none of its own.
  using Start = std::function<Result<pid_t>(int rank, RankLinks links)>;

  // The others begin to load while the caller loads rank 0's part, with group() in its options.
  static Result<std::unique_ptr<Ranks>> start(const EngineConfig& config, const model::ModelConfig& model);
  static Result<std::unique_ptr<Ranks>> start(const EngineConfig& config, const model::ModelConfig& model, const Start& start);
  ~Ranks();

  model::RankGroup& group() { return *group_; }
  Result<> await_loaded();
  // Step thread, no step running. All ranks map this pool; nullptr: they let go of the one they have.
  Result<> share_pool(const transfer::PoolMemory* pool);
  // Model::keep_weights of all ranks, `first` being rank 0's. Step thread, no step running. If it fails some have them and some have not,
  // and it may be asked again.
  Result<> keep_weights(model::Model& first, bool keep);
  // Model::load_lora of all ranks: engine/rank_adapters.h. Any thread, one at a time.
  Result<std::shared_ptr<const model::LoraAdapter>> load_lora(const model::Model& first, const std::string& path, int32_t rank_max) {
    return adapters_->load(first, path, rank_max);
  }
  // Called once, by any thread, when a rank is lost; {}: not any more, and not now.
  void on_lost(std::function<void()> lost);

 private:
  struct Rank {
    pid_t pid = 0;
    transfer::Fd control;
  };
  Ranks() = default;
  Result<> reply_of(size_t i, int64_t patience_ms);
  Result<> replies(int64_t patience_ms);
  void watch();
  void lose(std::string_view why);

  std::unique_ptr<model::RankGroup> group_;
  std::vector<Rank> others_;  // rank 1 first
  std::shared_ptr<RankAdapters> adapters_;
  transfer::Fd ending_;       // an eventfd
  std::thread watcher_;
  std::mutex mutex_;
  bool lost_ = false;
  std::function<void()> on_lost_;
};

// A rank other than 0: loads its part, says so, and does what rank 0 orders until the group fails.
Result<> run_rank(const EngineConfig& config, int rank, RankLinks links);

// The same as a process: the words after kRankCommand. Gives its exit status.
int rank_main(const std::vector<std::string>& args);

}  // namespace baton::engine
