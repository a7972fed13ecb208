#pragma once
// World: a random life of one scheduler. Clients come, leave, fetch from peers, are read by them and propose drafts; every step runs
// on the fake model, whose KV content is checked before and after, and the pool's books are checked against what the requests say
// they hold. A life is a function of its Setup and seed. For tests only.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <set>
#include <tuple>

#include "base/prng.h"
#include "sched/fake_model.h"
#include "sched/test_life.h"

namespace baton::sched {

class World {
 public:
  World(const Setup& setup, uint64_t seed)
      : setup_(setup),
        prng_(seed),
        bt_(setup.config.block_tokens),
        scheduler_(setup.config, kv::BlockPool(setup.usable_blocks + 1, setup.caching), kv::root_hash("test")),
        kv_(static_cast<size_t>(setup.usable_blocks + 1) * static_cast<size_t>(bt_)) {}

  void live(int operations, int requests_max) {
    for (int i = 0; i < operations && !testing::Test::HasFatalFailure(); ++i) {
      SCOPED_TRACE(testing::Message() << "operation " << i);
      double dice = prng_.uniform();
      if (dice < 0.25 && static_cast<int>(clients_.size()) < requests_max) {
        add();
      } else if (dice < 0.25 + setup_.abort_rate) {
        abort_one();
      } else if (dice < 0.45) {
        finish_a_fetch();
      } else if (dice < 0.5) {
        release_one();
      } else if (dice < 0.52) {
        unpin_one();
      } else {
        step();
      }
      check_books();
    }
  }

  // Everything ends and nothing leaks.
  void drain() {
    for (int i = 0; i < 100'000 && !testing::Test::HasFatalFailure(); ++i) {
      if (scheduler_.has_work() || !in_flight_.empty()) {
        step();
      } else if (!fetches_.empty()) {
        finish_a_fetch();
      } else if (!release_one()) {
        break;
      }
      check_books();
    }
    for (auto& [id, client] : clients_) ASSERT_TRUE(client.ended) << "request " << id << " never ended";
    ASSERT_EQ(scheduler_.pool().available(), scheduler_.pool().total());
    ASSERT_EQ(scheduler_.num_retained_blocks(), 0);
    ASSERT_EQ(scheduler_.num_running() + scheduler_.num_waiting(), 0);
    ASSERT_TRUE(scheduler_.reset_prefix_cache());
  }

  const std::map<RequestId, Client>& clients() const { return clients_; }
  Scheduler& scheduler() { return scheduler_; }
  uint64_t drafted() const { return drafted_; }
  uint64_t accepted() const { return accepted_; }

  // Prompts share a few beginnings, so that hits, duplicates and evictions all happen.
  void add() {
    Client client;
    NewRequest& r = client.request;
    r.id = next_id_++;
    uint64_t family = prng_.below(4);
    auto shared = prng_.below(static_cast<uint64_t>(setup_.prompt_max));
    auto length = static_cast<uint64_t>(prng_.between(1, std::min(setup_.prompt_max, setup_.config.max_model_len - 1)));
    for (uint64_t i = 0; i < length; ++i) {
      uint64_t token = i < shared ? Prng::at(family, i) : prng_.next();
      r.prompt.push_back(static_cast<int32_t>(token % kFakeVocab));
    }
    r.max_tokens = static_cast<int32_t>(prng_.between(1, setup_.output_max));
    r.priority = static_cast<int32_t>(prng_.between(-1, 1));
    r.arrival = static_cast<int64_t>(prng_.below(50));
    r.skip_prefix_lookup = prng_.chance(0.1);
    if (prng_.chance(0.2)) r.cache_salt = "tenant", client.salt = 77;
    if (setup_.adapters > 0 && prng_.chance(0.7)) {
      const auto id = static_cast<int32_t>(prng_.between(1, setup_.adapters));
      r.adapter = std::make_shared<kv::Adapter>(kv::Adapter{.id = id, .name = cat("adapter ", id), .digest = {}});
      client.salt += static_cast<uint64_t>(1000 * id);
    }
    if (prng_.chance(setup_.remote_rate)) {
      r.remote_tokens = static_cast<int32_t>(prng_.chance(0.7) ? length : 1 + prng_.below(length));
    }
    r.retain_on_finish = prng_.chance(setup_.retain_rate);
    client.wants_pin = prng_.chance(setup_.pin_rate);
    if (client.wants_pin) {
      r.max_tokens = 1;
      r.remote_tokens = 0;
      r.chunk_tokens = static_cast<int32_t>(prng_.between(0, 10));
    }
    client.serial = static_cast<int64_t>(r.id);
    bool can_fit = (static_cast<int32_t>(length) + bt_) / bt_ <= setup_.usable_blocks;
    auto added = scheduler_.add(r);
    ASSERT_EQ(added.has_value(), can_fit) << (added ? "" : added.error().message);
    if (added) clients_.emplace(r.id, std::move(client));
  }

