#include "picker/kv_event_source.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <zmq.hpp>

#include "base/prng.h"
#include "route/kv_event_codec.h"

#if __has_feature(thread_sanitizer)
// libzmq is not built with the sanitizer, which cannot see how its threads hand memory over: neither what libzmq does itself, nor what it
// does through templates of the standard library, of which a program that is not optimised has its own copies and lends them to it.
extern "C" const char* __tsan_default_suppressions() { return "called_from_lib:libzmq.so\nrace:libzmq.so\n"; }
#endif

namespace baton::picker {
namespace {

using namespace route;

// An engine as vLLM publishes: sequence numbers, a buffer of what was sent, a ROUTER that replays it.
class Engine {
 public:
  explicit Engine(zmq::context_t& context) : events_(context, zmq::socket_type::xpub), replay_(context, zmq::socket_type::router) {
    for (zmq::socket_t* s : {&events_, &replay_}) s->set(zmq::sockopt::linger, 0), s->bind("tcp://127.0.0.1:*");
  }
  static int port(zmq::socket_t& socket) {
    const std::string at = socket.get(zmq::sockopt::last_endpoint);
    return std::stoi(at.substr(at.rfind(':') + 1));
  }
  KvEndpoint endpoint(int slot, bool replays) {
    return {.slot = slot, .host = "127.0.0.1", .port = port(events_), .replay_port = replays ? port(replay_) : 0, .model = "m",
            .name = "ns/pod-" + std::to_string(slot) + "-rank-0"};
  }
  void await_subscriber() {
    zmq::message_t subscription;
    ASSERT_TRUE(events_.recv(subscription));
  }
  // Block i of the one prompt all tests use.
  static BlockStored block(uint64_t i) {
    BlockStored e;
    e.hashes = {1000 + i};
    e.has_parent = i > 0;
    e.parent = 999 + i;
    for (uint64_t t = 0; t < 16; ++t) e.tokens.push_back(static_cast<uint32_t>(i * 16 + t));
    return e;
  }
  void publish(KvEvent event, bool lose = false, std::string_view topic = "kv@pod-1@m") {
    buffer_[seq_] = encode_kv_events({.timestamp_s = 1, .events = {std::move(event)}});
    if (!lose) send(topic, seq_, buffer_[seq_]);
    ++seq_;
  }
  void restart() { seq_ = 0, buffer_.clear(); }
  void forget(uint64_t seq) { buffer_.erase(seq); }
  void serve_replay() {  // one request
    zmq::message_t id, empty, start;
    ASSERT_TRUE(replay_.recv(id));
    ASSERT_TRUE(replay_.recv(empty));
    ASSERT_TRUE(replay_.recv(start));
    uint64_t from = 0;
    for (size_t i = 0; i < 8; ++i) from = from << 8 | static_cast<const uint8_t*>(start.data())[i];
    last_start = from;
    for (const auto& [seq, payload] : buffer_) {
      if (seq >= from) answer(id, seq, payload);
    }
    answer(id, ~0ull, "");
  }
  uint64_t last_start = 0;

 private:
  static zmq::message_t big(uint64_t v) {
    char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(v >> (56 - 8 * i));
    return zmq::message_t(bytes, sizeof bytes);
  }
  void send(std::string_view topic, uint64_t seq, std::string_view payload) {
    events_.send(zmq::message_t(topic.data(), topic.size()), zmq::send_flags::sndmore);
    events_.send(big(seq), zmq::send_flags::sndmore);
    events_.send(zmq::message_t(payload.data(), payload.size()), zmq::send_flags::none);
  }
  void answer(const zmq::message_t& id, uint64_t seq, std::string_view payload) {
    replay_.send(zmq::message_t(id.data(), id.size()), zmq::send_flags::sndmore);
    replay_.send(zmq::message_t(), zmq::send_flags::sndmore);
    replay_.send(big(seq), zmq::send_flags::sndmore);
    replay_.send(zmq::message_t(payload.data(), payload.size()), zmq::send_flags::none);
  }
  zmq::socket_t events_, replay_;
  uint64_t seq_ = 0;
  std::map<uint64_t, std::string> buffer_;
};

class KvEventSourceTest : public testing::Test {
 protected:
  KvEventSourceTest() {
    for (uint32_t t = 0; t < 320; ++t) prompt_.push_back(t);
  }
  ~KvEventSourceTest() override {
    if (source_) source_->stop();
  }
  void start(KvSourceOptions options = {}) {
    options.on_applied = [this](int) {
      { const std::lock_guard lock(mutex_); }
      changed_.notify_all();
    };
    source_ = std::make_unique<KvEventSource>(std::move(options), index_, clock_);
    ASSERT_TRUE(source_->start());
  }
  int cached(int slot) {
    KvMatch match;
    index_.match(index_.keys("m", prompt_), match);
    return match.cached[static_cast<size_t>(slot)];
  }
  void await(int slot, int blocks) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] { return cached(slot) == blocks; })) << cached(slot) << " for " << blocks;
  }

  std::vector<uint32_t> prompt_;
  KvEventIndex index_{{}};
  SteadyClock clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  zmq::context_t context_{1};
  std::unique_ptr<KvEventSource> source_;
};

