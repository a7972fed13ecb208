// LoRA over HTTP, in vLLM's words: names, cards, loading and unloading while requests run; and the table of adapters behind it.
#include <gtest/gtest.h>

#include <future>

#include "engine/adapters.h"
#include "engine/testing/lora_files.h"
#include "engine/testing/test_engine.h"

namespace baton::engine {
namespace {

using testing::FakeModel;
using testing::LoraFiles;
using testing::Reply;
using testing::TestEngine;
using ::testing::HasSubstr;

EngineConfig serving(std::vector<LoraModule> loras, int max_loras = 2) {
  EngineConfig config;
  config.enable_lora = config.lora_updating = true;
  config.max_loras = max_loras;
  config.loras = std::move(loras);
  return config;
}

std::string text(const Reply& reply) {
  const Json json = reply.json();
  const Json* choices = json.find("choices");
  if (!choices || choices->items.empty()) return "no answer in " + reply.body;
  return choices->items[0].find("text")->text;
}

std::string ask(TestEngine& e, const std::string& model, const std::string& prompt = "once upon a time there was a keeper of a lighthouse") {
  return text(e.complete(cat(R"("model":")", model, R"(","prompt":")", prompt, R"(","max_tokens":12,"temperature":0)")));
}

std::string load(const std::string& name, const std::string& path, bool in_place = false) {
  return cat(R"({"lora_name":")", name, R"(","lora_path":")", path, R"(","load_inplace":)", in_place, "}");
}

TEST(LoraApi, AnAdapterIsAModelOfItsOwn) {
  const LoraFiles files;
  EngineConfig config = serving({{.name = "one", .path = files.write("one", 1)}, {.name = "two", .path = files.write("two", 2), .base_model = "alias"}});
  config.served_model_names = {"tiny", "alias"};
  TestEngine e(config);
  const std::string base = ask(e, "tiny"), one = ask(e, "one"), two = ask(e, "two");
  EXPECT_EQ(ask(e, "alias"), base);
  EXPECT_TRUE(base != one && one != two && base != two);
  EXPECT_EQ(ask(e, "one"), one) << "its own cached prefix";
  EXPECT_EQ(e.complete(R"("model":"two","prompt":"a","max_tokens":1)").json().find("model")->text, "two");
  EXPECT_EQ(e.post("/v1/chat/completions", R"({"model":"one","messages":[{"role":"user","content":"a"}],"max_tokens":1})").json().find("model")->text, "one");
  const Reply unknown = e.complete(R"("model":"three","prompt":"a")");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.error(), "The model `three` does not exist. Valid aliases: tiny, alias.");