  void step() {
    propose();
    bool has_work = scheduler_.has_work();
    auto before = first_in_queue();
    Planned planned{.plan = scheduler_.plan(), .blocks = {}, .tokens = {}};
    const StepPlan& plan = planned.plan;
    if (has_work) {
      ASSERT_FALSE(plan.seqs.empty() && plan.fetches.empty() && plan.preempted.empty() && plan.exhausted.empty())
          << "no progress";
    } else {
      ASSERT_TRUE(plan.seqs.empty() && plan.fetches.empty() && plan.preempted.empty());
    }
    check_plan(plan);
    check_order(plan, before);
    for (const ScheduledSeq& seq : plan.seqs) {
      planned.blocks.emplace_back(seq.blocks.begin(), seq.blocks.end());
      auto tokens = scheduler_.view(seq.id)->tokens;
      planned.tokens.emplace_back(tokens.begin(), tokens.end());
      planned.tokens.back().insert(planned.tokens.back().end(), seq.drafts.begin(), seq.drafts.end());
      drafted_ += static_cast<uint64_t>(seq.n_drafts);
    }
    for (const RemoteFetch& fetch : plan.fetches) {
      if (fetch.n_tokens > 0) {
        fetches_.push_back({.plan = fetch, .step = plan.step});
      } else {
        ASSERT_FALSE(scheduler_.remote_done(fetch.id, 0, 5));  // nobody waits
      }
    }
    for (RequestId id : plan.exhausted) end(id, true);
    for (const ScheduledSeq& seq : plan.seqs) {
      Client& c = clients_.at(seq.id);
      if (!c.wants_pin || c.ended) continue;
      scheduler_.pin(seq.id);
      c.pinned = true;
    }
    in_flight_.push_back(std::move(planned));
    size_t ahead = plan.seqs.empty() || prng_.chance(0.1) ? 0 : setup_.plans_ahead;
    while (in_flight_.size() > ahead) run_and_commit();
  }

 private:
  uint64_t& cell(BlockId block, int32_t slot) { return kv_[static_cast<size_t>(block * bt_ + slot)]; }
  uint64_t& cell_of(std::span<const BlockId> blocks, int32_t p) { return cell(blocks[static_cast<size_t>(p / bt_)], p % bt_); }

  // Guesses at what running requests answer next, for some of them, and of what is no time to guess about.
  void propose() {
    for (auto& [id, c] : clients_) {
      if (!prng_.chance(setup_.draft_rate)) continue;
      auto view = scheduler_.view(id);
      if (!view) continue;
      auto drafts = fake_answer({view->tokens.begin(), view->tokens.end()}, 1 + prng_.below(20), c.salt);
      for (int32_t& token : drafts) token = prng_.chance(setup_.draft_skill) ? token : 1;
      scheduler_.propose(id, drafts);
    }
  }

  auto key(const Client& c) const {
    const NewRequest& r = c.request;
    return setup_.config.priority_policy ? std::tuple<int64_t, int64_t, int64_t>(r.priority, r.arrival, c.serial)
                                         : std::tuple<int64_t, int64_t, int64_t>(0, 0, c.serial);
  }

