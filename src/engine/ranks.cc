#include "engine/ranks.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "engine/limits.h"
#include "kv/layout.h"
#include "model/rank_shard.h"
#include "tensor/threads.h"
#include "transfer/socket.h"

extern char** environ;

namespace baton::engine {
namespace {

// What a rank must know of the configuration: all that decides how the model is loaded.
std::vector<std::string> flags_of(const EngineConfig& c) {
  return {"--model",
          c.model,
          "--threads",
          std::to_string(load_options(c).threads),
          "--isa",
          c.isa,
          "--kv-cache-dtype",
          c.kv_cache_dtype,
          "--block-size",
          std::to_string(c.block_size),
          "--max-model-len",
          std::to_string(c.max_model_len),
          "--log-level",
          c.log_level,
          "--tensor-parallel-size",
          std::to_string(c.tensor_parallel_size)};
}

Result<pid_t> start_process(const EngineConfig& config, int rank, const RankLinks& links) {
  const int given[] = {links.control.get(), links.adapters.get(), links.group_fd};
  std::vector<std::string> words = {"baton-engine", std::string(kRankCommand), std::to_string(rank)};
  for (const int fd : given) words.push_back(std::to_string(fd));
  words.push_back(std::to_string(::getpid()));
  for (std::string& flag : flags_of(config)) words.push_back(std::move(flag));
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (const int fd : given) posix_spawn_file_actions_adddup2(&actions, fd, fd);  // not closed on exec
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail(Code::kUnavailable, "start rank ", rank, ": ", std::strerror(error));
  return pid;
}

// Both ends of a socket for messages to rank `rank`.
Result<std::array<transfer::Fd, 2>> socket_pair(int rank) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return fail(Code::kResourceExhausted, "a socket for rank ", rank, ": ", std::strerror(errno));
  return std::array{transfer::Fd(ends[0]), transfer::Fd(ends[1])};
}

// Room for the largest step that the scheduler may plan: a sequence's drafts and its last, half-filled block come on top.
int64_t order_words(const EngineConfig& c, const model::ModelConfig& m) {
  const int64_t context = c.max_model_len > 0 ? c.max_model_len : m.context;
  const int64_t seqs = c.max_num_seqs, blocks = context / c.block_size + 2 + kDraftTokensMax / c.block_size;
  return model::words_of(seqs, c.max_num_batched_tokens + seqs * (1 + kDraftTokensMax), seqs * blocks);
}

}  // namespace

model::LoadOptions load_options(const EngineConfig& c) {
  model::LoadOptions options{
      .threads = c.threads,
      .isa = c.isa,
      .block_tokens = c.block_size,
      .kv_dtype = {},
      .context = c.max_model_len,
      .progress = {}};
  if (c.kv_cache_dtype != "auto") options.kv_dtype = kv::find_cache_dtype(c.kv_cache_dtype)->dtype;  // one of them: the option's choices
  if (c.threads == 0 && c.tensor_parallel_size > 1) options.threads = std::max(1, tensor::usable_cpu_count() / c.tensor_parallel_size);
  return options;
}

Result<std::unique_ptr<Ranks>> Ranks::start(const EngineConfig& config, const model::ModelConfig& model) {
  return start(config, model, [&](int rank, const RankLinks& links) { return start_process(config, rank, links); });
}

Result<std::unique_ptr<Ranks>> Ranks::start(const EngineConfig& config, const model::ModelConfig& model, const Start& start) {
  const int n = config.tensor_parallel_size;
  BATON_OK(model::shard_of(model, 0, n));  // before anything is started
  std::unique_ptr<Ranks> ranks(new Ranks);
  BATON_TRY(ranks->group_,
            model::RankGroup::create(
                {.ranks = n, .hidden = model.hidden, .vocab = model.vocab, .order_words = order_words(config, model)}));
  ranks->ending_ = transfer::Fd(::eventfd(0, EFD_CLOEXEC));
  std::vector<transfer::Fd> adapters;
  for (int rank = 1; rank < n; ++rank) {
    BATON_TRY(auto control, socket_pair(rank));
    BATON_TRY(auto adapter, socket_pair(rank));
    Rank& other = ranks->others_.emplace_back();
    other.control = std::move(control[0]);
    adapters.push_back(std::move(adapter[0]));
    BATON_TRY(other.pid, start(rank, {std::move(control[1]), std::move(adapter[1]), ranks->group_->fd()}));
  }
  ranks->adapters_ = std::make_shared<RankAdapters>(std::move(adapters));
  return ranks;
}

