// Text prompts and the precise index: tokens from a tokenizer of our own, from a render service, from a worker, and what happens
// when they do not come. Blocks are stored by ids made here, independently of the code that asks.
#include "picker/token_source.h"

#include <filesystem>
#include <thread>

#include "model/testing/tiny_model.h"
#include "picker/local_tokenizer.h"
#include "picker/test_pool.h"

namespace baton::picker {
namespace {

using testing::HasSubstr;

std::string temp_dir() {
  static std::atomic<int> next{0};
  const auto dir = std::filesystem::temp_directory_path() / cat("baton-tokens-", getpid(), "-", next++);
  std::filesystem::create_directories(dir);
  return dir.string();
}

// A small model's own tokenizer, as files and as the thing itself.
struct Model {
  Model() {
    const model::testing::TinySpec spec;
    EXPECT_TRUE(model::testing::write_tiny_hf(dir + "/org/hf", spec));
    EXPECT_TRUE(model::testing::write_tiny_gguf(dir + "/m.gguf", spec));
    const auto parts = model::testing::tiny_tokenizer(spec.vocab);
    tokenizer = *text::Tokenizer::from_hf(model::testing::tiny_tokenizer_json(parts, spec.family),
                                          model::testing::tiny_tokenizer_config_json());
  }
  ~Model() { std::filesystem::remove_all(dir); }
  std::vector<uint32_t> ids(std::string_view text, bool special) const {
    const auto ids = tokenizer->encode(text, special);
    EXPECT_TRUE(ids);
    return {ids->begin(), ids->end()};
  }
  const std::string dir = temp_dir();
  std::unique_ptr<text::Tokenizer> tokenizer;
};

std::string long_text(char c) {
  std::string out;
  for (int i = 0; i < 40; ++i) out += cat("line ", i, " of ", c, "; ");
  return out;
}

std::string precise(std::string_view token_producer) {
  return cat(R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: precise-prefix-cache-producer
  parameters: {tokenProcessorConfig: {blockSizeTokens: 16}}
- type: token-producer
  parameters: )",
             token_producer, R"(
- type: prefix-cache-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
  - pluginRef: max-score-picker
)");
}

class TokensTest : public testing::Test {
 protected:
  void open(std::string_view token_producer) {
    pool_ = std::make_unique<TestPool>(precise(token_producer));
    pool_->members({{"127.0.0.1", ""}, {"b", ""}, {"c", ""}, {"d", ""}});
  }
  // The engine at this address says that it stores the prompt.
  void stored(const std::string& address, std::span<const uint32_t> ids, std::vector<std::vector<std::string>> extra = {}) {
    route::BlockStored e;
    e.extra_keys = std::move(extra);
    for (size_t i = 0; i < ids.size() / 16; ++i) e.hashes.push_back(1 + i);
    e.tokens.assign(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(e.hashes.size() * 16));
    ASSERT_GT(e.hashes.size(), 2u);
    pool_->core().live()->kv->index.apply(pool_->state(address)->slot, "m", {.events = {e}});
  }
  std::expected<const Choice*, Refusal> decide(Flight& flight) {
    std::optional<std::expected<const Choice*, Refusal>> out;
    flight.decide({}, [&](auto result) { out = std::move(result); });
    while (!out) {
      pool_->posts.run();
      std::this_thread::yield();
    }
    return *out;
  }
  std::string where(std::string_view body, std::string_view path = "/v1/completions") {
    auto flight = pool_->begin(body, {}, path);
    const auto choice = decide(*flight);
    tokens_ = flight->prompt_tokens();
    flight->finish(200);
    return choice ? (*choice)->destination : choice.error().message;
  }
  void expect_outcome(std::string_view outcome, int times) {
    EXPECT_THAT(pool_->text(), HasSubstr(cat("llm_d_epp_tokenizer_requests_total{outcome=\"", outcome, "\"} ", times, ".0")));
  }
  static std::string completion(const std::string& prompt) { return cat(R"({"model":"m","prompt":)", json_string(prompt), "}"); }
  static std::string chat(const std::string& content) {
    return cat(R"({"model":"m","messages":[{"role":"user","content":)", json_string(content), "}]}");
  }

