// What the engine says of its cache, heard by the picker's own ears: after any history the index and the block pool agree.
#include "engine/kv_events.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "base/prng.h"
#include "engine/testing/worker.h"
#include "picker/kv_event_source.h"
#include "route/kv_event_index.h"

#if __has_feature(thread_sanitizer)
// libzmq is not built with the sanitizer, which cannot see how its threads hand memory over: neither what libzmq does itself, nor what it
// does through templates of the standard library, of which a program that is not optimised has its own copies and lends them to it.
extern "C" const char* __tsan_default_suppressions() { return "called_from_lib:libzmq.so\nrace:libzmq.so\n"; }
#endif

namespace baton::engine {
namespace {

using testing::random_prompt;
using testing::submit;
using testing::Worker;

int port_of(const std::string& endpoint) { return std::stoi(endpoint.substr(endpoint.rfind(':') + 1)); }

struct Listener {
  explicit Listener(const KvEventPublisher& publisher, bool replays)
      : source({.topic_filter = "kv@",
                .on_applied =
                    [this](int) {
                      {
                        const std::lock_guard lock(mutex);
                      }
                      changed.notify_all();
                    }},
               index, clock) {
    EXPECT_TRUE(source.start());
    source.set_endpoints({{.slot = 3,
                           .host = "127.0.0.1",
                           .port = port_of(publisher.endpoint()),
                           .replay_port = replays ? port_of(publisher.replay_endpoint()) : 0,
                           .model = "m"}});
  }
  ~Listener() { source.stop(); }
  int blocks(std::span<const int32_t> prompt, std::string_view salt = {}, std::string_view model = "m") {
    const std::vector<uint32_t> tokens(prompt.begin(), prompt.end());
    route::KvMatch match;
    index.match(index.keys(model, tokens, {.salt = salt}), match);
    return match.cached[3];
  }
  bool await(std::span<const int32_t> prompt, int want, std::string_view salt = {}, std::string_view model = "m") {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60), [&] { return blocks(prompt, salt, model) == want; });
  }

  bool hears() {  // a live message, soon
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::milliseconds(20), [&] { return source.counts().messages > 0; });
  }

  SteadyClock clock;
  route::KvEventIndex index{{}};
  std::mutex mutex;
  std::condition_variable changed;
  picker::KvEventSource source;
};

KvEventsConfig config() {
  return {.enabled = true, .endpoint = "tcp://127.0.0.1:*", .replay_endpoint = "tcp://127.0.0.1:*", .topic = "kv@pod@m"};
}

TEST(KvEvents, WhoComesLateHearsEverything) {
  auto publisher = KvEventPublisher::start(config(), 16);
  ASSERT_TRUE(publisher) << publisher.error().message;
  Worker w({.on_cache_changes = [&](auto changes) { (*publisher)->publish(std::move(changes)); }});
  Prng prng(1);
  const auto early = random_prompt(prng, 100, 100), late = random_prompt(prng, 70, 70);
  submit(w, {.prompt = early, .max_tokens = 1});
  w.run();
  Listener listener(**publisher, true);
  EXPECT_TRUE(listener.await(early, 6));
  // The replay may be done before the subscription has come, and what is published till then is heard by nobody.
  while (!listener.hears()) {
    submit(w, {.prompt = random_prompt(prng, 20, 20), .max_tokens = 1});
    w.run();
  }
  submit(w, {.prompt = late, .max_tokens = 1});
  w.run();
  EXPECT_TRUE(listener.await(late, 4));
  EXPECT_EQ(listener.source.counts().lost, 0u);
  EXPECT_TRUE(w.core->reset_prefix_cache());
  EXPECT_TRUE(listener.await(early, 0));
}