  // The best key among requests that wait and were never admitted.
  std::optional<std::tuple<int64_t, int64_t, int64_t>> first_in_queue() {
    std::optional<std::tuple<int64_t, int64_t, int64_t>> best;
    for (auto& [id, c] : clients_) {
      if (!c.ended && !c.admitted && (!best || key(c) < *best)) best = key(c);
    }
    return best;
  }

  void check_plan(const StepPlan& plan) {
    const SchedulerConfig& config = setup_.config;
    int32_t sum = 0;
    std::set<RequestId> ids;
    for (const ScheduledSeq& seq : plan.seqs) {
      auto view = *scheduler_.view(seq.id);
      auto known = static_cast<int32_t>(view.tokens.size());
      ASSERT_TRUE(ids.insert(seq.id).second) << "scheduled twice";
      ASSERT_EQ(view.state, State::kRunning);
      ASSERT_GT(seq.n_tokens, 0);
      ASSERT_EQ(view.num_computed, seq.first_position + seq.n_tokens);
      ASSERT_LE(view.num_computed - seq.n_drafts, known);
      ASSERT_EQ(seq.samples, view.num_computed - seq.n_drafts == known);
      ASSERT_EQ(std::cmp_equal(seq.drafts.size(), seq.n_drafts), true);
      if (seq.n_drafts > 0) {  // never a token too many, nor for anybody's harm
        ASSERT_LT(known + seq.n_drafts, std::min(view.num_prompt + clients_.at(seq.id).request.max_tokens, config.max_model_len));
        ASSERT_EQ(seq.n_tokens, 1 + seq.n_drafts);
        ASSERT_TRUE(plan.preempted.empty());
      }
      ASSERT_LE(view.num_computed, static_cast<int32_t>(seq.blocks.size()) * bt_);
      ASSERT_LT(known, std::min(view.num_prompt + clients_.at(seq.id).request.max_tokens, config.max_model_len));
      if (config.long_prefill_token_threshold > 0) ASSERT_LE(seq.n_tokens - seq.n_drafts, config.long_prefill_token_threshold);
      int32_t chunk = config.chunked_prefill ? clients_.at(seq.id).request.chunk_tokens : 0;
      if (chunk > 0) ASSERT_LE(seq.n_tokens - seq.n_drafts, chunk);
      bool may_cut =
          config.chunked_prefill || config.long_prefill_token_threshold > 0 || clients_.at(seq.id).request.remote_tokens > 0;
      if (!may_cut && known <= config.max_num_batched_tokens) {
        ASSERT_TRUE(seq.samples) << "cut although chunking is off";
      }
      // Blocks written in this step belong to this request alone.
      for (int32_t p = seq.first_position; p < view.num_computed; ++p) {
        ASSERT_EQ(scheduler_.pool().ref_count(seq.blocks[static_cast<size_t>(p / bt_)]), 1);
      }
      sum += seq.n_tokens;
    }
    ASSERT_EQ(sum, plan.n_tokens);
    ASSERT_LE(sum, config.max_num_batched_tokens);
    ASSERT_LE(scheduler_.num_running() + scheduler_.num_waiting_remote(), config.max_num_seqs);
    check_adapters();
    for (RequestId id : plan.preempted) {
      ASSERT_EQ(scheduler_.view(id)->state, State::kPreempted);
      ASSERT_FALSE(clients_.at(id).pinned) << "blocks freed under a reader";
    }
    for (const RemoteFetch& fetch : plan.fetches) {
      auto view = *scheduler_.view(fetch.id);
      ASSERT_EQ(fetch.first_token % bt_, 0);
      if (fetch.n_tokens == 0) continue;
      ASSERT_EQ(view.state, State::kWaitingRemote);
      ASSERT_EQ(fetch.first_token + fetch.n_tokens, clients_.at(fetch.id).request.remote_tokens);
      ASSERT_EQ(static_cast<int32_t>(fetch.blocks.size()), (fetch.n_tokens + bt_ - 1) / bt_);
      for (size_t i = 0; i < fetch.blocks.size(); ++i) {
        ASSERT_EQ(fetch.blocks[i], view.blocks[static_cast<size_t>(fetch.first_token / bt_) + i]);
        ASSERT_EQ(scheduler_.pool().ref_count(fetch.blocks[i]), 1);
      }
    }
  }

