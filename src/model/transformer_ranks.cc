// Tensor parallelism inside a slice (rank_group.h): where ranks meet, and what they take from each other.
#include <algorithm>

#include "model/transformer.h"

namespace baton::model {

using tensor::Share;

// One member waits for the other ranks, the others of this rank for that one.
void Transformer::meet(Hand& hand) {
  hand.split(1, [this](Share) { ranks_->meet(); });
}

// Rows of branch_: what all ranks gave, added in their order, so that every rank has the same bits.
void Transformer::add_parts(int turn, Share rows) {
  const int64_t hidden = part_.hidden;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    float* const branch = branch_.get() + r * hidden;
    const float* part = ranks_->part(turn, 0) + r * hidden;
    std::copy(part, part + hidden, branch);
    for (int rank = 1; rank < shard_.ranks; ++rank) {
      part = ranks_->part(turn, rank) + r * hidden;
      for (int64_t i = 0; i < hidden; ++i) branch[i] += part[i];
    }
  }
}

// Rank 0: the others' words of rows of the slice's logits.
void Transformer::take_logits(Share rows) {
  const int64_t vocab = part_.vocab;
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const float* from = ranks_->logits() + r * vocab;
    std::copy(from + shard_.vocab, from + vocab, slice_.logits + r * vocab + shard_.vocab);
  }
}

}  // namespace baton::model