Ranks::~Ranks() {
  const uint64_t one = 1;
  if (ending_ && ::write(ending_.get(), &one, sizeof one) < 0) log_error("the ranks' watcher cannot be woken");
  if (watcher_.joinable()) watcher_.join();
  for (const Rank& other : others_) {  // they have nothing to lose
    if (other.pid <= 0) continue;
    ::kill(other.pid, SIGKILL);
    while (::waitpid(other.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  if (group_) group_->fail();
}

// The one message a rank sends at a time: empty text is no message but its end, "ok", or what went wrong.
Result<> Ranks::reply_of(size_t i, int64_t patience_ms) {
  pollfd waiting{.fd = others_[i].control.get(), .events = POLLIN, .revents = 0};
  char text[4096];
  if (::poll(&waiting, 1, static_cast<int>(patience_ms)) <= 0) {
    group_->fail();  // what it says later would be taken for another answer
    return fail(Code::kDeadlineExceeded, "rank ", i + 1, " does not answer");
  }
  const ssize_t n = ::recv(others_[i].control.get(), text, sizeof text, 0);
  if (n <= 0) return fail(Code::kUnavailable, "rank ", i + 1, " ended");
  const std::string_view said(text, static_cast<size_t>(n));
  if (said != "ok") return fail(Code::kInternal, "rank ", i + 1, ": ", said);
  return {};
}

// Of all, whatever the first of them says: each answer is to one order. The first that is an error.
Result<> Ranks::replies(int64_t patience_ms) {
  Result<> all;
  for (size_t i = 0; i < others_.size(); ++i)
    if (auto one = reply_of(i, patience_ms); !one && all) all = std::move(one);
  return all;
}

Result<> Ranks::await_loaded() {
  BATON_OK(replies(kRankLoadMs));
  watcher_ = std::thread([this] { watch(); });
  return {};
}

Result<> Ranks::share_pool(const transfer::PoolMemory* pool) {
  if (group_->failed()) return fail(Code::kUnavailable, "a rank of the model was lost");
  BATON_OK(group_->give(pool ? model::RankGroup::Order::kTakePool : model::RankGroup::Order::kLeavePool));
  for (const Rank& other : others_)
    if (pool) BATON_OK(transfer::send_descriptor(other.control, pool->fd()));
  return replies(model::kRankPatienceMs);
}

Result<> Ranks::keep_weights(model::Model& first, bool keep) {
  if (group_->failed()) return fail(Code::kUnavailable, "a rank of the model was lost");
  using Order = model::RankGroup::Order;
  BATON_OK(group_->give(keep ? Order::kLoadWeights : Order::kDropWeights));
  const Result<> mine = first.keep_weights(keep);  // while the others do the same
  const Result<> theirs = replies(kRankLoadMs);
  return mine ? theirs : mine;
}

void Ranks::on_lost(std::function<void()> lost) {
  std::lock_guard lock(mutex_);
  on_lost_ = std::move(lost);
  if (lost_ && on_lost_) on_lost_();
}

void Ranks::lose(std::string_view why) {
  group_->fail();
  log_error("the model is lost", "why=\"{}\"", why);
  std::lock_guard lock(mutex_);
  lost_ = true;
  if (on_lost_) on_lost_();
}

void Ranks::watch() {
  std::vector<pollfd> ends;
  for (const Rank& other : others_) ends.push_back({.fd = other.control.get(), .events = POLLRDHUP, .revents = 0});
  ends.push_back({.fd = ending_.get(), .events = POLLIN, .revents = 0});
  for (;;) {
    if (::poll(ends.data(), ends.size(), kRankWatchMs) < 0 && errno != EINTR) return lose("its ranks cannot be watched");
    if (ends.back().revents != 0) return;
    for (size_t i = 0; i < others_.size(); ++i)
      if (ends[i].revents != 0) return lose(cat("rank ", i + 1, " (process ", others_[i].pid, ") ended"));
    if (group_->failed()) return lose("a rank did not come to a meeting");
  }
}

}  // namespace baton::engine
