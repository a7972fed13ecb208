#include "picker/body_reader.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "picker/body_reference.h"

namespace baton::picker {
namespace {

constexpr Shape kShapes[] = {Shape::kChat,   Shape::kCompletions, Shape::kEmbeddings,     Shape::kResponses,    Shape::kConversations,
                             Shape::kImages, Shape::kAnthropic,   Shape::kAnthropicCount, Shape::kVllmGenerate, Shape::kSglangGenerate};

BodyReader read_all(std::string_view body, Shape shape, size_t block_bytes = 16) {
  BodyReader reader({.shape = shape, .token_ids = true, .block_bytes = block_bytes});
  EXPECT_TRUE(reader.feed(body)) << body;
  EXPECT_TRUE(reader.finish()) << body;
  return reader;
}

// Bodies at random: mostly of the wanted members, with escapes, UTF-8, nesting, duplicates and white space.
struct Maker {
  Prng prng;
  int depth = 0;

  std::string pick(std::initializer_list<std::string_view> from) { return std::string(from.begin()[prng.below(from.size())]); }
  std::string space() { return prng.chance(0.8) ? "" : pick({" ", "\n", "\t ", "  \r\n"}); }
  std::string text() {
    std::string out = "\"";
    for (uint64_t n = prng.below(prng.chance(0.1) ? 300 : 12); n-- > 0;) {
      out += pick({"a", "bc", " ", "\\n", "\\\"", "\\\\", "\\u00e9", "\\ud83d\\ude00", "\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80",
                   "data: some longer plain text without anything special in it", "\\u0000", "{", "]", "\\/"});
    }
    return out + "\"";
  }
  std::string number() {
    return pick({"0", "7", "-3", "128", "1.0", "2.5", "1e2", "-0", "4294967296", "9223372036854775807", "18446744073709551616", "1E-2",
                 "100000000000000000000000000000000000000000000000000000000000000000000000000000000"});
  }
  std::string list(auto&& item) {
    std::string out = "[" + space();
    const uint64_t n = prng.below(6);
    for (uint64_t i = 0; i < n; ++i) out += (i > 0 ? "," + space() : "") + item() + space();
    return out + "]";
  }
  std::string ids() {
    return list([&] { return prng.chance(0.9) ? std::to_string(prng.below(200'000)) : value(); });
  }
  std::string object(std::initializer_list<std::string_view> keys) {
    std::string out = "{" + space();
    const uint64_t n = prng.below(5);
    for (uint64_t i = 0; i < n; ++i) {
      out += (i > 0 ? "," + space() : "") + "\"" + pick(keys) + "\"" + space() + ":" + space() + value() + space();
    }
    return out + "}";
  }
  std::string part() {
    return object({"text", "type", "content", "thinking", "image_url", "source", "input_audio", "video_url", "file", "input", "te\\u0078t"});
  }
  std::string message() { return object({"role", "content", "tool_calls", "name", "output", "arguments", "zzz"}); }
  std::string value() {
    if (++depth > 5) return --depth, number();
    std::string out;
    switch (prng.below(12)) {
      case 0: out = number(); break;
      case 1: out = pick({"true", "false", "null"}); break;
      case 2: out = list([&] { return value(); }); break;
      case 3: out = list([&] { return message(); }); break;
      case 4: out = list([&] { return part(); }); break;
      case 5: out = ids(); break;
      case 6: out = object({"a", "url", "data", "model", "include_usage", "max_tokens", "n", "max_new_tokens", ""}); break;
      case 7: out = list([&] { return text(); }); break;
      default: out = text();
    }
    --depth;
    return out;
  }
  std::string body() {
    std::string out = space() + "{" + space();
    const uint64_t n = prng.below(9);
    for (uint64_t i = 0; i < n; ++i) {
      const std::string key =
          pick({"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "priority", "user", "lora_path", "cache_salt",
                "kv_transfer_params", "kv_transfer_params", "sampling_params", "tools", "functions", "messages", "messages", "items", "system",
                "instructions", "input", "prompt", "prompt", "token_ids", "features", "text", "input_ids", "image_data", "unknown",
                "a name that is longer than any member that we know, and than we keep of one"});
      std::string v = value();
      if (key == "model" && prng.chance(0.9)) v = text();
      if (prng.chance(0.5) && (key == "messages" || key == "input" || key == "items")) v = list([&] { return message(); });
      if (prng.chance(0.5) && (key == "prompt" || key == "token_ids" || key == "input_ids")) v = ids();
      out += (i > 0 ? "," + space() : "") + "\"" + key + "\"" + space() + ":" + space() + v + space();
    }
    return out + "}" + space();
  }
};

std::string split_read(std::string_view body, Shape shape, Prng& prng, const BodyReader& whole) {
  BodyReader reader({.shape = shape, .token_ids = true, .block_bytes = 16});
  for (size_t i = 0; i < body.size();) {
    const size_t n = std::min<size_t>(body.size() - i, 1 + prng.below(prng.chance(0.5) ? 3 : 40));
    const std::string piece(body.substr(i, n));  // its own memory: whoever keeps a pointer into it is found
    if (auto fed = reader.feed(piece); !fed) return fed.error().message;
    i += n;
  }
  if (auto done = reader.finish(); !done) return done.error().message;
  if (reader.chain(5, "m") != whole.chain(5, "m")) return "the chain depends on the split";
  if (reader.facts().cuts != whole.facts().cuts) return "the cuts depend on the split";
  if (reader.facts().prompt != whole.facts().prompt) return "the prompt's kind depends on the split";
  const auto reference = BodyReference::read(body, shape);
  return reference ? reference->compare(reader) : "the reference refuses it";
}

TEST(BodyReader, SaysWhatTheTreeSaysInAnySplit) {
  const uint64_t seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Maker make{Prng(seed)};
  int read = 0, edits = 0;
  for (int round = 0; round < 2500; ++round) {
    const std::string body = make.body();
    const Shape shape = kShapes[make.prng.below(std::size(kShapes))];
    SCOPED_TRACE(body);
    const auto reference = BodyReference::read(body, shape);
    BodyReader whole({.shape = shape, .token_ids = true, .block_bytes = 16});
    const bool ok = whole.feed(body) && whole.finish();
    ASSERT_EQ(ok, reference.has_value());
    if (!ok) continue;
    ++read;
    ASSERT_EQ(reference->compare(whole), "");
    ASSERT_EQ(whole.chain(9, "served"), reference->chain(9, "served", 16, 2048));
    ASSERT_EQ(whole.chain(9, "served").size(), whole.blocks());
    ASSERT_EQ(split_read(body, shape, make.prng, whole), "");
    const std::string edited = whole.edited(body, "other \"model\"");
    const auto after = BodyReference::read(edited, shape);
    ASSERT_TRUE(after) << edited;
    EXPECT_EQ(after->facts.model, "other \"model\"");
    const std::string cut = whole.edited(body, std::nullopt);
    const auto kept = BodyReference::read(cut, shape);
    ASSERT_TRUE(kept) << cut;
    EXPECT_EQ(kept->without_cuts, reference->without_cuts);
    EXPECT_EQ(parse_json(cut)->find("kv_transfer_params"), nullptr) << cut;
    EXPECT_EQ(whole.wants_edit(std::nullopt), cut != body);
    edits += cut != body;
  }
  EXPECT_GT(read, 1500);
  EXPECT_GT(edits, 100);
}

TEST(BodyReader, RefusesWhatTheTreeRefuses) {
  const uint64_t seed = secure_random_u64();
  SCOPED_TRACE(cat("seed ", seed));
  Maker make{Prng(seed)};
  int refused = 0;
  for (int round = 0; round < 2500; ++round) {
    std::string body = make.body();
    for (uint64_t n = 1 + make.prng.below(3); n-- > 0;) {
      const size_t at = make.prng.below(body.size());
      switch (make.prng.below(3)) {
        case 0: body[at] = static_cast<char>(make.prng.below(256)); break;
        case 1: body.erase(at, 1 + make.prng.below(3)); break;
        default: body.insert(at, 1, "\"\\{}[],:0-e\x80\xed"[make.prng.below(14)]);
      }
      if (body.empty()) body = " ";
    }
    SCOPED_TRACE(body);
    const auto reference = BodyReference::read(body, Shape::kChat);
    BodyReader reader({.shape = Shape::kChat, .token_ids = true, .block_bytes = 16});
    const bool ok = reader.feed(body) && reader.finish();
    ASSERT_EQ(ok, reference.has_value());
    refused += !ok;
    if (ok) ASSERT_EQ(reference->compare(reader), "");
  }
  EXPECT_GT(refused, 1000);
}

TEST(BodyReader, ErrorsNameTheByteAndStay) {
  BodyReader reader({.shape = Shape::kChat});
  ASSERT_TRUE(reader.feed("{\"model\": \"m\", "));
  const auto bad = reader.feed("oops");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Code::kInvalidArgument);
  EXPECT_EQ(bad.error().message, "invalid JSON: expected a key in quotes at byte 15");
  EXPECT_EQ(reader.feed("}").error().message, bad.error().message);
  EXPECT_EQ(reader.finish().error().message, bad.error().message);

  BodyReader open({.shape = Shape::kChat});
  ASSERT_TRUE(open.feed("{\"model\": \"m"));
  EXPECT_EQ(open.finish().error().message, "invalid JSON: string is not closed at byte 12");

  BodyReader list({.shape = Shape::kChat});
  EXPECT_EQ(list.feed("[1]").error().message, "request body must be a JSON object, not array");
  BodyReader model({.shape = Shape::kChat});
  EXPECT_EQ(model.feed("{\"model\":1}").error().message, "model must be a string, not number");

  BodyReader large({.shape = Shape::kPassthrough, .bytes_max = 10});
  ASSERT_TRUE(large.feed("0123456789"));
  EXPECT_EQ(large.feed("x").error().code, Code::kResourceExhausted);
}

TEST(BodyReader, ChatFacts) {
  const BodyReader reader = read_all(
      R"({"model":"llama","messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"what is it?"},)"
      R"({"type":"image_url","image_url":{"url":"https://a/b.png","detail":"low"}}]}],"stream":true,"stream_options":{"include_usage":true},)"
      R"("max_completion_tokens":64,"n":2,"priority":-1,"user":"u1","kv_transfer_params":{"do_remote_decode":true}})",
      Shape::kChat);
  const BodyFacts& f = reader.facts();
  EXPECT_EQ(f.model, "llama");
  EXPECT_TRUE(f.stream && f.include_usage && f.multimodal);
  EXPECT_EQ(f.max_tokens, 64);
  EXPECT_EQ(f.n, 2);
  EXPECT_EQ(f.priority, -1);
  EXPECT_EQ(f.user, "u1");
  EXPECT_EQ(f.messages, 2u);
  EXPECT_EQ(f.prompt, PromptKind::kMessages);
  EXPECT_EQ(f.assets.size(), 1u);
  EXPECT_EQ(f.prompt_tokens(), (6 + 8 + 4 + 11) / 4 + kImageTokens);
  EXPECT_EQ(f.cuts.size(), 1u);
}

// What engines see first counts first, wherever it stands in the body.
TEST(BodyReader, ChainFollowsThePromptNotTheBody) {
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"search","description":"finds things"}}])";
  const std::string messages = R"("messages":[{"role":"user","content":"a question of more than one block, and then some"}])";
  const BodyReader a = read_all("{" + tools + "," + messages + "}", Shape::kChat);
  const BodyReader b = read_all("{" + messages + "," + tools + "}", Shape::kChat);
  EXPECT_EQ(a.chain(1, "m"), b.chain(1, "m"));
  const BodyReader other = read_all("{" + tools + R"(,"messages":[{"role":"user","content":"something else entirely"}]})", Shape::kChat);
  EXPECT_EQ(a.chain(1, "m")[3], other.chain(1, "m")[3]) << "the same tools are a common prefix";
  EXPECT_NE(a.chain(1, "m"), a.chain(1, "n"));
  EXPECT_NE(a.chain(1, "m"), a.chain(2, "m"));
  const BodyReader salted = read_all("{" + tools + "," + messages + R"(,"cache_salt":"s"})", Shape::kChat);
  EXPECT_NE(a.chain(1, "m")[0], salted.chain(1, "m")[0]);
}