  const Json cards = e.get("/v1/models").json();
  ASSERT_EQ(cards.find("data")->items.size(), 4u);
  const Json &of_base = cards.find("data")->items[0], &of_one = cards.find("data")->items[2], &of_two = cards.find("data")->items[3];
  EXPECT_TRUE(of_base.find("parent")->is_null());
  EXPECT_EQ(of_one.find("id")->text, "one");
  EXPECT_EQ(of_one.find("parent")->text, "tiny");
  EXPECT_EQ(of_one.find("root")->text, config.loras[0].path);
  EXPECT_TRUE(of_one.find("max_model_len")->is_null());
  EXPECT_EQ(of_two.find("parent")->text, "alias");
  EXPECT_EQ(e.get("/v1/models/two").json().find("parent")->text, "alias");
  EXPECT_EQ(e.get("/v1/models/three").status, 404);
  e.expect_idle();
}

TEST(LoraApi, LoadsAndUnloadsInVllmsWords) {
  const LoraFiles files;
  TestEngine e(serving({}));
  const std::string path = files.write("a", 1);
  const auto expect = [&](const std::string& route, const std::string& body, int status, const std::string& type, const std::string& message) {
    const Reply reply = e.post("/v1/" + route, body);
    EXPECT_EQ(reply.status, status) << body;
    if (status == 200) {
      EXPECT_EQ(reply.body, message);
      return;
    }
    EXPECT_THAT(reply.error(), HasSubstr(message)) << body;
    EXPECT_EQ(reply.json().find_path({"error", "type"})->text, type) << body;
    EXPECT_EQ(reply.json().find_path({"error", "code"})->as_int(), status);
  };
  const std::string load_it = "load_lora_adapter", unload = "unload_lora_adapter";
  const std::string both = "Both 'lora_name' and 'lora_path' must be provided.", input = "InvalidUserInput", mine = "BadRequestError", schema = "Bad Request";
  expect(load_it, load("a", ""), 400, input, both);
  expect(load_it, R"({"lora_path":"/x"})", 400, input, both);
  expect(load_it, R"({"lora_name":1})", 400, schema, "lora_name");
  expect(load_it, R"({"lora_name":"a","lora_path":"/x","is_3d_lora_weight":"x"})", 400, schema, "is_3d_lora_weight");
  expect(load_it, "[", 400, schema, "JSON");
  expect(load_it, load("a", files.none()), 404, "NotFoundError", cat("Loading lora a failed: No adapter found for ", files.none()));
  expect(load_it, load("a", files.write("big", 1, 64)), 500, "InternalServerError", "LoRA rank 64 is greater than max_lora_rank 16.");
  expect(load_it, load("tiny", path), 400, input, "conflicts with a served base model");
  expect(load_it, load("a,b", path), 400, input, "without commas");
  expect(unload, R"({"lora_name":"a"})", 404, "NotFoundError", "The lora adapter 'a' cannot be found.");
  expect(unload, R"({})", 400, input, "'lora_name' needs to be provided to unload a LoRA adapter.");
  expect(load_it, load("a", path), 200, "", "Success: LoRA adapter 'a' added successfully.");
  expect(load_it, load("a", path), 400, input,
         "The lora adapter 'a' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.");
  const std::string first = ask(e, "a");
  files.write("a", 7);
  EXPECT_EQ(ask(e, "a"), first) << "what is loaded does not change with its files";
  expect(load_it, load("a", path, true), 200, "", "Success: LoRA adapter 'a' added successfully.");
  EXPECT_NE(ask(e, "a"), first) << "new weights, and no block that the old ones made";
  expect(unload, R"({"lora_name":"a"})", 200, "", "Success: LoRA adapter 'a' removed successfully.");
  EXPECT_EQ(e.complete(R"("model":"a","prompt":"a")").status, 404);
  EXPECT_EQ(e.get("/v1/models").json().find("data")->items.size(), 1u);

  EngineConfig closed = serving({});
  closed.lora_updating = false;
  TestEngine shut(closed);
  EXPECT_EQ(shut.post("/v1/load_lora_adapter", load("a", path)).status, 404);
  EXPECT_EQ(shut.post("/v1/unload_lora_adapter", R"({"lora_name":"a"})").status, 404);
  EngineConfig off;
  off.lora_updating = true;
  TestEngine without(off);
  EXPECT_EQ(without.post("/v1/load_lora_adapter", load("a", path)).status, 500);
  EXPECT_EQ(without.get("/metrics").body.find("lora_requests_info"), std::string::npos);
}

TEST(LoraApi, RequestsFinishWithTheWeightsTheyBeganWith) {
  const LoraFiles files;
  const std::string path = files.write("a", 1);
  TestEngine e(serving({{.name = "a", .path = path}}));
  e.close_gate();  // once, before the first request
  e.open_gate();
  const std::string first = ask(e, "a");
  EXPECT_EQ(e.post("/v1/load_lora_adapter", load("a", files.write("other", 2), true)).status, 200);
  const std::string second = ask(e, "a");
  EXPECT_EQ(e.post("/v1/load_lora_adapter", load("a", path, true)).status, 200);

  e.gated = true;
  auto running = std::async(std::launch::async, [&] { return ask(e, "a"); });
  EXPECT_TRUE(TestEngine::wait_for([&] { return e.metric("vllm:lora_requests_info", R"(running_lora_adapters="a")") > 0; }));
  EXPECT_EQ(e.post("/v1/unload_lora_adapter", R"({"lora_name":"a"})").status, 200);
  EXPECT_EQ(e.post("/v1/load_lora_adapter", load("a", files.write("other", 2))).status, 200);
  auto later = std::async(std::launch::async, [&] { return ask(e, "a"); });
  e.open_gate();
  EXPECT_EQ(running.get(), first);
  EXPECT_EQ(later.get(), second);
  EXPECT_TRUE(TestEngine::wait_for([&] { return e.metric("vllm:lora_requests_info", R"(running_lora_adapters="")") > 0; }));
  e.expect_idle();
}

TEST(Adapters, KeepsAsManyInMemoryAsAllowed) {
  const LoraFiles files;
  const FakeModel model;
  Adapters adapters([&model](const std::string& path) { return model.load_lora(path, 16, 0); }, {"base"}, 2);
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(adapters.load({.name = name, .path = files.write(name, static_cast<uint64_t>(name[0]))}, false));
  const auto b = *adapters.find("b"), c = *adapters.find("c");
  const auto a = adapters.find("a");  // read again: b leaves
  ASSERT_TRUE(a) << a.error().message;
  EXPECT_EQ((*a)->key.id, 1) << "the same weights keep their number";
  EXPECT_EQ(*adapters.find("c"), c) << "still in memory";
  EXPECT_EQ(*adapters.find("a"), *a);
  const auto again = *adapters.find("b");
  EXPECT_NE(again, b);
  EXPECT_EQ(again->key.digest, b->key.digest);
  EXPECT_EQ(again->key.id, b->key.id);

  ASSERT_TRUE(adapters.find("c"));  // a leaves, and its files change
  files.write("a", 99);
  const auto changed = *adapters.find("a");
  EXPECT_NE(changed->key.digest, (*a)->key.digest);
  EXPECT_NE(changed->key.id, (*a)->key.id);
  ASSERT_TRUE(adapters.find("b") && adapters.find("c"));
  files.remove("a");
  EXPECT_FALSE(adapters.find("a"));
  EXPECT_TRUE(adapters.has("a"));
  EXPECT_TRUE(adapters.unload("a"));
  EXPECT_EQ(adapters.find("a").error().code, Code::kNotFound);
  std::vector<std::string> names;
  for (const LoraModule& m : adapters.list()) names.push_back(m.name);
  EXPECT_EQ(names, (std::vector<std::string>{"b", "c"}));
}

}  // namespace
}  // namespace baton::engine