  Model model_;
  std::unique_ptr<TestPool> pool_;
  int64_t tokens_ = 0;
};

// vLLM's routes, or those a test wants.
class RenderService {
 public:
  enum class Way : int { kRender, kTokenize, kHang, kError, kNonsense };
  RenderService()
      : server_({}, [this]() -> net::Handler {
          return [this](net::Request& request, net::ResponseWriter& out) { return answer(request, out); };
        }) {
    const auto started = server_.start();
    EXPECT_TRUE(started);
  }
  ~RenderService() {
    way = Way::kError;
    server_.stop(net::Millis(0));
  }
  std::string url() const { return cat("http://127.0.0.1:", server_.port()); }
  int port() const { return server_.port(); }
  void answers(std::span<const uint32_t> ids, std::string features = "null") {
    const std::lock_guard lock(mutex_);
    ids_.clear();
    for (const uint32_t id : ids) ids_ += cat(ids_.empty() ? "" : ",", id);
    features_ = std::move(features);
  }
  std::atomic<Way> way{Way::kRender};
  std::atomic<int> renders{0}, tokenizes{0};

 private:
  net::Task<> answer(net::Request& request, net::ResponseWriter& out) {
    if (way == Way::kHang) {
      while (way == Way::kHang && !out.cancel().cancelled()) co_await net::sleep_for(net::Millis(5));
      co_return;
    }
    std::string ids, features;
    {
      const std::lock_guard lock(mutex_);
      ids = ids_, features = features_;
    }
    const bool one = request.path == "/v1/chat/completions/render", list = request.path == "/v1/completions/render";
    if (way == Way::kError) {
      (void)co_await out.send(net::Response::text(500, "no"));
    } else if (way == Way::kNonsense) {
      (void)co_await out.send(net::Response::json(200, R"({"token_ids":"many"})"));
    } else if ((one || list) && way == Way::kRender) {
      ++renders;
      const std::string result = cat(R"({"request_id":"r","token_ids":[)", ids, R"(],"features":)", features, "}");
      (void)co_await out.send(net::Response::json(200, list ? cat("[", result, "]") : result));
    } else if (request.path == "/tokenize") {
      ++tokenizes;
      (void)co_await out.send(net::Response::json(200, cat(R"({"count":1,"max_model_len":9,"tokens":[)", ids, "]}")));
    } else {
      (void)co_await out.send(net::Response::text(404, "{}"));
    }
  }
  std::mutex mutex_;
  std::string ids_, features_ = "null";
  net::Server server_;
};

TEST_F(TokensTest, TextGoesToWhoHoldsItsBlocks) {
  for (const std::string path : {"/m.gguf", "/org/hf", "/org/hf/tokenizer.json"}) {
    open(cat("{local: {path: ", model_.dir, path, "}}"));
    const auto ids = model_.ids(long_text('x'), true);
    stored("c:80", ids);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(where(completion(long_text('x') + "and something new")), "c:80") << path;
    EXPECT_GT(tokens_, static_cast<int64_t>(ids.size()) - 3);
    expect_outcome("ok", 1);
    expect_outcome("cached", 4);
  }
}

TEST_F(TokensTest, ChatsAreRenderedAsTheEngineRendersThem) {
  open(cat("{local: {autoDiscoveryDir: ", model_.dir, "}, modelName: org/hf}"));
  stored("d:80", model_.ids(cat("<|im_start|>user\n", long_text('y'), "<|im_end|>\n<|im_start|>assistant\n"), false));
  EXPECT_EQ(where(chat(long_text('y')), "/v1/chat/completions"), "d:80");
  EXPECT_EQ(where(cat(R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":)", json_string(long_text('y')),
                      "}]}],\"max_tokens\":3,\"stream\":true}"),
                  "/v1/chat/completions"),
            "d:80");
  expect_outcome("ok", 2);
  const std::string debug = pool_->picker->debug_json();
  EXPECT_THAT(debug, HasSubstr("\"precise\":true"));
}

TEST_F(TokensTest, ARenderServiceIsAsked) {
  RenderService service;
  open(cat("{vllm: {url: \"", service.url(), "\"}}"));
  std::vector<uint32_t> ids(160);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<uint32_t>(7 * i);
  service.answers(ids);
  stored("b:80", ids);
  EXPECT_EQ(where(completion(long_text('a'))), "b:80");
  EXPECT_EQ(where(chat(long_text('a')), "/v1/chat/completions"), "b:80");
  EXPECT_EQ(tokens_, 160);
  EXPECT_EQ(service.renders, 2);
  service.way = RenderService::Way::kTokenize;  // an engine without the route
  EXPECT_EQ(where(completion(long_text('b'))), "b:80");
  EXPECT_EQ(where(completion(long_text('c'))), "b:80");
  EXPECT_EQ(service.tokenizes, 2);
}

TEST_F(TokensTest, WorkersAreAskedWhereNothingElseIsSaid) {
  RenderService service;
  open("{kind: workers}");
  discovery::Member m;
  m.host = "127.0.0.1";
  m.port = service.port();
  pool_->cluster.members = {m};
  pool_->picker->set_cluster(std::make_shared<const discovery::ClusterState>(pool_->cluster));
  service.answers(std::vector<uint32_t>(64, 5));
  EXPECT_EQ(where(completion(long_text('w'))), cat("127.0.0.1:", service.port()));
  EXPECT_EQ(tokens_, 64);
  expect_outcome("ok", 1);
}

TEST_F(TokensTest, MediaCountByTheirIdentifiers) {
  RenderService service;
  open(cat("{vllm: {url: \"", service.url(), "\"}}"));
  const std::vector<uint32_t> ids(96, 9);
  const auto features = [](std::string_view hash) {
    return cat(R"({"mm_hashes":{"image":[")", hash, R"("]},"mm_placeholders":{"image":[{"offset":20,"length":30}]}})");
  };
  stored("b:80", ids, {{}, {"cat"}, {"cat"}, {"cat"}, {}, {}});
  stored("c:80", ids, {{}, {"dog"}, {"dog"}, {"dog"}, {}, {}});
  const std::string body =
      R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x/)";
  service.answers(ids, features("cat"));
  EXPECT_EQ(where(body + "cat\"}}]}]}", "/v1/chat/completions"), "b:80");
  service.answers(ids, features("dog"));
  EXPECT_EQ(where(body + "dog\"}}]}]}", "/v1/chat/completions"), "c:80");
}