  // The scheduler's count of who wants which adapter is what the requests say.
  void check_adapters() {
    std::map<int32_t, std::pair<int32_t, int32_t>> want, got;
    for (auto& [id, c] : clients_) {
      auto view = scheduler_.view(id);
      if (!c.request.adapter || !view || view->state == State::kFinished) continue;
      auto& [waiting, active] = want[c.request.adapter->id];
      ++(view->state == State::kRunning || view->state == State::kWaitingRemote ? active : waiting);
    }
    for (auto& [id, use] : scheduler_.adapters()) got[id] = {use.waiting, use.active};
    ASSERT_EQ(got, want);
    ASSERT_LE(std::ranges::count_if(want, [](auto& entry) { return entry.second.second > 0; }), setup_.config.max_loras);
  }

  // Nobody overtakes: who is admitted for the first time had the best place. Who is preempted was worse than all who still run.
  void check_order(const StepPlan& plan, std::optional<std::tuple<int64_t, int64_t, int64_t>> best) {
    std::set<RequestId> first_time;
    for (const ScheduledSeq& seq : plan.seqs) first_time.insert(seq.id);
    for (const RemoteFetch& fetch : plan.fetches) first_time.insert(fetch.id);
    std::vector<std::tuple<int64_t, int64_t, int64_t>> admitted;
    for (RequestId id : first_time) {
      Client& c = clients_.at(id);
      if (!c.admitted) admitted.push_back(key(c));
      c.admitted = true;
    }
    for (RequestId id : plan.exhausted) clients_.at(id).admitted = true;
    if (!admitted.empty()) {
      std::ranges::sort(admitted);
      auto next = first_in_queue();
      if (setup_.adapters == 0) {  // else whoever waits for an adapter is passed over
        ASSERT_EQ(admitted.front(), *best);
        ASSERT_TRUE(!next || admitted.back() < *next) << "overtaken";
      }
      ASSERT_TRUE(plan.preempted.empty()) << "admitted while others were preempted";
    }
    if (!setup_.config.priority_policy) return;
    for (RequestId victim : plan.preempted) {
      for (auto& [id, c] : clients_) {
        if (!c.ended && !c.pinned && scheduler_.view(id)->state == State::kRunning) ASSERT_LT(key(c), key(clients_.at(victim)));
      }
    }
  }

  void run_and_commit() {
    Planned planned = std::move(in_flight_.front());
    in_flight_.pop_front();
    const StepPlan& plan = planned.plan;
    std::vector<int32_t> sampled, counts;
    // All reads see the content of before the step; nothing this step writes may be under another's feet afterwards.
    for (int pass = 0; pass < 2; ++pass) {
      for (size_t i = 0; i < plan.seqs.size(); ++i) {
        const ScheduledSeq& seq = plan.seqs[i];
        auto content = fake_kv(planned.tokens[i], clients_.at(seq.id).salt);
        for (int32_t p = 0; p < seq.first_position + (pass == 1 ? seq.n_tokens : 0); ++p) {
          ASSERT_EQ(cell_of(planned.blocks[i], p), content[static_cast<size_t>(p)])
              << "request " << seq.id << " position " << p << " block " << planned.blocks[i][static_cast<size_t>(p / bt_)];
        }
      }
      for (size_t i = 0; pass == 0 && i < plan.seqs.size(); ++i) {
        const ScheduledSeq& seq = plan.seqs[i];
        auto content = fake_kv(planned.tokens[i], clients_.at(seq.id).salt);
        for (int32_t p = seq.first_position; p < seq.first_position + seq.n_tokens; ++p) {
          cell_of(planned.blocks[i], p) = content[static_cast<size_t>(p)];
        }
        if (seq.samples) counts.push_back(verify(seq, planned.tokens[i], content, sampled));
      }
    }
    scheduler_.commit(plan, sampled, counts);
    take(plan, sampled, counts);
    for (Fetch& fetch : fetches_) fetch.started |= fetch.step <= plan.step + 1;
  }

