// The gateway as the second door of a picker: what a Flight says and hears, with a picker of the test's own.
#include "gateway/gateway_fixture.h"

namespace baton::gateway {
namespace {

using testing::HasSubstr;

// Everything the test decides, and what it saw; shared by the picker and its flights.
struct Script {
  std::mutex mutex;
  std::vector<picker::Target> targets;  // in order of attempts
  std::optional<picker::Refusal> refuse;
  bool wait = false;  // decide() only when let_go() is called
  std::vector<std::pair<std::string, std::string>> set_headers, answer_headers;
  std::vector<std::string> remove_headers;
  std::string replace_body;

  std::vector<std::pair<std::string, std::string>> head;
  std::string body, request_id, answered;
  int repicks = 0, status = 0, answer_status = 0;
  std::atomic<int> waiting{0}, ended{0};
  std::vector<std::string> down;
  std::function<void(std::move_only_function<void()>)> post;
  std::move_only_function<void()> let_go;
  std::move_only_function<void(picker::Refusal)> evict;
};

class FakeFlight final : public picker::Flight {
 public:
  FakeFlight(Script& script, const picker::Head& head) : s_(script) {
    std::lock_guard lock(s_.mutex);
    s_.head.clear();
    for (const auto& [name, value] : head.headers) s_.head.emplace_back(name, value);
    s_.request_id = head.request_id;
    s_.post = head.post;
  }
  ~FakeFlight() override { ++s_.ended; }
  void rest_unseen() override {}
  std::optional<picker::Refusal> feed(std::string_view bytes) override {
    body_ += bytes;
    return std::nullopt;
  }
  void decide(picker::Subset, Done done) override {
    std::unique_lock lock(s_.mutex);
    s_.body = body_;
    if (!s_.replace_body.empty()) body_ = s_.replace_body;
    if (!s_.wait) {
      lock.unlock();
      return done(pick());
    }
    s_.let_go = [this, done = std::make_shared<Done>(std::move(done))] { (*done)(pick()); };
    ++s_.waiting;
  }
  std::expected<const picker::Choice*, picker::Refusal> repick(bool) override {
    ++s_.repicks;
    return pick();
  }
  std::string& body() override { return body_; }
  bool body_changed() const override { return !s_.replace_body.empty(); }
  std::string_view model() const override { return "m"; }
  bool stream() const override { return false; }
  int64_t prompt_tokens() const override { return 5; }
  int64_t output_tokens() const override { return 0; }
  void answer_head(int status, std::string_view) override { s_.answer_status = status; }
  std::string_view answer_bytes(std::string_view bytes, bool last) override {
    std::lock_guard lock(s_.mutex);
    s_.answered += cat(bytes, last ? "|" : "");
    out_ = bytes;
    for (char& c : out_) c = c == 'x' ? 'y' : c;
    return out_;
  }
  bool wants_answer() const override { return true; }
  std::span<const std::pair<std::string, std::string>> answer_headers() const override { return s_.answer_headers; }
  void set_served(std::string_view) override {}
  void on_evict(std::move_only_function<void(picker::Refusal)> f) override {
    std::lock_guard lock(s_.mutex);
    s_.evict = std::move(f);
  }
  void finish(int status) override { s_.status = status; }

