// Tensor parallelism in one process: threads play the other ranks. Real processes: tests/e2e/test_tensor_parallel.py.
#include "engine/ranks.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <future>
#include <thread>

#include "engine/testing/test_engine.h"
#include "model/testing/tiny_file.h"

namespace baton::engine {
namespace {

using testing::call;

const model::testing::TinySpec kSpec{.layers = 2,
                                     .hidden = 96,
                                     .heads = 4,
                                     .kv_heads = 2,
                                     .head_dim = 32,
                                     .ffn = 128,
                                     .vocab = 300,
                                     .dtype = model::Dtype::kQ4_1,
                                     .seed = 91};

EngineConfig config_of(const std::string& path, int ranks) {
  EngineConfig c;
  c.host = "127.0.0.1";
  c.port = 0;
  c.model = path;
  c.served_model_names = {"tiny"};
  c.num_blocks = 100;
  c.max_model_len = 512;
  c.max_num_seqs = 8;
  c.log_stats = false;
  c.dev_mode = true;
  c.drain_s = 5;
  c.threads = 1;
  c.kv_load_failure_policy = "recompute";
  c.tensor_parallel_size = ranks;
  return c;
}

// Threads that play ranks; gone before the object is.
struct Threads {
  ~Threads() {
    for (std::thread& t : all) t.join();
  }
  std::vector<std::thread> all;
};

// An engine whose model is computed by so many ranks.
struct RankedEngine {
  RankedEngine(const std::string& path, int ranks) {
    const EngineConfig config = config_of(path, ranks);
    EngineParts parts;
    model::LoadOptions options = load_options(config);
    if (ranks > 1) {
      auto file = model::WeightFile::open(path);
      EXPECT_TRUE(file) << file.error().message;
      auto started = Ranks::start(config, (*file)->config(), [&](int rank, transfer::Fd control, int group_fd) -> Result<pid_t> {
        threads.all.emplace_back([config, rank, control = std::move(control), group_fd]() mutable {
          const auto end = run_rank(config, rank, std::move(control), group_fd);
          EXPECT_EQ(end.error().code, Code::kUnavailable) << end.error().message;
        });
        return 0;
      });
      EXPECT_TRUE(started) << started.error().message;
      parts.ranks = *std::move(started);
      options.ranks = &parts.ranks->group();
    }
    auto model = model::Model::load(path, options);
    EXPECT_TRUE(model) << model.error().message;
    parts.model = *std::move(model);
    if (parts.ranks) {
      const auto loaded = parts.ranks->await_loaded();
      EXPECT_TRUE(loaded) << loaded.error().message;
    }
    const auto tiny = model::testing::tiny_tokenizer(kSpec.vocab);
    parts.tokenizer = *text::Tokenizer::from_hf(model::testing::tiny_tokenizer_json(tiny, "llama"),
                                                model::testing::tiny_tokenizer_config_json());
    auto made = Engine::start_with(config, std::move(parts));
    EXPECT_TRUE(made) << made.error().message;
    engine = *std::move(made);
  }
  std::string text(std::string_view prompt) {
    const auto reply = call(engine->port(), "POST", "/v1/completions",
                            cat(R"({"prompt":")", prompt, R"(","max_tokens":24,"temperature":0,"ignore_eos":true})"));
    EXPECT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, 200) << reply->body;
    return reply->json().find("choices")->items[0].find("text")->text;
  }
  int post(const char* path) { return call(engine->port(), "POST", path).value().status; }

