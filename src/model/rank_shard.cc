#include "model/rank_shard.h"

#include <utility>

#include "model/limits.h"
#include "tensor/panels.h"
#include "tensor/threads.h"

namespace baton::model {

Result<RankShard> shard_of(const ModelConfig& c, int rank, int ranks) {
  const auto no = [&](auto... why) { return fail(Code::kInvalidArgument, "tensor parallel size ", ranks, ": ", why...); };
  if (ranks < 1 || ranks > kRanksMax || rank < 0 || rank >= ranks) return no("1 to ", kRanksMax, " ranks are supported");
  if (c.heads % ranks != 0) return no("the model's ", c.heads, " attention heads are not divisible by it");
  if (c.kv_heads % ranks != 0 && ranks % c.kv_heads != 0)
    return no("the model's ", c.kv_heads, " key/value heads are neither divisible by it nor a divisor of it");
  const char* const whose = c.experts > 0 ? "experts' " : "";
  for (const auto& [name, ffn] : {std::pair(whose, c.ffn), std::pair("dense layers' ", c.dense_ffn)})
    if (ranks > 1 && ffn > 0 && (ffn % tensor::kRecordInputs != 0 || ffn < ranks * tensor::kRecordInputs))
      return no("the ", name, "feed-forward size ", ffn, " cannot be dealt out in multiples of ", tensor::kRecordInputs);
  if (ranks > 1 && c.heads / ranks * c.head_dim % tensor::kRecordInputs != 0)
    return no("heads of ", c.head_dim, ", ", c.heads / ranks, " a rank, are no multiple of ", tensor::kRecordInputs);
  if (ranks > 1 && c.vocab < ranks * tensor::kPanelRows) return no("a vocabulary of ", c.vocab, " is too small");
  const tensor::Share vocab = tensor::share(c.vocab, rank, ranks, tensor::kPanelRows);
  const int32_t sharing = ranks > c.kv_heads ? ranks / c.kv_heads : 1;  // ranks of one KV head
  return RankShard{.rank = rank,
                   .ranks = ranks,
                   .head_first = c.heads / ranks * rank,
                   .heads = c.heads / ranks,
                   .kv_head_first = sharing > 1 ? rank / sharing : c.kv_heads / ranks * rank,
                   .kv_heads = sharing > 1 ? 1 : c.kv_heads / ranks,
                   .stores_kv = rank % sharing == 0,
                   .vocab_first = static_cast<int32_t>(vocab.begin),
                   .vocab = static_cast<int32_t>(vocab.end - vocab.begin)};
}

RankShard::Columns RankShard::columns(int32_t ffn) const {
  if (whole()) return {0, ffn};
  const tensor::Share ours = tensor::share(ffn, rank, ranks, tensor::kRecordInputs);
  return {static_cast<int32_t>(ours.begin), static_cast<int32_t>(ours.end - ours.begin)};
}

}  // namespace baton::model