TEST_F(TokensTest, ASaltKeepsTenantsApart) {
  open(cat("{local: {path: ", model_.dir, "/m.gguf}}"));
  const auto ids = model_.ids(long_text('s'), true);
  std::vector<std::vector<std::string>> extra(ids.size() / 16);
  extra[0] = {"theirs"};
  stored("c:80", ids, extra);
  const auto cached = [&](std::string_view salt) {
    where(cat(R"({"model":"m","cache_salt":)", json_string(salt), R"(,"prompt":)", json_string(long_text('s')), "}"));
    const auto state = parse_json(pool_->picker->debug_json());
    return *state->find("decisions")->items[0].find("cached_tokens")->as_int();
  };
  EXPECT_GT(cached("theirs"), 100);
  EXPECT_EQ(cached("ours"), 0);
}

TEST_F(TokensTest, ASlowServiceIsNotWaitedFor) {
  RenderService service;
  service.way = RenderService::Way::kHang;
  open(cat("{vllm: {url: \"", service.url(), "\", timeout: 30ms}}"));
  const std::string first = where(completion(long_text('z')));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(where(completion(long_text('z'))), first) << "the approximate index remembers";
  expect_outcome("timeout", 4);
  EXPECT_THAT(pool_->picker->debug_json(), HasSubstr("\"precise\":false"));
}

TEST_F(TokensTest, ABrokenServiceIsCounted) {
  RenderService service;
  open(cat("{vllm: {url: \"", service.url(), "\"}}"));
  service.way = RenderService::Way::kError;
  EXPECT_THAT(where(completion(long_text('1'))), HasSubstr(":80"));
  service.way = RenderService::Way::kNonsense;
  EXPECT_THAT(where(completion(long_text('2'))), HasSubstr(":80"));
  expect_outcome("failed", 2);
}