  Threads threads;  // end when the engine has let go of its ranks
  std::unique_ptr<Engine> engine;
};

TEST(Ranks, AnEngineOfTwoAnswersAlikeInEveryRunAndAfterSleep) {
  const model::testing::TinyFile file(kSpec);
  std::vector<std::string> first;
  for (int run = 0; run < 2; ++run) {
    RankedEngine e(file.path, 2);
    std::vector<std::string> said;
    for (const char* prompt : {"hello", "the quick brown fox jumps over the lazy dog, and over it again", "1 2 3"})
      said.push_back(e.text(prompt));
    EXPECT_EQ(e.post("/sleep"), 200);
    EXPECT_EQ(e.post("/wake_up"), 200);
    EXPECT_EQ(e.text("hello"), said[0]);
    if (run == 0) first = said;
    EXPECT_EQ(said, first);
    EXPECT_NE(e.engine->summary().find("in each of 2 ranks"), std::string::npos) << e.engine->summary();
  }
}

TEST(Ranks, ThreadsAreSharedOut) {
  EngineConfig c;
  EXPECT_EQ(load_options(c).threads, 0);
  c.tensor_parallel_size = 64;
  EXPECT_GE(load_options(c).threads, 1);
  c.threads = 3;
  EXPECT_EQ(load_options(c).threads, 3);
}

TEST(Ranks, AllHaveOneKindOfCache) {
  EngineConfig c;
  EXPECT_EQ(load_options(c).kv_dtype, std::nullopt) << "the checkpoint's own, which every rank reads alike";
  c.kv_cache_dtype = "bfloat16";
  EXPECT_EQ(load_options(c).kv_dtype, kv::KvDtype::kBf16);
  c.kv_cache_dtype = "fp8";
  EXPECT_EQ(load_options(c).kv_dtype, kv::KvDtype::kE4m3);
}

// One rank that says `said` and then does as it is told.
struct OneRank {
  OneRank(const std::string& path, std::string_view said) {
    auto file = model::WeightFile::open(path);
    auto started = Ranks::start(config_of(path, 2), (*file)->config(), [&](int, transfer::Fd end, int) -> Result<pid_t> {
      EXPECT_EQ(::send(end.get(), said.data(), said.size(), MSG_NOSIGNAL), std::ssize(said));
      control = std::move(end);
      return 0;
    });
    EXPECT_TRUE(started) << started.error().message;
    ranks = *std::move(started);
  }
  transfer::Fd control;
  std::unique_ptr<Ranks> ranks;
};

TEST(Ranks, ARankThatEndsIsNoticedAtOnce) {
  const model::testing::TinyFile file(kSpec);
  OneRank one(file.path, "ok");
  ASSERT_TRUE(one.ranks->await_loaded());
  std::promise<void> lost;
  one.ranks->on_lost([&] { lost.set_value(); });
  one.control = {};
  lost.get_future().get();  // hangs if nobody notices
  EXPECT_TRUE(one.ranks->group().failed());
  EXPECT_FALSE(one.ranks->share_pool(nullptr));
  bool again = false;
  one.ranks->on_lost([&] { again = true; });  // whoever asks later hears of it too
  EXPECT_TRUE(again);
}

TEST(Ranks, AFailedGroupIsNoticed) {
  const model::testing::TinyFile file(kSpec);
  OneRank one(file.path, "ok");
  ASSERT_TRUE(one.ranks->await_loaded());
  std::promise<void> lost;
  one.ranks->on_lost([&] { lost.set_value(); });
  one.ranks->group().fail();
  lost.get_future().get();
}

TEST(Ranks, ARankThatCannotLoadSaysWhy) {
  const model::testing::TinyFile file(kSpec);
  const OneRank one(file.path, "no memory for it");
  const auto loaded = one.ranks->await_loaded();
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("rank 1: no memory for it"), std::string::npos) << loaded.error().message;
}

TEST(Ranks, AModelThatCannotBeCutStartsNothing) {
  const model::testing::TinyFile file(kSpec);
  auto weights = model::WeightFile::open(file.path);
  ASSERT_TRUE(weights);
  const auto started = Ranks::start(config_of(file.path, 3), (*weights)->config(), [](int, transfer::Fd, int) -> Result<pid_t> {
    ADD_FAILURE();
    return 0;
  });
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().message.find("4 attention heads"), std::string::npos) << started.error().message;
}

TEST(Ranks, OnlyRanksMayWriteThePool) {
  constexpr size_t kBytes = 1 << 16;
  auto pool = transfer::PoolMemory::create(kBytes, "test", false);
  ASSERT_TRUE(pool) << pool.error().message;
  const auto map = [&](int rights) { return ::mmap(nullptr, kBytes, rights, MAP_SHARED, pool->fd(), 0); };
  void* const ranks = map(PROT_READ | PROT_WRITE);
  ASSERT_NE(ranks, MAP_FAILED);
  ASSERT_TRUE(pool->seal());
  EXPECT_EQ(map(PROT_READ | PROT_WRITE), MAP_FAILED);
  *static_cast<char*>(ranks) = 'x';
  EXPECT_EQ(pool->bytes()[0], std::byte{'x'});
  void* const peers = map(PROT_READ);
  ASSERT_NE(peers, MAP_FAILED);
  EXPECT_EQ(*static_cast<char*>(peers), 'x');
  for (void* p : {ranks, peers}) ::munmap(p, kBytes);
}

TEST(Ranks, AStrangersCommandLineEndsAtOnce) {
  EXPECT_EQ(rank_main({}), 2);
  EXPECT_EQ(rank_main({"0", "3", "4", "1"}), 2);
  EXPECT_EQ(rank_main({"one", "3", "4", "1"}), 2);
}

}  // namespace
}  // namespace baton::engine
