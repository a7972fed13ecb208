#pragma once
// LoRA adapters of a model of several ranks (engine/ranks.h). Every rank reads its part of an adapter, from the path that rank 0 names
// and under the number that rank 0 gives it, on a thread of its own, so that steps go on; orders of steps name the number
// (model/rank_group.h). All ranks have an adapter or none: each answers with the digest of what it read, and a rank that could not read it,
// or read something else, fails the load for all, with its words. An adapter leaves the ranks' memory when the last holder of rank 0's
// part has let go of it: no step can name it then. Numbers are not used twice.
// A message each over a SOCK_SEQPACKET socket: "load NUMBER RANK_MAX PATH", "drop NUMBER"; answers to the first are "ok NUMBER DIGEST",
// "no NUMBER WHY".
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "model/model.h"
#include "transfer/loop.h"

namespace baton::engine {

// Rank 0's end. Owner: Ranks, and whatever it loaded, for its end.
class RankAdapters : public std::enable_shared_from_this<RankAdapters> {
 public:
  explicit RankAdapters(std::vector<transfer::Fd> ends) : ends_(std::move(ends)), dropped_(ends_.size()) {}  // rank 1's first

  // As model::Model::load_lora, `first` being rank 0's part of the model. Any thread, one at a time. The result may be let go of by any
  // thread: that does not block.
  Result<std::shared_ptr<const model::LoraAdapter>> load(const model::Model& first, const std::string& path, int32_t rank_max);

 private:
  Result<std::string> answer_of(size_t i, int32_t number);
  void drop(int32_t number);

  const std::vector<transfer::Fd> ends_;
  int32_t last_ = 0;
  std::mutex mutex_;
  std::vector<std::vector<int32_t>> dropped_;  // that a rank, busy reading, has no room to hear of yet
};

// Another rank's end: does what rank 0 says until it ends or this is destroyed.
class RankAdapterReader {
 public:
  RankAdapterReader(const model::Model& model, transfer::Fd end);
  ~RankAdapterReader();
  RankAdapterReader(const RankAdapterReader&) = delete;

  std::shared_ptr<const model::LoraAdapter> find(int32_t number) const;  // nullptr: there is none. Any thread

 private:
  void run();
  std::string read(int32_t number, int32_t rank_max, const std::string& path);

  const model::Model& model_;
  const transfer::Fd end_;
  mutable std::mutex mutex_;
  std::map<int32_t, std::shared_ptr<const model::LoraAdapter>> adapters_;
  std::thread thread_;
};

}  // namespace baton::engine