 private:
  std::expected<const picker::Choice*, picker::Refusal> pick() {
    if (s_.refuse) return std::unexpected(*s_.refuse);
    if (next_ >= s_.targets.size()) return std::unexpected(picker::Refusal{});
    choice_ = {};
    choice_.targets = {s_.targets[next_++]};
    choice_.set_headers = s_.set_headers;
    choice_.remove_headers = s_.remove_headers;
    choice_.why = "because";
    return &choice_;
  }
  Script& s_;
  std::string body_, out_;
  picker::Choice choice_;
  size_t next_ = 0;
};

class FakePicker final : public picker::Picker {
 public:
  Script script;
  Result<> start() override { return {}; }
  void stop() override {}
  void set_plan(std::shared_ptr<const route::Plan>) override {}
  void set_cluster(std::shared_ptr<const discovery::ClusterState>) override {}
  std::unique_ptr<picker::Flight> begin(const picker::Head& head) override { return std::make_unique<FakeFlight>(script, head); }
  std::expected<std::string, picker::Refusal> any_endpoint(const picker::Subset&) override {
    return std::unexpected(picker::Refusal{});
  }
  bool ready() const override { return true; }
  bool can_serve() const override { return true; }
  bool knows_model(std::string_view) const override { return true; }
  std::vector<std::string> model_cards() const override { return {}; }
  void report_down(std::string_view address) override {
    std::lock_guard lock(script.mutex);
    script.down.emplace_back(address);
  }
  void refresh_metrics() override {}
  std::string debug_json() const override { return R"({"pool":"p","endpoints":[]})"; }
};

class DoorTest : public GatewayTest {
 protected:
  void open(std::initializer_list<const FakeWorker*> workers) {
    for (const FakeWorker* w : workers) script.targets.push_back({"127.0.0.1", w->address(), w->port(), 0});
    config.host = "127.0.0.1", config.http_port = 0;
    gateway = std::make_unique<Gateway>(config, fake, metrics);
    const auto started = gateway->start();
    ASSERT_TRUE(started) << started.error().message;
  }
  void TearDown() override { gateway.reset(); }
  Metrics metrics;
  FakePicker fake;
  Script& script = fake.script;
};

TEST_F(DoorTest, ChoiceBecomesHeadersAndBodyGoesAsThePickerLeftIt) {
  FakeWorker worker(always(200, "xx"));
  script.set_headers = {{"x-prefiller-host-port", "p:1"}, {"x-gateway-destination-endpoint", "d:1"}};
  script.remove_headers = {"x-said-by-client"};
  script.answer_headers = {{"x-session-token", "t"}};
  script.replace_body = R"({"model":"other"})";
  open({&worker});
  const auto response =
      post("{}", {{"X-Said-By-Client", "1"}, {"X-Kept", "2"}, {"x-llm-d-model-name-rewrite", "evil"}, {"x-request-id", "id-1"}});
  EXPECT_EQ(response.body, "yy") << "what the flight makes of the answer";
  EXPECT_EQ(response.headers.get("x-session-token"), "t");
  const net::Request seen = worker.seen()[0];
  EXPECT_EQ(seen.body, R"({"model":"other"})");
  EXPECT_EQ(seen.headers.get("x-prefiller-host-port"), "p:1");
  EXPECT_FALSE(seen.headers.get("x-gateway-destination-endpoint"));
  EXPECT_FALSE(seen.headers.get("x-said-by-client"));
  EXPECT_EQ(script.request_id, "id-1");
  EXPECT_EQ(script.body, "{}");
  EXPECT_THAT(script.head, testing::Contains(std::pair<std::string, std::string>("x-kept", "2"))) << "names in lower case";
  for (const auto& [name, value] : script.head) EXPECT_NE(value, "evil") << "only a proxy may rewrite";
  EXPECT_EQ(script.answered, "xx|");
  EXPECT_EQ(script.answer_status, 200);
  eventually([&] { return script.ended == 1; }, "the flight stays");
  EXPECT_EQ(script.status, 200);
}

TEST_F(DoorTest, RefusalsAreOpenAiErrors) {
  script.refuse = picker::Refusal{
      .status = 429, .message = "too many requests wait", .drop_reason = "rejected-saturated", .retry_after_s = 7};
  open({});
  const auto response = post();
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.get("retry-after"), "7");
  EXPECT_EQ(response.headers.get("x-llm-d-request-dropped-reason"), "rejected-saturated");
  EXPECT_EQ(parse_json(response.body)->find_path({"error", "message"})->text, "too many requests wait");
}

TEST_F(DoorTest, WaitsInTheQueueAndGoesOn) {
  FakeWorker worker(always(200, "ok"));
  script.wait = true;
  open({&worker});
  std::thread client([&] { EXPECT_EQ(post().body, "ok"); });
  eventually([&] { return script.waiting == 1; }, "does not wait");
  script.post(std::move(script.let_go));  // as another thread would
  client.join();
}

TEST_F(DoorTest, AClientThatLeavesTheQueueLeavesThePicker) {
  script.wait = true;
  open({});
  net::TestSocket client(gateway->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
  eventually([&] { return script.waiting == 1; }, "does not wait");
  client.close();
  eventually([&] { return script.ended == 1; }, "the flight stays");
}

TEST_F(DoorTest, StoppingAnswersThoseInTheQueue) {
  script.wait = true;
  config.drain_timeout_ms = 0;
  open({});
  std::thread client([&] { EXPECT_NE(post().status, 200); });
  eventually([&] { return script.waiting == 1; }, "does not wait");
  gateway->stop();
  client.join();
  EXPECT_EQ(script.ended, 1);
}

TEST_F(DoorTest, EvictionEndsTheRequest) {
  std::atomic<bool> began{false}, cancelled{false};
  FakeWorker worker([&](net::Request&, net::ResponseWriter& writer) -> net::Task<> {
    const auto guard = writer.cancel().on_cancel([&] { cancelled = true; });
    began = true;
    while (!writer.cancel().cancelled()) co_await net::sleep_for(net::Millis(1));
  });
  open({&worker});
  std::thread client([&] {
    const auto response = post();
    EXPECT_EQ(response.status, 429);
    EXPECT_EQ(response.headers.get("x-llm-d-request-dropped-reason"), "evicted");
  });
  eventually([&] { return began.load(); }, "request does not arrive");
  script.post([&] { script.evict({.status = 429, .message = "request evicted", .drop_reason = "evicted", .retry_after_s = 1}); });
  client.join();
  eventually([&] { return cancelled.load(); }, "the worker goes on");
}

TEST_F(DoorTest, ReportsWhoRefusesConnectionsAndAsksAgain) {
  FakeWorker gone(always(200, "gone")), good(always(200, "good"));
  gone.stop();
  open({&gone, &good});
  EXPECT_EQ(post().body, "good");
  EXPECT_EQ(script.repicks, 1);
  EXPECT_EQ(script.down, std::vector<std::string>{gone.address()});
}

}  // namespace
}  // namespace baton::gateway
