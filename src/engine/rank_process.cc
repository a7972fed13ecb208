// The process of a rank other than 0: engine/ranks.h.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/log.h"
#include "engine/ranks.h"
#include "transfer/socket.h"
#include "transfer/transfer.h"

namespace baton::engine {
namespace {

// The engine's KV pool, as this process sees it.
class SharedPool {
 public:
  ~SharedPool() { leave(); }
  Result<std::span<std::byte>> take(const transfer::Fd& control) {
    leave();
    BATON_TRY(const transfer::Fd fd, transfer::receive_descriptor(control));
    struct stat st{};
    if (::fstat(fd.get(), &st) != 0) return fail(Code::kInternal, "the KV pool: ", std::strerror(errno));
    const auto bytes = static_cast<size_t>(st.st_size);
    BATON_TRY(bytes_, transfer::map_pool(fd.get(), bytes, PROT_READ | PROT_WRITE));
    return bytes_;
  }
  void leave() {
    if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
    bytes_ = {};
  }

 private:
  std::span<std::byte> bytes_;
};

void answer(const transfer::Fd& control, const Result<>& done) {
  const std::string text = done ? "ok" : done.error().message;
  // Rank 0 may be gone: then this process ends anyway.
  (void)!::send(control.get(), text.data(), std::min<size_t>(text.size(), 4096), MSG_NOSIGNAL);
}

Result<> take_step(model::Model& model, const model::RankGroup& group, const RankAdapterReader& adapters) {
  std::vector<std::shared_ptr<const model::LoraAdapter>> held;
  const auto find = [&](int32_t number) { return held.emplace_back(adapters.find(number)).get(); };
  BATON_TRY(const std::vector<model::SeqInput> seqs, group.step(find));
  BATON_OK(model.step(seqs));
  return {};
}

int number(const std::vector<std::string>& args, size_t i) {
  int n = -1;
  if (i < args.size()) std::from_chars(args[i].data(), args[i].data() + args[i].size(), n);
  return n;
}

}  // namespace

Result<> run_rank(const EngineConfig& config, int rank, RankLinks links) {
  const transfer::Fd& control = links.control;
  BATON_TRY(auto group, model::RankGroup::attach(links.group_fd, rank));
  model::LoadOptions options = load_options(config);
  options.ranks = group.get();
  auto model = model::Model::load(config.model, options);
  answer(control, model ? Result<>() : std::unexpected(model.error()));
  if (!model) return std::unexpected(model.error());
  SharedPool pool;
  RankAdapterReader adapters(**model, std::move(links.adapters));
  using Order = model::RankGroup::Order;
  while (const auto order = group->await_order()) {
    if (*order == Order::kStep) {
      if (auto done = take_step(**model, *group, adapters); !done) {
        group->fail();
        return done;
      }
      continue;
    }
    Result<> done;
    if (*order == Order::kTakePool) {
      const auto bytes = pool.take(control);
      done = bytes ? (*model)->bind_kv(*bytes) : std::unexpected(bytes.error());
    } else if (*order == Order::kLeavePool) {
      pool.leave();
    } else {
      done = (*model)->keep_weights(*order == Order::kLoadWeights);
    }
    answer(control, done);
  }
  return fail(Code::kUnavailable, "the group of ranks has failed");
}

int rank_main(const std::vector<std::string>& args) {
  const int rank = number(args, 0), control = number(args, 1), adapters = number(args, 2), group_fd = number(args, 3), parent = number(args, 4);
  if (rank < 1 || control < 0 || adapters < 0 || group_fd < 0 || parent < 1) return 2;  // not what Ranks starts
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) return 1;  // it ended before that
  for (const int asks : {SIGINT, SIGTERM}) ::signal(asks, SIG_IGN);
  EngineConfig config;
  Options options = engine_options(config);
  const auto parsed = options.parse({args.begin() + 5, args.end()});
  if (!parsed) return 2;
  LogLevel level = LogLevel::kInfo;
  log_level_from(config.log_level, level);
  log_setup(cat("baton-engine rank ", rank), level);
  const auto done = run_rank(config, rank, {transfer::Fd(control), transfer::Fd(adapters), group_fd});
  log_error("rank ends", "error=\"{}\"", done ? "" : done.error().message);
  return 1;
}

}  // namespace baton::engine
