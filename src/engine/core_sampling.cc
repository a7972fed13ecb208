// Core: what a step's logits become: tokens, drafts that were right or wrong, and the next drafts.
#include <algorithm>

#include "base/log.h"
#include "engine/sequence.h"

namespace baton::engine {
namespace {

bool is_nan(float x) { return x != x; }

}  // namespace

// A row of logits that samplers look at, and where what they find belongs.
struct Core::SampledRow {
  Sequence* seq;
  const sched::ScheduledSeq* part;
  size_t row, at;  // its first one; in the step's samples
};

std::vector<Core::Sampled> Core::sample(const sched::StepPlan& plan, std::span<const float> logits) {
  const auto vocab = static_cast<size_t>(model_.config().vocab);
  std::vector<Sampled> out;
  std::vector<SampledRow> shared, apart;
  size_t row = 0;
  for (const sched::ScheduledSeq& part : plan.seqs) {
    Sequence& seq = *find(part.id);
    if (seq.group->submission.pooling != Pooling::kNone) {  // it has no logits
      if (part.samples) out.push_back({.id = part.id});
      continue;
    }
    if (seq.wants_prompt_rows(part)) {
      const int32_t ahead = seq.rows_ahead(part);
      const auto count = static_cast<size_t>(part.n_tokens - ahead);
      keep_prompt_rows(seq, part.first_position + ahead, logits.subspan(row * vocab), count);
      row += count - 1;
    } else if (!part.samples) {
      continue;
    }
    if (part.samples) {
      (seq.samples_apart() ? apart : shared).push_back({&seq, &part, row, out.size()});
      out.push_back({.id = part.id, .n_drafts = part.n_drafts});
    }
    row += 1 + static_cast<size_t>(part.n_drafts);
  }
  scratch_.resize(static_cast<size_t>(model_.threads()));
  const auto sample_one = [&](const SampledRow& r, int thread) {
    sample_part(r, logits.subspan(r.row * vocab), scratch_[static_cast<size_t>(thread)], out[r.at]);
  };
  for (const SampledRow& r : shared) sample_one(r, 0);
  if (apart.size() == 1)
    sample_one(apart[0], 0);
  else if (!apart.empty())
    model_.share_out(std::ssize(apart), [&](int64_t i, int thread) { sample_one(apart[static_cast<size_t>(i)], thread); });
  return out;
}

// rows: its own, the first one first. Row i is what follows the i-th draft (row 0: the last known token), good as long as the drafts
// before it are what was sampled. So each token is drawn from the very logits, and with the very state of its sampler, that it
// would have had without drafts. Of sequences that sample apart: on any thread of the model's.
void Core::sample_part(const SampledRow& from, std::span<const float> rows, SamplerScratch& scratch, Sampled& out) const {
  const auto vocab = static_cast<size_t>(model_.config().vocab);
  const sched::ScheduledSeq& part = *from.part;
  Sequence& seq = *from.seq;
  const std::optional<int32_t> logprobs = seq.group->submission.logprobs;
  const std::vector<int32_t>& ids = seq.group->submission.logprob_ids;
  const std::span<const model::LogitPeak> peaks = model_.peaks();
  for (int32_t i = 0; i <= part.n_drafts; ++i) {
    const auto row = rows.subspan(static_cast<size_t>(i) * vocab, vocab);
    const model::LogitPeak peak = peaks.empty() ? model::peak_of(row) : peaks[from.row + static_cast<size_t>(i)];
    const Result<int32_t> token = seq.sampler.sample(row, peak, scratch);
    if (!token) {
      out.error = token.error();
      return;
    }
    seq.sampler.accept(*token);
    out.tokens.push_back(*token);
    if (logprobs) {
      out.tables.push_back(ids.empty() ? logprob_table(row, peak.value, *token, *logprobs)
                                       : logprobs_of(row, peak.value, *token, ids));
    }
    const bool goes_on = i < part.n_drafts && *token == part.drafts[static_cast<size_t>(i)];
    if (!goes_on || finish_after(seq, *token, seq.n_output + static_cast<int32_t>(out.tokens.size())) != Finish::kNone) return;
  }
}

// A part without tokens commits a placeholder, which nobody sees: it ends, or has no logits.
void Core::commit(const sched::StepPlan& plan, std::span<const Sampled> samples) {
  std::vector<int32_t> tokens, counts;
  for (const Sampled& part : samples) {
    tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
    if (part.tokens.empty()) tokens.push_back(0);
    counts.push_back(std::max(1, static_cast<int32_t>(part.tokens.size())));
  }
  scheduler_.commit(plan, tokens, counts);
}

void Core::hand_out(std::vector<Sampled> samples) {
  for (Sampled& part : samples) {
    Sequence* seq = find(part.id);
    const size_t n = part.tokens.size();
    if (seq && part.n_drafts > 0) note_drafts(*seq, part.n_drafts, std::max(1, static_cast<int32_t>(n)) - 1);
    for (size_t i = 0; seq && i < n; ++i, seq = find(part.id))
      on_token(*seq, part.tokens[i], part.tables.empty() ? LogprobTable{} : std::move(part.tables[i]), i > 0);
    if (!seq) continue;
    if (part.error)
      on_no_token(*seq, *part.error);
    else if (seq->group->submission.pooling != Pooling::kNone && std::ranges::any_of(seq->pooled, is_nan))
      on_no_token(*seq, {Code::kDataLoss, "the model gave an embedding that is not numbers"});
    else if (seq->group->submission.pooling != Pooling::kNone)
      end_pooled(*seq);
    else
      propose(*seq);
  }
}

// One bad prompt fails alone; weights that give no numbers for anything would answer nobody ever again.
void Core::on_no_token(Sequence& seq, const Error& error) {
  metrics_.corrupted.inc();
  const bool broken = error.code == Code::kDataLoss && !weights_give_numbers();
  if (broken && options_.on_broken) options_.on_broken();
  end_with_error(seq, Error{Code::kInternal, error.message});
  if (!broken) return;
  log_error("the model's weights give no numbers", "error=\"{}\"", error.message);
  refuse(Error{Code::kInternal, kEngineDead});
}

// One token of no sequence, in the null block, which nobody reads.
bool Core::weights_give_numbers() {
  const int32_t token = 0, block = kv::kNullBlock;
  const model::SeqInput probe{.tokens = {&token, 1}, .blocks = {&block, 1}, .last_logits = true};
  const auto row = model_.step({&probe, 1});
  return row && std::ranges::none_of(*row, is_nan);
}

// ---- drafts

void Core::propose(Sequence& seq) {
  if (!options_.speculation || seq.group->submission.prefill_leg) return;
  const SpeculativeConfig& config = *options_.speculation;
  const int32_t running = scheduler_.num_running();
  if (running > config.disable_by_batch_size.value_or(INT32_MAX)) return;
  if (!seq.drafts) seq.drafts = std::make_unique<Drafts>(config.prompt_lookup_min, config.prompt_lookup_max);
  const int32_t n = seq.drafts->pace.length(step_cost_.price(running), config.num_speculative_tokens);
  if (n == 0) return;
  NgramIndex& index = seq.drafts->index;
  index.append(scheduler_.view(seq.id)->tokens.subspan(index.size()));
  scheduler_.propose(seq.id, index.following(n));
}

// Of steps that only write answers: what another row costs.
void Core::note_step_cost(const sched::StepPlan& plan, int64_t began_ns) {
  if (!options_.speculation) return;
  const auto writes = [](const sched::ScheduledSeq& part) { return part.samples && part.n_tokens == 1 + part.n_drafts; };
  if (!std::ranges::all_of(plan.seqs, writes)) return;
  step_cost_.observe(plan.n_tokens, static_cast<double>(clock_.now_ns() - began_ns) * 1e-9);
}

void Core::note_drafts(Sequence& seq, int32_t drafted, int32_t accepted) {
  seq.drafts->pace.learn(drafted, accepted);
  metrics_.count_draft(drafted, accepted);
  drafts_.accepted_at.resize(static_cast<size_t>(options_.speculation->num_speculative_tokens));
  ++drafts_.drafts;
  drafts_.drafted += drafted;
  drafts_.accepted += accepted;
  for (int32_t i = 0; i < accepted; ++i) ++drafts_.accepted_at[static_cast<size_t>(i)];
}

std::string Core::speculation_line(double seconds) {
  if (drafts_.drafts == 0) return "";
  const auto drafts = static_cast<double>(drafts_.drafts), drafted = static_cast<double>(drafts_.drafted);
  const auto accepted = static_cast<double>(drafts_.accepted);
  std::string rates;
  for (const int64_t n : drafts_.accepted_at)
    rates += fmt::format("{}{:.3f}", rates.empty() ? "" : ", ", static_cast<double>(n) / drafts);
  std::string line = fmt::format(
      "SpecDecoding metrics: Mean acceptance length: {:.2f}, Accepted throughput: {:.2f} tokens/s, Drafted throughput: {:.2f} "
      "tokens/s, "
      "Accepted: {} tokens, Drafted: {} tokens, Per-position acceptance rate: {}, Avg Draft acceptance rate: {:.1f}%",
      1 + accepted / drafts, accepted / seconds, drafted / seconds, drafts_.accepted, drafts_.drafted, rates,
      100 * accepted / drafted);
  drafts_ = {};
  return line;
}

}  // namespace baton::engine
