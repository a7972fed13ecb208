// Tests of base/: small things everything else leans on.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/clock.h"
#include "base/config.h"
#include "base/json.h"
#include "base/json_outline.h"
#include "base/log_json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/prng.h"
#include "base/result.h"
#include "base/sha256.h"

namespace baton {
namespace {

TEST(Result, TryPassesTheErrorOn) {
  auto inner = [](bool ok) -> Result<int> { return ok ? Result<int>(7) : fail(Code::kNotFound, "no ", 7, ' ', 1.5, " ", true); };
  auto outer = [&](bool ok) -> Result<int> {
    BATON_TRY(int v, inner(ok));
    BATON_OK(inner(true));
    return v + 1;
  };
  EXPECT_EQ(*outer(true), 8);
  EXPECT_EQ(outer(false).error().code, Code::kNotFound);
  EXPECT_EQ(outer(false).error().message, "no 7 1.5 true");
  EXPECT_EQ(http_status(Code::kNotFound), 404);
  EXPECT_EQ(code_name(Code::kDataLoss), "DATA_LOSS");
}

TEST(Sha256, KnownAnswers) {
  auto of = [](std::string_view s) { return hex(Sha256().update(s).finish()); };
  EXPECT_EQ(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(of(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, ChunkingDoesNotMatter) {
  Prng rng(11);
  for (int round = 0; round < 200; ++round) {
    std::string text(rng.below(300), '\0');
    for (char& c : text) c = static_cast<char>(rng.next());
    Sha256 whole, parts;
    whole.update(text);
    for (size_t i = 0; i < text.size();) {
      size_t n = 1 + rng.below(text.size() - i);
      parts.update(std::string_view(text).substr(i, n));
      i += n;
    }
    EXPECT_EQ(whole.finish(), parts.finish()) << "round " << round << " of seed 11, " << text.size() << " bytes";
  }
}

TEST(Prng, StreamsAreReproducibleAndUniformEnough) {
  Prng a(5), b(5);
  int counts[10] = {};
  for (int i = 0; i < 10000; ++i) {
    uint64_t v = a.below(10);
    EXPECT_EQ(v, b.below(10));
    ++counts[v];
  }
  for (int c : counts) EXPECT_NEAR(c, 1000, 150);
  EXPECT_EQ(Prng::at(9, 3), Prng::at(9, 3));
  EXPECT_NE(Prng::at(9, 3), Prng::at(9, 4));
  EXPECT_EQ(uuid4().size(), 36u);
  EXPECT_NE(uuid4(), uuid4());
}

TEST(Json, ReadsWhatItShould) {
  std::string text = R"( {"a": [1, -2.5e3, "x\u00e9\ud83d\ude00\n", true, null], "big": 1223960640850184400, "a2": {} } )";
  auto j = parse_json(text);
  ASSERT_TRUE(j) << j.error().message;
  EXPECT_EQ(j->find("a")->items.size(), 5u);
  EXPECT_EQ(*j->find("a")->items[1].as_int(), -2500);
  EXPECT_EQ(j->find("a")->items[2].text, "x\xc3\xa9\xf0\x9f\x98\x80\n");
  EXPECT_EQ(*j->find("big")->as_int(), 1223960640850184400);
  EXPECT_EQ(j->find("big")->raw(text), "1223960640850184400");
  EXPECT_EQ(j->find("a2")->raw(text), "{}");
  EXPECT_EQ(j->find("nope"), nullptr);
  EXPECT_EQ(*parse_json(R"({"a":1,"a":2})")->find("a")->as_int(), 2);
}

TEST(Json, RefusesWhatItShould) {
  for (std::string_view bad :
       {"",    "{",           "[1,]",         "{\"a\":}",           "{a:1}",  "01",       "1.",           "+1",
        "nul", "\"\\ud800\"", "\"\\udc00x\"", "\"\\ud800\\u0041\"", "\"\t\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
        "1 2", "[1",          "\"abc",        "{\"a\" 1}",          "NaN",    "'x'",      "\"\\x\"",      "\"\\u12"}) {
    EXPECT_FALSE(parse_json(bad)) << bad;
  }
  EXPECT_FALSE(parse_json(std::string(100, '[') + std::string(100, ']')));
  EXPECT_TRUE(parse_json(std::string(60, '[') + std::string(60, ']')));
  EXPECT_FALSE(parse_json("[1,2,3,4]", {.nodes_max = 4}));
  EXPECT_FALSE(parse_json("12345", {.bytes_max = 4}));
}

TEST(Log, JsonLines) {
  testing::internal::CaptureStderr();
  log_setup_json("prog", LogLevel::kInfo);
  log_info("a \"message\"", "key={} other={}", 1, "x\ny");
  log_setup("base_test", LogLevel::kInfo);
  std::string line = testing::internal::GetCapturedStderr();
  auto json = parse_json(line);
  ASSERT_TRUE(json) << line;
  EXPECT_EQ(json->find("msg")->text, "a \"message\"");
  EXPECT_EQ(json->find("key")->as_int(), 1);
  EXPECT_EQ(json->find("other")->text, "x\ny");
  EXPECT_EQ(json->find("level")->text, "info");
  EXPECT_EQ(json->find("logger")->text, "prog");
  EXPECT_TRUE(json->find("ts")->text.ends_with("Z"));
}
TEST(Json, OutlineKeepsWhatIsAskedFor) {
  std::string text = R"({"long":"0123456789abcdef\n0123","short":"\u0061","a":{"b":{"c":1},"n":[1,2]},"big":18446744073709551615})";
  auto j = outline_json(text, {.depth = 2, .string_bytes_max = 8});
  ASSERT_TRUE(j) << j.error().message;
  EXPECT_EQ(j->find("long")->text, "");
  EXPECT_EQ(j->find("long")->raw(text), "\"0123456789abcdef\\n0123\"");
  EXPECT_EQ(j->find("short")->text, "a");
  EXPECT_EQ(j->find_path({"a", "b"})->raw(text), R"({"c":1})");
  EXPECT_EQ(j->find_path({"a", "b", "c"}), nullptr);
  EXPECT_EQ(j->find_path({"a", "n"})->raw(text), "[1,2]");
  EXPECT_EQ(j->find("big")->as_uint(), UINT64_MAX);
  for (std::string_view bad : {R"({"a":{"b":{"c":tru}}})", R"({"a":{"b":{1:2}}})", R"({"a":["0123456789\x"]})", R"(["0123456789)"}) {
    EXPECT_FALSE(outline_json(bad, {.depth = 1, .string_bytes_max = 4})) << bad;
  }
}
// Strings are read 16 bytes at a time: every place of every special byte within them.
TEST(Json, SpecialBytesAnywhere) {
  for (size_t size = 1; size < 40; ++size) {
    for (size_t at = 0; at < size; ++at) {
      std::string plain(size, 'x'), quoted = plain, bad = plain, high = plain;
      quoted.replace(at, 1, "\\n"), bad[at] = '\x1f', high.replace(at, 1, "\xc3\xa9");
      std::string meant = plain, accent = high;
      meant[at] = '\n';
      EXPECT_EQ(parse_json(cat('"', quoted, '"'))->text, meant);
      EXPECT_EQ(parse_json(cat('"', high, '"'))->text, accent);
      EXPECT_FALSE(parse_json(cat('"', bad, '"')));
    }
  }
}
TEST(Json, SetTakesThePlaceOfWhatFindFinds) {
  Json doc = *parse_json(R"({"a":1,"b":2,"a":3})");
  const Json list = *parse_json("[7]");
  doc.set("a", list);  // of two members the one that counts
  EXPECT_TRUE(doc.find("a")->is_array());
  EXPECT_EQ(doc.items[0].as_int(), 1);
  doc.set("c", Json{});
  EXPECT_EQ(doc.keys, (std::vector<std::string>{"a", "b", "a", "c"}));
  ASSERT_NE(doc.find("b"), nullptr);
  *doc.find("b") = list;
  EXPECT_TRUE(doc.find("b")->is_array());
  Json other = list;
  other.set("x", doc);
  EXPECT_EQ(other.kind_name(), "object");
  ASSERT_EQ(other.items.size(), 1u);
  EXPECT_TRUE(other.find_path({"x", "a"})->is_array());
}

TEST(Json, IntegersAreExactOrNothing) {
  auto as_int = [](std::string_view s) { return parse_json(s)->as_int(); };
  EXPECT_EQ(as_int("9223372036854775807"), INT64_MAX);
  EXPECT_EQ(as_int("9223372036854775808"), std::nullopt);
  EXPECT_EQ(as_int("1.0"), 1);
  EXPECT_EQ(as_int("1.5"), std::nullopt);
  EXPECT_EQ(as_int("1e2"), 100);
  EXPECT_EQ(as_int("1e300"), std::nullopt);
  EXPECT_EQ(parse_json("18446744073709551615")->as_uint(), UINT64_MAX);
  EXPECT_EQ(parse_json("1e999")->as_double(), std::nullopt);
}

TEST(Json, WriterPlacesCommas) {
  JsonWriter w;
  w.object().field("a", 1).key("b").array().value("x\"").null().object().end().end().field("c", 2.0).field_null("d").end();
  EXPECT_EQ(w.text(), R"({"a":1,"b":["x\"",null,{}],"c":2.0,"d":null})");
  EXPECT_EQ(json_string(std::string("\x01\n\xc3\xa9", 4)), "\"\\u0001\\n\xc3\xa9\"");
}

TEST(Metrics, TextIsWhatPythonWrites) {
  Metrics m;
  m.counter("vllm:prompt_tokens", "Tokens.", {{"model_name", "a\"b"}}).inc(3);
  m.gauge("vllm:num_requests_running", "Running.").set(2);
  auto& h = m.histogram("vllm:time", "Time.", {0.5, 1, 10}, {{"engine", "0"}});
  h.observe(0.7);
  h.observe(99);
  std::string t = m.text();
  for (std::string_view line : {"# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{model_name=\"a\\\"b\"} 3.0\n",
                                "vllm:num_requests_running 2.0\n", "vllm:time_bucket{engine=\"0\",le=\"1.0\"} 1.0\n",
                                "vllm:time_bucket{engine=\"0\",le=\"+Inf\"} 2.0\n", "vllm:time_count{engine=\"0\"} 2.0\n"}) {
    EXPECT_NE(t.find(line), std::string::npos) << line << "\nin\n" << t;
  }
  EXPECT_EQ(&m.gauge("vllm:num_requests_running", "Running."), &m.gauge("vllm:num_requests_running", "Running."));
}

struct TestConfig {
  bool caching = true;
  int port = 8000;
  double rate = 1.5;
  std::string host = "127.0.0.1", mode = "local";
  std::vector<std::string> names;
};

Options table(TestConfig& c) {
  Options o("prog", "does things", "prog [flags]");
  o.add("enable-caching", &c.caching, "cache")
      .add("port", &c.port, "port", "listen", 0, 65535)
      .alias("vllm-port")
      .env("BATON_T_PORT");
  o.add("rate", &c.rate, "1/s", "rate", 0, 100).add("host", &c.host, "where").add("mode", &c.mode, "mode", {"local", "next"});
  o.add("names", &c.names, "names").ignore({"trust-remote-code"});
  return o;
}

TEST(Options, EverySpelling) {
  TestConfig c;
  auto o = table(c);
  o.unknown_is_warning("vLLM");
  auto p = o.parse({"serve", "--port", "1", "-host=h", "--no-enable-caching", "--rate=2", "--names", "a", "b",
                    "--tensor-parallel-size", "2", "--trust_remote_code", "--mode=next"});
  ASSERT_TRUE(p) << p.error().message;
  EXPECT_EQ(c.port, 1);
  EXPECT_EQ(c.host, "h");
  EXPECT_FALSE(c.caching);
  EXPECT_EQ(c.rate, 2);
  EXPECT_EQ(c.mode, "next");
  EXPECT_EQ(c.names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(p->positional, std::vector<std::string>{"serve"});
  ASSERT_EQ(p->warnings.size(), 1u);
  EXPECT_EQ(p->warnings[0], "vLLM flag --tensor-parallel-size is not implemented here and is ignored");
}

TEST(Options, Durations) {
  int64_t ms = 5;
  auto parse = [&](std::string text) -> Result<int64_t> {
    Options o("p", "", "");
    o.add_duration("wait", &ms, "");
    BATON_OK(o.parse({"--wait", text}));
    return ms;
  };
  EXPECT_EQ(*parse("200ms"), 200);
  EXPECT_EQ(*parse("1m30s"), 90'000);
  EXPECT_EQ(*parse("0.5s"), 500);
  EXPECT_EQ(*parse("250"), 250);
  for (std::string bad : {"", "s", "-1s", "5 s", "1m30", "1e99h", "10x"}) EXPECT_FALSE(parse(bad)) << bad;
}

TEST(Options, AllErrorsTogether) {
  TestConfig c;
  auto p = table(c).parse({"--port=70000", "--rate", "fast", "--mode", "x", "--what", "--host"});
  ASSERT_FALSE(p);
  for (std::string_view part : {"--port wants a number from 0 to 65535, not 70000", "--rate wants a number, not 'fast'",
                                "--mode wants one of local, next, not 'x'", "unknown flag --what", "--host wants a value"}) {
    EXPECT_NE(p.error().message.find(part), std::string::npos) << part << " in " << p.error().message;
  }
}

TEST(Options, EnvironmentYieldsToFlags) {
  setenv("BATON_T_PORT", "11", 1);
  TestConfig a, b;
  ASSERT_TRUE(table(a).parse(std::vector<std::string>{}));
  ASSERT_TRUE(table(b).parse({"--vllm_port=12"}));
  unsetenv("BATON_T_PORT");
  EXPECT_EQ(a.port, 11);
  EXPECT_EQ(b.port, 12);
}

TEST(Options, HelpNamesEveryRow) {
  TestConfig c;
  auto o = table(c);
  for (const auto& row : o.rows()) {
    EXPECT_NE(o.help_text().find("--" + row.name), std::string::npos);
    EXPECT_NE(o.markdown().find("--" + row.name), std::string::npos);
  }
}

}  // namespace
}  // namespace baton
