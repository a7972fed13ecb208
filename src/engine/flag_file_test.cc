#include "engine/flag_file.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "engine/config.h"

namespace baton::engine {
namespace {

// "name=value,value" of each flag.
std::vector<std::string> flags_of(std::string_view yaml) {
  const auto flags = parse_flag_file(yaml, "f.yaml");
  if (!flags) return {flags.error().message};
  std::vector<std::string> out;
  for (const FlagInFile& flag : *flags) {
    std::string line = cat(flag.name, "=");
    for (size_t i = 0; i < flag.values.size(); ++i) line += cat(i > 0 ? "|" : "", flag.values[i]);
    out.push_back(line);
  }
  return out;
}

TEST(FlagFile, ValuesAreWhatTheCommandLineWouldSay) {
  const std::pair<const char*, const char*> cases[] = {
      {"port: 8200", "port=8200"},
      {"model: org/Some-Model", "model=org/Some-Model"},
      {"api-key: \"123\"", "api-key=123"},
      {"api-key: !!str 0x10", "api-key=0x10"},
      {"enable-prefix-caching: true", "enable-prefix-caching=true"},
      {"enable-prefix-caching: Off", "enable-prefix-caching=false"},
      {"served-model-name: 'yes'", "served-model-name=yes"},
      {"dtype: tRUE", "dtype=tRUE"},
      {"max-model-len: 131_072", "max-model-len=131072"},
      {"max-model-len: 0x20000", "max-model-len=131072"},
      {"seed: -017", "seed=-15"},
      {"max-model-len: 16k", "max-model-len=16k"},
      {"gpu-memory-utilization: 0.90", "gpu-memory-utilization=0.9"},
      {"max-model-len:", "max-model-len="},
      {"max-model-len: ~", "max-model-len="},
      {"served-model-name: [a, 2, \"3\"]", "served-model-name=a|2|3"},
      {"served-model-name:\n  - a\n  - b", "served-model-name=a|b"},
      {"served-model-name: []", "served-model-name="},
      {"lora-modules:\n  - {name: a, path: /x}\n  - b=/y", R"(lora-modules={"name":"a","path":"/x"}|b=/y)"},
      {"kv-transfer-config:\n  kv_role: kv_both\n  on: off\n  n: 2\n  x: .5\n  s: '2'\n  l: [1, {a: null}]",
       R"(kv-transfer-config={"kv_role":"kv_both","on":false,"n":2,"x":0.5,"s":"2","l":[1,{"a":null}]})"},
      {"base: &b {method: ngram}\nspeculative-config: *b", R"(speculative-config={"method":"ngram"})"},
  };
  for (const auto& [yaml, flag] : cases) EXPECT_EQ(flags_of(yaml).back(), flag) << yaml;
  EXPECT_TRUE(flags_of("").empty());
  EXPECT_TRUE(flags_of("# nothing\n").empty());
  EXPECT_EQ(flags_of("port: 1\nhost: h\nport: 2"), (std::vector<std::string>{"host=h", "port=2"}));
}

TEST(FlagFile, ErrorsNameTheLineAndTheKey) {
  const std::pair<const char*, const char*> cases[] = {
      {"port: 1\n- x\n", "f.yaml line 2: "},
      {"port: 1\nhost: [a\n", "f.yaml line 3: "},
      {"- port\n", "f.yaml line 1: wants a map of flags to values"},
      {"a: 1\n--port: 1\n", "f.yaml line 2: --port is no flag's name: write it without dashes"},
      {"a: 1\n? [x]\n: 1\n", "f.yaml line 2: a flag's name must be a text"},
      {"a: 1\nb:\n  - x\n  - ~\n", "f.yaml line 4: b has a value that is null"},
      {"a: 1\n---\nb: 2\n", "f.yaml line 3: a second document"},
      {"a: \xff", "f.yaml is not UTF-8"},
  };
  for (const auto& [yaml, message] : cases) {
    ASSERT_EQ(flags_of(yaml).size(), 1u) << yaml;
    EXPECT_TRUE(flags_of(yaml)[0].starts_with(message)) << yaml << ": " << flags_of(yaml)[0];
  }
  std::string deep = "a: ";
  for (int i = 0; i < 40; ++i) deep += "[";
  EXPECT_TRUE(flags_of(deep + std::string(40, ']'))[0].starts_with("f.yaml line 1: a is nested deeper than 32"));
  // Ten aliases of ten aliases ... are few bytes and many values.
  std::string many = "a0: &a0 [1]\n";
  for (int i = 1; i < 8; ++i) {
    many += cat("a", i, ": &a", i, " [");
    for (int k = 0; k < 10; ++k) many += cat(k > 0 ? "," : "", "*a", i - 1);
    many += "]\n";
  }
  EXPECT_NE(flags_of(many)[0].find("has more than 100000 values before it"), std::string::npos) << flags_of(many)[0];
}

class ConfigFlag : public ::testing::Test {
 protected:
  std::string file(std::string_view yaml, std::string_view name = "engine.yaml") {
    const std::string path =
        cat(::testing::TempDir(), "flag_file_", ::testing::UnitTest::GetInstance()->current_test_info()->name(), "_", name);
    EXPECT_TRUE(write_file(path, yaml));
    return path;
  }
  // "" or the error.
  std::string parse(const std::vector<std::string>& args) {
    config = {};
    Options options = engine_options(config);
    const auto parsed = options.parse(args);
    if (!parsed) return parsed.error().message;
    warnings = parsed->warnings;
    const auto done = finish_config(config, parsed->positional);
    return done ? "" : done.error().message;
  }
  EngineConfig config;
  std::vector<std::string> warnings;
};

TEST_F(ConfigFlag, TheCommandLineWins) {
  const std::string path = file(
      "model: from-file\nport: 8200\nmax_num_seqs: 9\nserved-model-name: [a, b]\nenable-prefix-caching: false\napi-key: [k]\n"
      "override-generation-config: {temperature: 0.5}\nkv-transfer-config:\n  kv_connector: NixlConnector\n  kv_role: kv_both\n");
  ASSERT_EQ(parse({"serve", "--config", path}), "");
  EXPECT_EQ(config.model, "from-file");
  EXPECT_EQ(config.port, 8200);
  EXPECT_EQ(config.max_num_seqs, 9);
  EXPECT_EQ(config.served_model_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(config.prefix_caching);
  EXPECT_EQ(config.generation.temperature, 0.5);
  EXPECT_TRUE(config.kv_transfer);
  // Before the flag or after it, in any spelling; of a list nothing is left.
  ASSERT_EQ(parse({"serve", "mine", "--max-num-seqs=7", "--config=" + path, "--port", "1", "--enable-prefix-caching",
                   "--served_model_name", "c"}),
            "");
  EXPECT_EQ(config.model, "mine");
  EXPECT_EQ(config.port, 1);
  EXPECT_EQ(config.max_num_seqs, 7);
  EXPECT_EQ(config.served_model_names, std::vector<std::string>{"c"});
  EXPECT_TRUE(config.prefix_caching);
  EXPECT_EQ(config.api_keys, std::vector<std::string>{"k"});
  ASSERT_EQ(parse({"serve", "--model", "flagged", "--config", path}), "");
  EXPECT_EQ(config.model, "flagged");
}

TEST_F(ConfigFlag, WhatIsWrongInAFileIsSaidWithItsLine) {
  const auto error_of = [&](std::string_view yaml) { return parse({"serve", "m", "--config", file(yaml)}); };
  const std::string path = file("");
  EXPECT_EQ(error_of("host: h\nport: many\n"), cat(path, " line 2: port wants a whole number, not 'many'"));
  EXPECT_EQ(error_of("port: [1, 2]\n"), cat(path, " line 1: port wants one value, not 2"));
  EXPECT_EQ(error_of("config: other.yaml\n"), cat(path, " line 1: config has no place in such a file"));
  EXPECT_EQ(error_of("middleware: my.Auth\n"),
            cat(path, " line 1: middleware is not supported: it names Python code, which this program does not run"));
  EXPECT_EQ(error_of("port: x\nseed: y\n"),
            cat(path, " line 1: port wants a whole number, not 'x'\n", path, " line 2: seed wants a whole number, not 'y'"));
  EXPECT_EQ(error_of("port: [\n"), cat("--config ", path, " line 2: end of sequence flow not found"));
  EXPECT_EQ(error_of("frobnication-size: 2\n"), "");
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0],
            cat(path, " line 1: frobnication-size: vLLM flag --frobnication-size is not implemented here and is ignored"));
  EXPECT_EQ(parse({"serve", "m", "--config", "engine.json"}), "--config wants a file of yaml/yml type, not engine.json");
  EXPECT_NE(parse({"serve", "m", "--config", "/no/such.yaml"}).find("/no/such.yaml"), std::string::npos);
  EXPECT_EQ(parse({"serve", "m", "--config", path, "--config", path}), "--config is given more than once");
  EXPECT_EQ(error_of("port: 1\n"), "");
}

}  // namespace
}  // namespace baton::engine
