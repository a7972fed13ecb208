#include "engine/beam_search.h"

#include <algorithm>
#include <cmath>

#include "engine/answer.h"

namespace baton::engine {
wire::Choice beam_choice(const text::Tokenizer& tokenizer, const wire::GenerateFields& f, const Beam& beam) {
  std::vector<int32_t> tokens = beam.tokens;
  if (beam.end && f.include_stop_str_in_output) tokens.push_back(*beam.end);
  wire::Choice choice{.text = tokenizer.decode(tokens, f.skip_special_tokens)};
  choice.stop.finish_reason = beam.end ? "stop" : "length";
  if (beam.stop_id) choice.stop.stop_token = beam.end;
  choice.logprobs = f.logprobs.has_value();
  choice.top = f.logprobs.value_or(0);
  for (size_t i = 0; choice.logprobs && i < beam.tables.size(); ++i)
    choice.rows.push_back(logprob_row(tokenizer, beam.tables[i], f.return_tokens_as_token_ids));
  if (f.return_token_ids) choice.token_ids = std::move(tokens);
  return choice;
}

BeamSearch::BeamSearch(const Serving& serving, Submission base, BeamOptions options)
    : s_(serving), base_(std::move(base)), options_(options), beams_(1) {}

double BeamSearch::score(double logprob, size_t tokens) const {
  return logprob / std::pow(static_cast<double>(base_.prompt.size() + tokens), options_.length_penalty);
}

void BeamSearch::keep_best(std::vector<Beam>& beams) const {
  std::sort(beams.begin(), beams.end(), [this](const Beam& a, const Beam& b) {
    const double of_a = score(a.logprob, a.tokens.size()), of_b = score(b.logprob, b.tokens.size());
    return of_a != of_b ? of_a > of_b : a.tokens < b.tokens;
  });
  if (beams.size() > static_cast<size_t>(options_.width)) beams.resize(static_cast<size_t>(options_.width));
}

void BeamSearch::abort() {
  if (running_ > 0) s_.loop->post([first = first_id_, n = running_](Core& core) { core.abort(first, n); });
}

// The likeliest next tokens of every beam.
net::Task<Result<std::vector<LogprobTable>>> BeamSearch::step() {
  running_ = static_cast<int32_t>(beams_.size());
  first_id_ = s_.loop->reserve_ids(running_);
  for (int32_t i = 0; i < running_; ++i) {
    Submission one;
    one.first_id = first_id_ + static_cast<uint64_t>(i);
    one.first_choice = i;
    one.prompt = base_.prompt;
    const std::vector<int32_t>& tokens = beams_[static_cast<size_t>(i)].tokens;
    one.prompt.insert(one.prompt.end(), tokens.begin(), tokens.end());
    one.sampling.temperature = 0;
    one.max_tokens = 1;
    one.logprobs = 2 * options_.width;
    one.priority = base_.priority;
    one.cache_salt = base_.cache_salt;
    one.adapter = base_.adapter;
    one.arrived_ns = base_.arrived_ns;
    one.out = base_.out;
    s_.loop->post([one = std::move(one)](Core& core) mutable { core.submit(std::move(one)); });
  }
  std::vector<LogprobTable> tables(beams_.size());
  for (int32_t left = running_; left > 0; --left) {
    auto event = co_await base_.out->pop();
    if (!event) co_return fail(Code::kCancelled, "the engine is shutting down");
    if (event->error) co_return std::unexpected(*event->error);
    if (event->first && !waterfall_) {
      waterfall_ = event->first->waterfall;
      cached_ = event->first->cached_tokens;
    }
    tables[static_cast<size_t>(event->choice)] = std::move(event->logprobs);
  }
  running_ = 0;
  co_return tables;
}

void BeamSearch::extend(const std::vector<LogprobTable>& tables) {
  struct Candidate {
    double score;
    size_t beam, row;
  };
  std::vector<Candidate> next;
  for (size_t i = 0; i < beams_.size(); ++i) {
    for (size_t k = 0; k < tables[i].size(); ++k) {
      const TokenLogprob& token = tables[i][k];
      const double logprob = beams_[i].logprob + static_cast<double>(token.logprob);
      const auto ends = [&](const std::vector<int32_t>& ids) { return std::find(ids.begin(), ids.end(), token.id) != ids.end(); };
      const bool eos = ends(base_.eos_ids), stop = ends(base_.stop_ids);
      if (!eos && !stop) {
        next.push_back({score(logprob, beams_[i].tokens.size() + 1), i, k});
        continue;
      }
      Beam& beam = ended_.emplace_back(beams_[i]);
      beam.logprob = logprob;
      beam.end = token.id;
      beam.stop_id = !eos;
    }
  }
  std::sort(next.begin(), next.end(), [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : std::pair(a.beam, a.row) < std::pair(b.beam, b.row);
  });
  next.resize(std::min(next.size(), static_cast<size_t>(options_.width)));
  std::vector<Beam> beams;
  for (const Candidate& c : next) {
    const LogprobTable& table = tables[c.beam];
    Beam& beam = beams.emplace_back(beams_[c.beam]);
    beam.logprob += static_cast<double>(table[c.row].logprob);
    beam.tokens.push_back(table[c.row].id);
    LogprobTable own{table[c.row]};  // the chosen token first, then the others by rank
    for (size_t k = 0; k < table.size(); ++k) {
      if (k != c.row) own.push_back(table[k]);
    }
    beam.tables.push_back(std::move(own));
  }
  keep_best(ended_);  // one that is not among the best of these will not be among the best of all
  beams_ = std::move(beams);
}

net::Task<Result<std::vector<Beam>>> BeamSearch::run() {
  for (int32_t i = 0; i < base_.max_tokens && !beams_.empty(); ++i) {
    auto tables = co_await step();
    if (!tables) co_return std::unexpected(tables.error());
    extend(*tables);
  }
  std::vector<Beam> all = std::move(ended_);
  std::move(beams_.begin(), beams_.end(), std::back_inserter(all));
  keep_best(all);
  co_return all;
}

}  // namespace baton::engine