TEST_F(TokensTest, AMissingTokenizerIsCounted) {
  open("{local: {path: /nowhere/tokenizer.json}}");
  EXPECT_THAT(where(completion(long_text('1'))), HasSubstr(":80"));
  EXPECT_THAT(where(completion(long_text('1'))), HasSubstr(":80"));
  expect_outcome("no_tokenizer", 2);
  open(cat("{local: {autoDiscoveryDir: ", model_.dir, "}, modelName: ../../etc}"));
  EXPECT_THAT(where(completion(long_text('1'))), HasSubstr(":80"));
  expect_outcome("no_tokenizer", 1);
  open(cat("{local: {path: ", model_.dir, "/m.gguf}}"));
  EXPECT_THAT(where(R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}]})",
                    "/v1/chat/completions"),
              HasSubstr(":80"));
  expect_outcome("unsupported", 1);
}

TEST_F(TokensTest, RequestsThatEndWhileTheyWait) {
  RenderService service;
  service.way = RenderService::Way::kHang;
  open(cat("{vllm: {url: \"", service.url(), "\", timeout: 20ms}}"));
  for (int i = 0; i < 8; ++i) {
    auto flight = pool_->begin(completion(long_text(static_cast<char>('a' + i))));
    flight->decide({}, [](auto) { ADD_FAILURE() << "nobody waits for it any more"; });
  }
  where(completion(long_text('z')));
  pool_->posts.run();
  auto last = pool_->begin(completion(long_text('y')));
  bool done = false;
  last->decide({}, [&](auto) { done = true; });
  pool_->picker->stop();
  pool_->posts.run();
  EXPECT_TRUE(done) << "stop() wakes who waits";
}

TEST(LocalTokenizer, LongTextsAreReadToTheirBound) {
  Model model;
  const auto tokenizer = LocalTokenizer::load(model.dir + "/m.gguf");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  std::string text;
  while (text.size() < 100'000) text += "caf\u00e9 ";
  const auto whole = (*tokenizer)->tokens(Shape::kCompletions, cat("{\"prompt\":", json_string(text), "}"), 1u << 20);
  const auto front = (*tokenizer)->tokens(Shape::kCompletions, cat("{\"prompt\":", json_string(text), "}"), 1'000);
  ASSERT_TRUE(whole && front);
  ASSERT_GT(front->ids.size(), 1'000u);
  ASSERT_LT(front->ids.size(), whole->ids.size());
  EXPECT_TRUE(std::equal(front->ids.begin(), front->ids.end(), whole->ids.begin()));
  EXPECT_NEAR(static_cast<double>(front->total), static_cast<double>(whole->total), static_cast<double>(whole->total) / 50);
}

TEST(TokensAnswer, ReadsWhatEnginesSay) {
  const auto tokenize = read_tokens_answer(R"({"count":3,"max_model_len":4096,"tokens":[1,2,30],"token_strs":null})");
  ASSERT_TRUE(tokenize);
  EXPECT_EQ(tokenize->ids, (std::vector<uint32_t>{1, 2, 30}));
  const auto several = read_tokens_answer(R"([{"token_ids": [4, 5]}, {"token_ids": [6]}])");
  ASSERT_TRUE(several);
  EXPECT_EQ(several->ids, (std::vector<uint32_t>{4, 5}));
  const auto nested =
      read_tokens_answer(R"({"other":{"token_ids":[9]},"token_ids":[],"features":{"mm_hashes":{"image":["b","a"]},)"
                         R"("mm_placeholders":{"image":[{"offset":9,"length":2},{"offset":1,"length":3}]}}})");
  ASSERT_TRUE(nested);
  EXPECT_TRUE(nested->ids.empty());
  EXPECT_EQ(nested->media, (std::vector<route::MediaSpan>{{"a", 1, 3}, {"b", 9, 2}}));
  for (const char* bad : {"", "[]", "{}", "7", R"({"token_ids":3})", R"({"tokens":[1,2)"})
    EXPECT_FALSE(read_tokens_answer(bad)) << bad;
}

}  // namespace
}  // namespace baton::picker