  // What was sampled after the last known token and after each right guess; now and then it stops early. Returns how many.
  int32_t verify(const ScheduledSeq& seq, std::span<const int32_t> tokens, std::span<const uint64_t> content, std::vector<int32_t>& sampled) {
    auto known = static_cast<size_t>(seq.first_position + seq.n_tokens - seq.n_drafts);
    for (int32_t n = 1;; ++n, ++known) {
      sampled.push_back(fake_next(content[known - 1]));
      if (n > seq.n_drafts || sampled.back() != tokens[known] || prng_.chance(0.05)) return n;
    }
  }

  void take(const StepPlan& plan, std::span<const int32_t> sampled, std::span<const int32_t> counts) {
    size_t next = 0, next_count = 0;
    for (const ScheduledSeq& seq : plan.seqs) {
      if (!seq.samples) continue;
      const auto n = static_cast<size_t>(counts[next_count++]);
      auto tokens = sampled.subspan(next, n);
      next += n;
      Client& client = clients_.at(seq.id);
      if (client.ended) continue;
      auto view = *scheduler_.view(seq.id);
      if (view.num_output == static_cast<int32_t>(client.output.size())) continue;  // sampled twice around a preemption
      accepted_ += n - 1;
      client.output.insert(client.output.end(), tokens.begin(), tokens.end());
      ASSERT_EQ(view.tokens.back(), tokens.back());
      ASSERT_EQ(view.num_output, static_cast<int32_t>(client.output.size()));
      if (seq.n_drafts > 0 && view.state == State::kRunning) {  // nothing is left of what was wrong
        ASSERT_LE(view.num_computed, static_cast<int32_t>(view.tokens.size()) - 1);
        ASSERT_LE(static_cast<int32_t>(view.blocks.size()), (static_cast<int32_t>(view.tokens.size()) + bt_ - 1) / bt_);
      }
      end_if_complete(seq.id);
    }
  }

  void end_if_complete(RequestId id) {
    Client& c = clients_.at(id);
    auto total = static_cast<int32_t>(c.request.prompt.size() + c.output.size());
    bool full = static_cast<int32_t>(c.output.size()) == c.request.max_tokens || total == setup_.config.max_model_len;
    if (full) end(id, false);
  }

  void end(RequestId id, bool exhausted) {
    Client& c = clients_.at(id);
    ASSERT_FALSE(c.ended) << "ended twice";
    ASSERT_EQ(c.output, fake_answer(c.request.prompt, c.output.size(), c.salt)) << "request " << id << ": wrong answer";
    if (exhausted) {
      auto known = static_cast<int32_t>(c.request.prompt.size() + c.output.size());
      ASSERT_GT((known + bt_ - 1) / bt_, setup_.usable_blocks) << "given up although it fits";
    }
    c.ended = true;
    c.exhausted = exhausted;
    bool had_blocks = !scheduler_.view(id)->blocks.empty();
    bool running = scheduler_.view(id)->state == State::kRunning;
    scheduler_.finish(id);
    c.retained = (c.request.retain_on_finish || c.pinned) && had_blocks && running;
    ASSERT_EQ(scheduler_.view(id).has_value(), c.retained);
  }

  void abort_one() {
    if (clients_.empty()) return;
    auto it = clients_.begin();
    std::advance(it, static_cast<ptrdiff_t>(prng_.below(clients_.size())));
    bool read = !it->second.ended && it->second.pinned;
    scheduler_.abort(it->first);  // at any state; a no-op for the ended and the retained
    it->second.ended = true;
    it->second.retained |= read;
    if (it->second.retained) ASSERT_TRUE(scheduler_.view(it->first).has_value());
  }

  // The reader of a prompt that is still being computed leaves.
  void unpin_one() {
    for (auto& [id, c] : clients_) {
      if (c.ended || !c.pinned) continue;
      scheduler_.release_retained(id);
      ASSERT_TRUE(scheduler_.view(id));
      c.wants_pin = c.pinned = c.request.retain_on_finish = false;
      return;
    }
  }

