// The push flow of nixlv2: both legs at once, who is told what, and what becomes of one leg when the other fails. Two scripted
// upstreams; no script waits for a time, only for the other upstream.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <mutex>
#include <thread>

#include "net/http.h"
#include "net/mailbox.h"
#include "sidecar/connectors/push_targets.h"
#include "sidecar/limits.h"
#include "sidecar/sidecar.h"
#include "wire/headers.h"
#include "wire/kv_params.h"

namespace baton::sidecar {
namespace {

using testing::HasSubstr;

class Upstream {
 public:
  using Script = std::function<net::Task<>(net::ResponseWriter&)>;
  explicit Upstream(bool takes_push)
      : takes_push_(takes_push), server_({}, [this]() -> net::Handler {
          return [this](net::Request& request, net::ResponseWriter& writer) { return handle(request, writer); };
        }) {
    BATON_CHECK(server_.start().has_value());
  }
  void next(Script script) {
    std::lock_guard lock(mutex_);
    scripts_.push_back(std::move(script));
  }
  int port() const { return server_.port(); }
  std::string body(size_t i) {
    std::lock_guard lock(mutex_);
    return i < bodies_.size() ? bodies_[i] : "no such request";
  }
  std::atomic<int> entered{0}, left{0};

  Script answers(int status, std::string body, net::Headers headers = {}) {
    return [=](net::ResponseWriter& writer) -> net::Task<> {
      (void)co_await writer.send({.status = status, .headers = headers, .body = body});
    };
  }
  // Says nothing until it is given up.
  Script silence() {
    return [this](net::ResponseWriter& writer) -> net::Task<> {
      net::Mailbox<int> gone;
      auto hook = writer.cancel().on_cancel([&] { gone.close(); });
      co_await gone.pop();
      ++left;
    };
  }

 private:
  net::Task<> handle(net::Request& request, net::ResponseWriter& writer) {
    if (request.path == "/health") {
      net::Headers headers;
      if (takes_push_) headers.set(wire::kCapabilities, wire::kCapabilityPush);
      (void)co_await writer.send({.status = 200, .headers = headers, .body = {}});
      co_return;
    }
    Script script;
    {
      std::lock_guard lock(mutex_);
      bodies_.push_back(request.body);
      if (!scripts_.empty()) {
        script = std::move(scripts_.front());
        scripts_.pop_front();
      }
    }
    ++entered;
    if (!script) script = answers(599, "not expected");
    co_await script(writer);
  }

