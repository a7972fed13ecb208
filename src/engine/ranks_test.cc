// Tensor parallelism in one process: threads play the other ranks. Real processes: tests/e2e/test_tensor_parallel.py.
#include "engine/ranks.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <filesystem>
#include <future>
#include <set>
#include <thread>

#include "engine/testing/test_engine.h"
#include "model/lora.h"
#include "model/testing/tiny_file.h"
#include "model/testing/tiny_lora.h"

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
  RankedEngine(const std::string& path, int ranks, std::vector<LoraModule> loras = {}) {
    EngineConfig config = config_of(path, ranks);
    config.enable_lora = config.lora_updating = true;
    config.max_loras = 2;
    config.loras = std::move(loras);
    EngineParts parts;
    model::LoadOptions options = load_options(config);
    if (ranks > 1) {
      auto file = model::WeightFile::open(path);
      EXPECT_TRUE(file) << file.error().message;
      auto started = Ranks::start(config, (*file)->config(), [&](int rank, RankLinks links) -> Result<pid_t> {
        threads.all.emplace_back([config, rank, links = std::move(links)]() mutable {
          const auto end = run_rank(config, rank, std::move(links));
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
  std::string text(std::string_view prompt, std::string_view model = "tiny") {
    const auto reply = call(engine->port(), "POST", "/v1/completions",
                            cat(R"({"model":")", model, R"(","prompt":")", prompt, R"(","max_tokens":24,"temperature":0,"ignore_eos":true})"));
    EXPECT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, 200) << reply->body;
    return reply->json().find("choices")->items[0].find("text")->text;
  }
  int post(const char* path) { return call(engine->port(), "POST", path).value().status; }
  testing::Reply lora(std::string_view what, std::string_view name, std::string_view path = "") {
    return call(engine->port(), "POST", cat("/v1/", what, "_lora_adapter"), cat(R"({"lora_name":")", name, R"(","lora_path":")", path, "\"}")).value();
  }

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
    EXPECT_EQ(e.post("/sleep?level=2"), 200);
    EXPECT_EQ(e.post("/wake_up?tags=weights"), 200);
    EXPECT_EQ(e.post("/wake_up"), 200);
    EXPECT_EQ(e.text("hello"), said[0]) << "the same bits in every rank";
    if (run == 0) first = said;
    EXPECT_EQ(said, first);
    EXPECT_NE(e.engine->summary().find("in each of 2 ranks"), std::string::npos) << e.engine->summary();
  }
}

// Adapters' directories; gone with the object.
struct LoraFiles {
  LoraFiles() {
    for (uint64_t seed : {1, 2}) {
      paths.push_back(cat(::testing::TempDir(), "ranks_lora_", getpid(), "_", seed));
      EXPECT_TRUE(model::testing::write_tiny_lora(paths.back(), {.seed = seed}, kSpec));
    }
  }
  ~LoraFiles() {
    for (const std::string& path : paths) std::filesystem::remove_all(path);
  }
  std::vector<std::string> paths;
};

TEST(Ranks, AdaptersAreLoadedAtStartAndAtRunTime) {
  const model::testing::TinyFile file(kSpec);
  const LoraFiles files;
  std::vector<std::string> first;
  for (int run = 0; run < 2; ++run) {
    RankedEngine e(file.path, 2, {{.name = "a", .path = files.paths[0], .base_model = {}}});
    EXPECT_EQ(e.lora("load", "b", files.paths[1]).status, 200);
    const std::vector<std::string> said = {e.text("hello"), e.text("hello", "a"), e.text("hello", "b")};
    EXPECT_TRUE(said[0] != said[1] && said[1] != said[2] && said[0] != said[2]);
    std::vector<std::future<std::string>> together;
    for (const char* model : {"tiny", "a", "b"}) together.push_back(std::async(std::launch::async, [&e, model] { return e.text("hello", model); }));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(together[i].get(), said[i]);
    const testing::Reply none = e.lora("load", "c", "/none");
    EXPECT_EQ(none.status, 404) << none.body;
    EXPECT_NE(none.error().find("No adapter found for /none"), std::string::npos) << none.body;
    EXPECT_EQ(e.lora("unload", "a").status, 200);
    EXPECT_EQ(e.lora("load", "again", files.paths[0]).status, 200);
    EXPECT_EQ(e.text("hello", "again"), said[1]);
    if (run == 0) first = said;
    EXPECT_EQ(said, first);
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
    auto started = Ranks::start(config_of(path, 2), (*file)->config(), [&](int, RankLinks ends) -> Result<pid_t> {
      links = std::move(ends);
      say(links.control, said);
      return 0;
    });
    EXPECT_TRUE(started) << started.error().message;
    ranks = *std::move(started);
  }
  static void say(const transfer::Fd& to, std::string_view text) {
    EXPECT_EQ(::send(to.get(), text.data(), text.size(), MSG_NOSIGNAL), std::ssize(text));
  }
  static std::string heard(const transfer::Fd& from) {
    char text[1024];
    const ssize_t n = ::recv(from.get(), text, sizeof text, MSG_DONTWAIT);
    return n > 0 ? std::string(text, static_cast<size_t>(n)) : "";
  }
  RankLinks links;
  std::unique_ptr<Ranks> ranks;
};

TEST(Ranks, ARankThatEndsIsNoticedAtOnce) {
  const model::testing::TinyFile file(kSpec);
  OneRank one(file.path, "ok");
  ASSERT_TRUE(one.ranks->await_loaded());
  std::promise<void> lost;
  one.ranks->on_lost([&] { lost.set_value(); });
  one.links.control = {};
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

TEST(Ranks, AnAdapterIsLoadedByAllRanksOrByNone) {
  const model::testing::TinyFile file(kSpec);
  const LoraFiles files;
  const std::string& path = files.paths[0];
  const auto model = *model::Model::load(file.path, {.threads = 1, .progress = {}});
  const std::string digest = (*model->load_lora(path, 16))->digest();
  OneRank one(file.path, "ok");
  ASSERT_TRUE(one.ranks->await_loaded());
  const transfer::Fd& rank = one.links.adapters;
  for (const std::string& said : {std::string("no 1 the disk is on fire"), std::string("ok 2 beef"), cat("ok 3 ", digest), cat("ok 4 ", digest)}) one.say(rank, said);
  const auto load = [&](const std::string& from) { return one.ranks->load_lora(*model, from, 16); };

  const auto refused = load(path);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "rank 1: the disk is on fire");
  EXPECT_EQ(one.heard(rank), cat("load 1 16 ", path));
  EXPECT_EQ(one.heard(rank), "drop 1");
  const auto other = load(path);
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("rank 1 read another adapter"), std::string::npos) << other.error().message;
  EXPECT_EQ(one.heard(rank), cat("load 2 16 ", path));
  EXPECT_EQ(one.heard(rank), "drop 2");
  EXPECT_EQ(load("/none").error().code, Code::kNotFound) << "rank 0's own trouble, and the others let go";
  EXPECT_EQ(one.heard(rank), "load 3 16 /none");
  EXPECT_EQ(one.heard(rank), "drop 3");
  auto loaded = load(path);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ((*loaded)->number(), 4);
  EXPECT_EQ(one.heard(rank), cat("load 4 16 ", path));
  EXPECT_EQ(one.heard(rank), "") << "as long as somebody holds it";
  loaded->reset();
  EXPECT_EQ(one.heard(rank), "drop 4");
  one.links.adapters = {};
  EXPECT_EQ(load(path).error().code, Code::kUnavailable);
}

TEST(Ranks, ARankThatHasNoRoomHearsLaterWhatItMayDrop) {
  const model::testing::TinyFile file(kSpec);
  const LoraFiles files;
  const auto model = *model::Model::load(file.path, {.threads = 1, .progress = {}});
  const std::string digest = (*model->load_lora(files.paths[0], 16))->digest();
  OneRank one(file.path, "ok");
  ASSERT_TRUE(one.ranks->await_loaded());
  const transfer::Fd& rank = one.links.adapters;
  std::vector<std::shared_ptr<const model::LoraAdapter>> held;
  constexpr int kMany = 600;  // more than a socket takes, as kernels come: some 280
  for (int i = 1; i <= kMany; ++i) {
    one.say(rank, cat("ok ", i, " ", digest));
    held.push_back(*one.ranks->load_lora(*model, files.paths[0], 16));
    ASSERT_FALSE(one.heard(rank).empty());
  }
  held.clear();  // does not wait for a rank that reads nothing
  std::set<std::string> dropped;
  const auto listen = [&] {
    for (std::string said; !(said = one.heard(rank)).empty();)
      if (said.starts_with("drop ")) EXPECT_TRUE(dropped.insert(said).second) << said;
  };
  listen();
  constexpr int kMore = 8;  // each takes what there is room for along
  for (int i = 1; i <= kMore; ++i) {
    one.say(rank, cat("no ", kMany + i, " x"));
    EXPECT_FALSE(one.ranks->load_lora(*model, files.paths[0], 16));
    listen();
  }
  EXPECT_EQ(dropped.size(), static_cast<size_t>(kMany + kMore));
}

TEST(Ranks, WeightsAreBackWhenAllRanksHaveThem) {
  const model::testing::TinyFile file(kSpec);
  const auto model = *model::Model::load(file.path, {.threads = 1, .progress = {}});
  OneRank one(file.path, "ok");
  ASSERT_TRUE(one.ranks->await_loaded());
  for (const char* said : {"ok", "the file is gone", "ok"}) one.say(one.links.control, said);
  EXPECT_TRUE(one.ranks->keep_weights(*model, false));
  const auto lacking = one.ranks->keep_weights(*model, true);
  ASSERT_FALSE(lacking);
  EXPECT_EQ(lacking.error().message, "rank 1: the file is gone");
  EXPECT_FALSE(one.ranks->group().failed()) << "it can be asked again";
  EXPECT_TRUE(one.ranks->keep_weights(*model, true));
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
  const auto started = Ranks::start(config_of(file.path, 3), (*weights)->config(), [](int, RankLinks) -> Result<pid_t> {
    ADD_FAILURE();
    return 0;
  });
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().message.find("4 attention heads"), std::string::npos) << started.error().message;
}

TEST(Ranks, OnlyRanksMayWriteThePool) {
  constexpr size_t kBytes = 1 << 16;
  auto pool = transfer::PoolMemory::create(kBytes, "test", transfer::PoolMemory::Sharing::kWriters);
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