  bool release_one() {
    for (auto& [id, c] : clients_) {
      if (!c.retained) continue;
      c.retained = false;
      auto view = *scheduler_.view(id);
      EXPECT_EQ(view.state, State::kFinished);
      // What a peer would read now is this prompt's KV, however long ago it finished.
      auto content = fake_kv(view.tokens, c.salt);
      for (int32_t p = 0; in_flight_.empty() && p < std::min(view.num_computed, view.num_prompt); ++p) {
        EXPECT_EQ(cell_of(view.blocks, p), content[static_cast<size_t>(p)]);
      }
      scheduler_.release_retained(id);
      EXPECT_FALSE(scheduler_.view(id));
      return true;
    }
    return false;
  }

  // The transfer writes whatever became of the request; only what it says was verified is right.
  void finish_a_fetch() {
    std::vector<size_t> started;
    for (size_t i = 0; i < fetches_.size(); ++i) {
      if (fetches_[i].started || in_flight_.empty()) started.push_back(i);
    }
    if (started.empty()) return;
    size_t pick = started[prng_.below(started.size())];
    RemoteFetch fetch = fetches_[pick].plan;
    fetches_.erase(fetches_.begin() + static_cast<ptrdiff_t>(pick));
    Client& c = clients_.at(fetch.id);
    auto content = fake_kv(c.request.prompt, c.salt);
    int32_t good = fetch.n_tokens;
    if (prng_.chance(setup_.fetch_failure_rate)) good = static_cast<int32_t>(prng_.below(static_cast<uint64_t>(fetch.n_tokens)));
    for (int32_t i = 0; i < fetch.n_tokens; ++i) {
      uint64_t right = content[static_cast<size_t>(fetch.first_token + i)];
      cell(fetch.blocks[static_cast<size_t>(i / bt_)], i % bt_) = i < good ? right : prng_.next();
    }
    std::optional<int32_t> first;
    if (prng_.chance(0.6)) first = fake_next(content.back());
    int32_t valid = good == 0 && prng_.chance(0.5) ? 0 : fetch.first_token + good;
    bool taken = scheduler_.remote_done(fetch.id, valid, first);
    ASSERT_EQ(taken, !c.ended);
    if (!taken) {
      ASSERT_FALSE(scheduler_.view(fetch.id)) << "an aborted fetch must leave nothing";
      return;
    }
    auto view = *scheduler_.view(fetch.id);
    ASSERT_EQ(view.num_external, good);
    ASSERT_EQ(view.num_output, first ? 1 : 0);
    if (first) {
      c.output.push_back(*first);
      end_if_complete(fetch.id);
    }
  }

  // Conservation: every reference the pool counts is one that a request shows, and all else is free.
  void check_books() {
    std::map<BlockId, int> refs;
    int32_t retained = 0;
    for (auto& [id, c] : clients_) {
      auto view = scheduler_.view(id);
      if (!view) continue;
      for (BlockId b : view->blocks) {
        ASSERT_NE(b, kv::kNullBlock);
        ++refs[b];
      }
      if (c.retained) retained += static_cast<int32_t>(view->blocks.size());
      if (!c.ended) ASSERT_EQ(static_cast<size_t>(view->num_output), c.output.size());
    }
    int32_t used = 0;
    for (BlockId b = 1; b <= scheduler_.pool().total(); ++b) {
      ASSERT_EQ(scheduler_.pool().ref_count(b), refs[b]) << "block " << b;
      used += refs[b] > 0;
    }
    ASSERT_EQ(scheduler_.pool().available(), scheduler_.pool().total() - used);
    ASSERT_EQ(scheduler_.num_retained_blocks(), retained);
  }

  const Setup setup_;
  Prng prng_;
  const int32_t bt_;
  Scheduler scheduler_;
  std::vector<uint64_t> kv_;  // [block][slot]
  std::map<RequestId, Client> clients_;
  std::vector<Fetch> fetches_;
  std::deque<Planned> in_flight_;
  RequestId next_id_ = 1;
  uint64_t drafted_ = 0, accepted_ = 0;
};

}  // namespace baton::sched