TEST(BodyReader, PromptKinds) {
  EXPECT_EQ(read_all(R"({"prompt":"x"})", Shape::kCompletions).facts().prompt, PromptKind::kText);
  EXPECT_EQ(read_all(R"({"prompt":["x","y"]})", Shape::kCompletions).facts().prompt, PromptKind::kTexts);
  EXPECT_EQ(read_all(R"({"prompt":[1,2]})", Shape::kCompletions).facts().prompt, PromptKind::kIds);
  const BodyReader lists = read_all(R"({"prompt":[[1, 2],[3]]})", Shape::kCompletions);
  EXPECT_EQ(lists.facts().prompt, PromptKind::kIdLists);
  EXPECT_EQ(lists.facts().token_ids, (std::vector<uint32_t>{1, 2, 3}));
}

TEST(BodyReader, PathsChooseTheShape) {
  const std::vector<std::string> all = {"openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser"};
  EXPECT_EQ(shape_of("/v1/chat/completions", all), Shape::kChat);
  EXPECT_EQ(shape_of("/v1/completions", all), Shape::kCompletions);
  EXPECT_EQ(shape_of("/v1/completions/render", all), Shape::kCompletions);
  EXPECT_EQ(shape_of("/v1/messages", all), Shape::kAnthropic);
  EXPECT_EQ(shape_of("/v1/messages/count_tokens", all), Shape::kAnthropicCount);
  EXPECT_EQ(shape_of("/inference/v1/generate", all), Shape::kVllmGenerate);
  EXPECT_EQ(shape_of("/generate", all), Shape::kPassthrough) << "sglang's parser is not configured";
  EXPECT_EQ(shape_of("/v1/xcompletions", all), Shape::kPassthrough) << "a suffix begins at a slash";
  EXPECT_EQ(shape_of("/tokenize", std::vector<std::string>{"openai-parser"}), Shape::kRefused);
  EXPECT_EQ(shape_of("/v1/chat/completions", std::vector<std::string>{"passthrough-parser"}), Shape::kPassthrough);
}

}  // namespace
}  // namespace baton::picker