  const bool takes_push_;
  std::mutex mutex_;
  std::deque<Script> scripts_;
  std::vector<std::string> bodies_;
  net::Server server_;
};

net::Task<> until(const std::atomic<int>& count, int wanted) {
  while (count < wanted) co_await net::sleep_for(net::Millis(1));
}

std::string leg_answer(bool can_push, int port = 5601) {
  wire::KvParams p;
  p.do_remote_prefill = true;
  p.remote_engine_id = "engine-p", p.remote_host = "10.9.8.7", p.remote_port = port;
  wire::XKv& x = p.x_kv.emplace();
  x.grant = std::string(32, 'a'), x.n_tokens = 5, x.prompt_digest = std::string(64, 'b'), x.layout = "l", x.can_push = can_push;
  return cat(R"({"kv_transfer_params":)", wire::format_kv_params(p), "}");
}

std::string push_token(const std::string& body) {
  auto root = parse_json(body);
  if (!root) return "not json";
  const Json* token = root->find_path({"kv_transfer_params", "x_kv", "push"});
  return token ? token->text : "";
}

const net::Headers kTookKv = {{"x-baton-kv", "bytes=1,tokens=1,transport=shm"}};

struct PushRig {
  explicit PushRig(std::vector<std::string> args = {}, bool engine_takes_push = true) : decode(engine_takes_push) {
    config.port = 0, config.host = "127.0.0.1", config.model_server_port = decode.port(), config.secure_proxy = false;
    BATON_CHECK(sidecar_options(config).parse(args).has_value());
    sidecar.emplace(config);
    BATON_CHECK(sidecar->start().has_value());
    while (!sidecar->engine_ready()) std::this_thread::yield();  // then it has told what it can
  }
  net::Response fetch(std::string_view body = R"({"prompt":"x"})") {
    net::Response out;
    net::run_task([&]() -> net::Task<> {
      net::Client client;
      net::Call c;
      c.host = "127.0.0.1", c.port = sidecar->port(), c.method = "POST", c.target = "/v1/completions", c.body = body;
      c.headers.set("x-prefiller-host-port", cat("127.0.0.1:", prefill.port()));
      auto response = co_await client.fetch(c);
      EXPECT_TRUE(response.has_value());
      if (response) out = std::move(*response);
    });
    return out;
  }
  // One serial request, from which the sidecar learns.
  void learn() {
    prefill.next(prefill.answers(200, leg_answer(true)));
    decode.next(decode.answers(200, "serial"));
    EXPECT_EQ(fetch().body, "serial");
    EXPECT_EQ(push_token(prefill.body(0)), "");
  }
  Upstream prefill{false}, decode;
  SidecarConfig config;
  std::optional<Sidecar> sidecar;
};

TEST(SidecarPush, BothLegsBeginAtOnceUnderOneToken) {
  PushRig rig;
  rig.learn();
  rig.prefill.next([&](net::ResponseWriter& writer) -> net::Task<> {
    co_await until(rig.decode.entered, 2);  // each upstream answers only when the other was asked
    co_await rig.prefill.answers(200, leg_answer(true))(writer);
  });
  rig.decode.next([&](net::ResponseWriter& writer) -> net::Task<> {
    co_await until(rig.prefill.entered, 2);
    co_await rig.decode.answers(200, "pushed", kTookKv)(writer);
  });
  EXPECT_EQ(rig.fetch().body, "pushed");
  const std::string token = push_token(rig.prefill.body(1));
  EXPECT_EQ(token.size(), 32u);
  EXPECT_EQ(push_token(rig.decode.body(1)), token);
  auto asked = parse_json(rig.prefill.body(1));
  auto params = wire::parse_kv_params(*asked->find("kv_transfer_params"));
  EXPECT_TRUE(params && params->do_remote_decode);
  EXPECT_EQ(asked->find("max_tokens")->as_int(), 1);
  auto told = parse_json(rig.decode.body(1));
  params = wire::parse_kv_params(*told->find("kv_transfer_params"));
  ASSERT_TRUE(params);
  EXPECT_EQ(params->remote_engine_id, "engine-p");
  EXPECT_EQ(params->remote_host, "10.9.8.7");
  EXPECT_EQ(params->remote_port, 5601);
  EXPECT_FALSE(told->find("max_tokens")) << "the client's own request";
}

TEST(SidecarPush, OnlyWhereBothEnginesCan) {
  {
    PushRig rig({"--kv-push=off"});
    rig.learn();
    rig.learn();
  }
  {
    PushRig rig({}, false);  // the engine is not ours
    rig.learn();
    rig.learn();
  }
  PushRig rig;  // the prefiller cannot
  for (size_t i = 0; i < 2; ++i) {
    rig.prefill.next(rig.prefill.answers(200, leg_answer(false)));
    rig.decode.next(rig.decode.answers(200, "serial"));
    EXPECT_EQ(rig.fetch().body, "serial");
    EXPECT_EQ(push_token(rig.prefill.body(i)), "");
  }
}

TEST(SidecarPush, AFailedPrefillEndsTheDecodeLegAndThePolicyGoesOn) {
  for (int status : {503, 429, 500}) {
    PushRig rig;
    rig.learn();
    rig.decode.next(rig.decode.silence());
    rig.prefill.next([&](net::ResponseWriter& writer) -> net::Task<> {
      co_await until(rig.decode.entered, 2);
      co_await rig.prefill.answers(status, "no")(writer);
    });
    rig.decode.next(rig.decode.answers(200, "read here"));
    EXPECT_EQ(rig.fetch().body, "read here");
    while (rig.decode.left < 1) std::this_thread::yield();
    EXPECT_EQ(rig.decode.body(2), R"({"prompt":"x"})");
    // It may have moved: asked the serial way again.
    rig.prefill.next(rig.prefill.answers(200, leg_answer(true)));
    rig.decode.next(rig.decode.answers(200, "serial"));
    EXPECT_EQ(rig.fetch().body, "serial");
    EXPECT_EQ(push_token(rig.prefill.body(2)), "");
  }
}

TEST(SidecarPush, PolicyErrorShowsTheFailureOnce) {
  PushRig rig({"--on-prefill-failure=error"});
  rig.learn();
  rig.decode.next(rig.decode.silence());
  rig.prefill.next(rig.prefill.answers(503, "full"));
  net::Response got = rig.fetch();
  EXPECT_EQ(got.status, 503);
  EXPECT_EQ(got.body, "full");
}

TEST(SidecarPush, ARequestThatPrefillRefusesIsRefusedOnce) {
  PushRig rig;
  rig.learn();
  rig.decode.next(rig.decode.silence());
  rig.prefill.next([&](net::ResponseWriter& writer) -> net::Task<> {
    co_await until(rig.decode.entered, 2);
    co_await rig.prefill.answers(400, "your mistake")(writer);
  });
  net::Response got = rig.fetch();
  EXPECT_EQ(got.status, 400);
  EXPECT_EQ(got.body, "your mistake");
  while (rig.decode.left < 1) std::this_thread::yield();
}

TEST(SidecarPush, ADecodeLegThatFailsEndsThePrefill) {
  PushRig rig;
  rig.learn();
  rig.prefill.next(rig.prefill.silence());
  rig.decode.next([&](net::ResponseWriter& writer) -> net::Task<> {
    co_await until(rig.prefill.entered, 2);
    co_await rig.decode.answers(503, "no room")(writer);
  });
  EXPECT_EQ(rig.fetch().status, 503);
  while (rig.prefill.left < 1) std::this_thread::yield();
}

TEST(SidecarPush, AnAnswerWithoutKvMakesThePrefillerUnknown) {
  PushRig rig;
  rig.learn();
  rig.prefill.next(rig.prefill.silence());  // and its own answer, which would name its new place, never came
  rig.decode.next([&](net::ResponseWriter& writer) -> net::Task<> {
    co_await until(rig.prefill.entered, 2);
    co_await rig.decode.answers(200, "read here")(writer);
  });
  EXPECT_EQ(rig.fetch().body, "read here");
  rig.prefill.next(rig.prefill.answers(200, leg_answer(true)));
  rig.decode.next(rig.decode.answers(200, "serial"));
  EXPECT_EQ(rig.fetch().body, "serial");
  EXPECT_EQ(push_token(rig.prefill.body(2)), "");
}

TEST(SidecarPush, TargetsAreLearntReplacedAndForgotten) {
  PushTargets targets;
  auto params = [](bool can_push, int port) {
    std::string answer = leg_answer(can_push, port);
    return answer.substr(answer.find(':') + 1, answer.size() - answer.find(':') - 2);
  };
  targets.learn("a:1", params(true, 7));
  ASSERT_TRUE(targets.find("a:1"));
  EXPECT_EQ(targets.find("a:1")->port, 7);
  targets.learn("a:1", params(true, 8));
  EXPECT_EQ(targets.find("a:1")->port, 8);
  for (const char* other : {"null", "{}", "{\"can_push\"", R"({"x_kv":{"can_push":true}})"}) {
    targets.learn("a:1", params(true, 7));
    targets.learn("a:1", other);
    EXPECT_FALSE(targets.find("a:1")) << other;
  }
  targets.learn("a:1", params(false, 7));
  EXPECT_FALSE(targets.find("a:1"));
  for (size_t i = 0; i <= kPushTargetsMax; ++i) targets.learn(cat("h:", i), params(true, 7));
  EXPECT_TRUE(targets.find(cat("h:", kPushTargetsMax)));
  EXPECT_FALSE(targets.find("h:0")) << "bounded";
}

}  // namespace
}  // namespace baton::sidecar
