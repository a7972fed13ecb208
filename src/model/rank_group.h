#pragma once
// RankGroup: what the ranks of a tensor-parallel model share: one segment of memory (a memfd) that every rank's process maps.
//
//   [Header][sums: turn 0: rank 0's rows | rank 1's ... | turn 1: ...][logits: rows][order: words]
//
// A sum: each rank writes its part of the rows, all meet(), each adds all parts in the order of ranks: bit for bit the same on
// all ranks, in every run. Sums take turns with two places, so one meeting a sum is enough: who writes the place again has met
// everybody since. Rank 0 gives orders, the others wait for them: a step (its tokens, positions and block tables), or
// something to be done and answered over the control socket (engine/ranks.h). Waiting spins for kSpin, then sleeps in the kernel; an idle rank sleeps.
// A rank that stays away from a meeting for patience_ms, or whose process ended (whoever sees that calls fail()), fails the
// group for good: every wait ends, and what was computed counts for nothing.
// Threads: meet() and sums by one thread of a rank at a time; fail() and failed() by any. All ranks call the collectives in the
// same order. Linux: memfd, futex.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/limits.h"
#include "model/model.h"

namespace baton::model {

struct GroupShape {
  int32_t ranks = 1;
  int64_t hidden = 0, vocab = 0;
  int64_t order_words = 0;  // room for the largest step: see words_of()
  int64_t patience_ms = kRankPatienceMs;
};

class RankGroup {
 public:
  enum class Order : int32_t { kStep, kTakePool, kLeavePool, kDropWeights, kLoadWeights };

  static Result<std::unique_ptr<RankGroup>> create(const GroupShape& shape);  // by rank 0
  // By another process, or by a thread that plays one. The descriptor stays the caller's and is not needed afterwards.
  static Result<std::unique_ptr<RankGroup>> attach(int fd, int rank);
  // By a thread that shares rank 0's own mapping: for tests, whose tools then see who waits for whom.
  std::unique_ptr<RankGroup> beside(int rank) const;
  ~RankGroup();

  int rank() const { return rank_; }
  int ranks() const { return shape().ranks; }
  const GroupShape& shape() const;
  int fd() const;

  void meet();  // returns when all ranks came, or the group has failed
  void fail();
  bool failed() const;

  float* part(int turn, int rank) const;  // kSliceTokens rows of `hidden`, of one of two turns
  float* logits() const;                  // kSliceTokens rows of `vocab`

  // Rank 0. Requires that the order before was carried out, and of adapters that every rank has loaded its part under the same
  // number. A step that is too large is kResourceExhausted and nobody hears of it.
  Result<> give(Order order, std::span<const SeqInput> seqs = {});
  // The others: the next order, once there is one; nothing if the group failed.
  std::optional<Order> await_order();
  // Of an order of kind kStep; points into the segment and holds until the rank awaits the next one. find: this rank's part of the
  // adapter of that number, alive for the step; nullptr: it has none, which fails the step.
  using FindLora = std::function<const LoraAdapter*(int32_t number)>;
  Result<std::vector<SeqInput>> step(const FindLora& find) const;

 private:
  struct Segment;
  struct Header;
  RankGroup(std::shared_ptr<Segment> segment, int rank);
  Header& header() const;

  std::shared_ptr<Segment> segment_;
  const int rank_;
  uint32_t seen_ = 0;  // orders
};

// Words that `seqs` sequences with so many tokens and blocks in all take as an order.
constexpr int64_t words_of(int64_t seqs, int64_t tokens, int64_t blocks) { return 2 + 5 * seqs + tokens + blocks; }

}  // namespace baton::model