TEST_F(KvEventSourceTest, ReplaysOnConnectThenFollows) {
  Engine engine(context_);
  for (uint64_t i = 0; i < 3; ++i) engine.publish(Engine::block(i));  // nobody listens yet
  start();
  source_->set_endpoints({engine.endpoint(7, true)});
  engine.await_subscriber();
  engine.publish(Engine::block(3));  // waits for the replay
  engine.serve_replay();
  await(7, 4);
  engine.publish(Engine::block(4));
  await(7, 5);
  EXPECT_EQ(source_->counts().lost, 0u);
  EXPECT_EQ(source_->counts().gaps, 0u);
  EXPECT_EQ(source_->counts().subscribers, 1u);
}

TEST_F(KvEventSourceTest, AGapIsReplayed) {
  Engine engine(context_);
  start();
  source_->set_endpoints({engine.endpoint(7, true)});
  engine.await_subscriber();
  engine.serve_replay();
  engine.publish(Engine::block(0));
  await(7, 1);
  engine.publish(Engine::block(1), true);
  engine.publish(Engine::block(2), true);
  engine.publish(Engine::block(3));
  engine.serve_replay();
  EXPECT_EQ(engine.last_start, 1u);
  await(7, 4);
  EXPECT_EQ(source_->counts().gaps, 1u);
  EXPECT_EQ(source_->counts().lost, 0u);
}

TEST_F(KvEventSourceTest, WhatTheEngineForgotIsLostAndCounted) {
  Engine engine(context_);
  start();
  source_->set_endpoints({engine.endpoint(7, true)});
  engine.await_subscriber();
  engine.serve_replay();
  engine.publish(Engine::block(0));
  await(7, 1);
  engine.publish(Engine::block(5), true);
  engine.forget(1);
  engine.publish(Engine::block(1));
  engine.serve_replay();
  await(7, 2);
  EXPECT_EQ(source_->counts().lost, 1u);
}

TEST_F(KvEventSourceTest, WithoutReplayItGoesOn) {
  Engine engine(context_);
  start();
  source_->set_endpoints({engine.endpoint(7, false)});
  engine.await_subscriber();
  engine.publish(Engine::block(0));
  engine.publish(Engine::block(9), true);
  engine.publish(Engine::block(1));
  await(7, 2);
  EXPECT_EQ(source_->counts().gaps, 1u);
  EXPECT_EQ(source_->counts().lost, 1u);
}

TEST_F(KvEventSourceTest, ARestartedEngineHasNothing) {
  Engine engine(context_);
  start();
  source_->set_endpoints({engine.endpoint(7, false)});
  engine.await_subscriber();
  for (uint64_t i = 0; i < 4; ++i) engine.publish(Engine::block(i));
  await(7, 4);
  engine.restart();
  engine.publish(Engine::block(0));
  await(7, 1);
  EXPECT_EQ(source_->counts().restarts, 1u);
}

TEST_F(KvEventSourceTest, ARestartedEngineIsReplayedFromItsBeginning) {
  Engine engine(context_);
  start();
  source_->set_endpoints({engine.endpoint(7, true)});
  engine.await_subscriber();
  engine.serve_replay();
  for (uint64_t i = 0; i < 4; ++i) engine.publish(Engine::block(i));
  await(7, 4);
  engine.restart();
  engine.publish(Engine::block(0), true);
  engine.publish(Engine::block(1));
  engine.serve_replay();
  EXPECT_EQ(engine.last_start, 0u);
  await(7, 2);
  EXPECT_EQ(source_->counts().restarts, 1u);
}

TEST_F(KvEventSourceTest, GarbageIsCountedAndEndpointsComeAndGo) {
  Engine one(context_), two(context_);
  start();
  source_->set_endpoints({one.endpoint(1, false), two.endpoint(2, false)});
  one.await_subscriber();
  two.await_subscriber();
  one.publish(Engine::block(0));
  two.publish(Engine::block(0));
  two.publish(BlockRemoved{.hashes = {std::vector<uint64_t>(5, 3)}});
  await(1, 1);
  await(2, 1);
  source_->set_endpoints({one.endpoint(1, false)});
  two.await_subscriber();  // its unsubscription
  one.publish(Engine::block(1));
  await(1, 2);
  EXPECT_EQ(cached(2), 0);
}

TEST_F(KvEventSourceTest, OneSocketForAll) {
  Engine engine(context_);
  const std::string at = "tcp://127.0.0.1:" + std::to_string(engine.endpoint(0, false).port);
  start({.shared_endpoint = at});
  source_->set_endpoints({{.slot = 3, .host = "10.0.0.3", .name = "ns/pod-1-rank-0"}, {.slot = 4, .host = "10.0.0.4"}});
  engine.await_subscriber();
  engine.publish(Engine::block(0), false, "kv@unknown@m");
  engine.restart();
  engine.publish(Engine::block(0), false, "kv@pod-1@m");
  await(3, 1);
  engine.restart();
  engine.publish(Engine::block(0), false, "kv@10.0.0.4@m");
  await(4, 1);
  EXPECT_EQ(source_->counts().unknown_pods, 1u);
}

}  // namespace
}  // namespace baton::picker