// A small pool, so that blocks come and go; the batches are applied as the socket would.
TEST(KvEvents, IndexAndPoolAgree) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::vector<kv::CacheChange> log;
    Worker w({.blocks = 40,
              .scheduler = {.max_num_batched_tokens = 256, .max_model_len = 400},
              .on_cache_changes = [&](std::vector<kv::CacheChange> changes) {
                log.insert(log.end(), std::make_move_iterator(changes.begin()), std::make_move_iterator(changes.end()));
              }});
    Prng prng(seed);
    std::vector<std::vector<int32_t>> prompts;
    for (int i = 0; i < 12; ++i) {
      auto prompt = !prompts.empty() && prng.chance(0.5) ? prompts[prng.below(prompts.size())] : std::vector<int32_t>{};
      const auto tail = random_prompt(prng, 5, 80);
      prompt.insert(prompt.end(), tail.begin(), tail.end());
      prompt.resize(std::min<size_t>(prompt.size(), 300));
      prompts.push_back(prompt);
      submit(w, {.prompt = prompt, .max_tokens = static_cast<int32_t>(prng.between(1, 30))});
      if (prng.chance(0.6)) w.run();
    }
    w.run();
    // Each stored hash, less those removed later, is what the pool still finds.
    std::map<kv::BlockHash, int> held;
    for (const kv::CacheChange& c : log) {
      if (c.kind == kv::CacheChange::Kind::kStored) {
        EXPECT_EQ(c.tokens.size(), 16u);
        EXPECT_EQ(kv::block_hash(c.has_parent ? c.parent : kv::root_hash("test"), c.tokens), c.hash);
      }
      const int now = held[c.hash] += c.kind == kv::CacheChange::Kind::kStored ? 1 : -1;
      EXPECT_TRUE(now == 0 || now == 1);
    }
    for (const auto& prompt : prompts) {
      const auto chain = kv::hash_chain(kv::root_hash("test"), prompt, 16);
      size_t found = 0;
      while (found < chain.size() && held[chain[found]] == 1) ++found;
      const std::vector<kv::BlockHash> known(chain.begin(), chain.begin() + static_cast<std::ptrdiff_t>(found));
      EXPECT_EQ(w.core->cached_blocks(known), found);
      if (found < chain.size()) EXPECT_EQ(w.core->cached_blocks(chain), found);
    }
  }
}

TEST(KvEvents, SaltsAreSaid) {
  auto publisher = KvEventPublisher::start(config(), 16);
  ASSERT_TRUE(publisher);
  std::vector<int32_t> tokens(32, 7);
  const auto chain = kv::hash_chain(kv::root_hash("x"), tokens, 16, "mine");
  std::vector<kv::CacheChange> changes(2);
  changes[0] = {.hash = chain[0], .tokens = std::vector<int32_t>(16, 7), .salt = "mine"};
  changes[1] = {.hash = chain[1], .parent = chain[0], .has_parent = true, .tokens = std::vector<int32_t>(16, 7)};
  (*publisher)->publish(std::move(changes));
  Listener listener(**publisher, true);  // hears of it by replay
  EXPECT_TRUE(listener.await(tokens, 2, "mine"));
  EXPECT_EQ(listener.blocks(tokens), 0);
}

// An adapter's blocks stand under its name, as a router that is asked for that model looks them up.
TEST(KvEvents, AdaptersAreSaid) {
  auto publisher = KvEventPublisher::start(config(), 16);
  ASSERT_TRUE(publisher);
  const auto adapter = std::make_shared<const kv::Adapter>(kv::Adapter{.id = 2, .name = "tuned", .digest = "d"});
  std::vector<int32_t> tokens(32, 7);
  const auto chain = kv::hash_chain(kv::root_hash("x"), tokens, 16, {}, adapter.get());
  std::vector<kv::CacheChange> changes(2);
  changes[0] = {.hash = chain[0], .tokens = std::vector<int32_t>(16, 7), .adapter = adapter};
  changes[1] = {.hash = chain[1], .parent = chain[0], .has_parent = true, .tokens = std::vector<int32_t>(16, 7), .adapter = adapter};
  (*publisher)->publish(std::move(changes));
  Listener listener(**publisher, true);
  EXPECT_TRUE(listener.await(tokens, 2, {}, "tuned"));
  EXPECT_EQ(listener.blocks(tokens), 0) << "the base model's are others";
}

TEST(KvEvents, ABadAddressIsAnError) {
  auto bad = config();
  bad.endpoint = "tcp://*:notaport";
  EXPECT_FALSE(KvEventPublisher::start(bad, 16));
}

}  // namespace
}  // namespace baton::engine
