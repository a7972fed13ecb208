// The sidecar's pure parts: allow-list entries, configuration from YAML, ranks, chunked decode.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "sidecar/allow_list.h"
#include "sidecar/chunked.h"
#include "sidecar/configuration.h"
#include "sidecar/connector.h"

namespace baton::sidecar {
namespace {

using testing::AllOf;
using testing::HasSubstr;

bool allows(std::string_view entry, std::string_view worker) {
  auto parsed = parse_allowed(entry);
  EXPECT_TRUE(parsed.has_value()) << entry;
  return parsed && parsed->has(*parse_host_port(worker));
}

TEST(AllowList, Entries) {
  EXPECT_TRUE(allows("10.0.0.1", "10.0.0.1:1"));
  EXPECT_FALSE(allows("10.0.0.1", "10.0.0.10:1"));
  EXPECT_TRUE(allows("10.0.0.1:8000", "10.0.0.1:8000"));
  EXPECT_FALSE(allows("10.0.0.1:8000", "10.0.0.1:8001"));
  EXPECT_TRUE(allows("10.0.0.0/8", "10.255.1.2:5"));
  EXPECT_FALSE(allows("10.0.0.0/8", "11.0.0.0:5"));
  EXPECT_TRUE(allows("10.1.2.4/30:80", "10.1.2.7:80"));
  EXPECT_FALSE(allows("10.1.2.4/30:80", "10.1.2.8:80"));
  EXPECT_FALSE(allows("10.1.2.4/30:80", "10.1.2.7:81"));
  EXPECT_TRUE(allows("0.0.0.0/0", "9.9.9.9:1"));
  EXPECT_FALSE(allows("0.0.0.0/0", "[fe80::1]:1"));
  EXPECT_TRUE(allows("fd00::/8", "[fd12::9]:1"));
  EXPECT_TRUE(allows("[fd00::]/8:90", "[fd12::9]:90"));
  EXPECT_FALSE(allows("[fd00::]/8:90", "[fd12::9]:91"));
  EXPECT_TRUE(allows("fd00::1", "[fd00:0:0::1]:1"));
  EXPECT_TRUE(allows("::ffff:10.0.0.1", "10.0.0.1:1"));
  EXPECT_TRUE(allows(" Prefill.svc:80 ", "prefill.SVC:80"));
  EXPECT_FALSE(allows("prefill.svc", "prefill.svc.evil.com:80"));
  EXPECT_FALSE(allows("10.0.0.0/8", "localhost:80"));  // names are not resolved
  for (std::string_view bad :
       {"", "10.0.0.0/33", "10.0.0.0/x", "a/8", "a:0", "a:99999", "a b", "[::1", "10.0.0.1:", "fd00::/129"}) {
    EXPECT_FALSE(parse_allowed(bad).has_value()) << bad;
  }
}

TEST(AllowList, OffMeansEverybody) {
  SidecarConfig config;
  AllowList off(config);
  EXPECT_FALSE(off.on());
  EXPECT_EQ(off.look_up({"anything", 1}), AllowList::Answer::kYes);
  config.allowed_prefillers = {"10.0.0.1"};
  AllowList on(config);
  EXPECT_EQ(on.look_up({"10.0.0.1", 1}), AllowList::Answer::kYes);
  EXPECT_EQ(on.look_up({"10.0.0.2", 1}), AllowList::Answer::kNo);
}

struct Parsed {
  explicit Parsed(std::vector<std::string> args) {
    Options options = sidecar_options(config);
    auto r = parse_command_line(args, options, config);
    if (!r) error = r.error().message;
  }
  SidecarConfig config;
  std::string error;
};

TEST(Configuration, KeysAreFlags) {
  Parsed p({"--configuration",
            "port: 8001\nkv-connector: sglang\nenable-tls: [prefiller, decoder]\nsecure-proxy: false\n"
            "prefill-timeout: 1m\nallowed-prefillers:\n- 10.0.0.0/8\n- p:80\ncert-path:\n"});
  EXPECT_EQ(p.error, "");
  EXPECT_EQ(p.config.port, 8001);
  EXPECT_EQ(p.config.connector, "sglang");
  EXPECT_TRUE(p.config.prefiller_tls.use && p.config.decoder_tls.use && !p.config.encoder_tls.use);
  EXPECT_FALSE(p.config.secure_proxy);
  EXPECT_EQ(p.config.prefill_timeout_ms, 60'000);
  EXPECT_EQ(p.config.allowed_prefillers.size(), 2u);
}

TEST(Configuration, FlagsBeatIt) {
  Parsed p({"-vllm-port=1",
            "--configuration={model-server-port: 2, connector: lmcache, enable-tls: [prefiller], secure-proxy: true}",
            "--no-secure-proxy", "--enable-tls=decoder"});
  EXPECT_EQ(p.error, "");
  EXPECT_EQ(p.config.model_server_port, 1);
  EXPECT_EQ(p.config.connector, "lmcache");
  EXPECT_FALSE(p.config.secure_proxy);
  EXPECT_TRUE(p.config.decoder_tls.use && !p.config.prefiller_tls.use);
}

TEST(Configuration, FromAFile) {
  auto path = std::filesystem::temp_directory_path() / cat("baton-sidecar-", getpid(), ".yaml");
  std::ofstream(path) << "port: 8002\n";
  Parsed p({"--configuration-file", path.string()});
  EXPECT_EQ(p.config.port, 8002);
  EXPECT_THAT(Parsed({"--configuration-file", path.string(), "--configuration=port: 1"}).error, HasSubstr("exclude each other"));
  std::filesystem::remove(path);
  EXPECT_THAT(Parsed({cat("--configuration-file=", path.string())}).error, HasSubstr("cannot read"));
}

TEST(Configuration, EveryErrorIsNamed) {
  Parsed p(
      {"--configuration={port: many, unheard-of: 1, configuration-file: x}", "--moriio-parallel-dispatch", "--kv-connector=x"});
  EXPECT_THAT(p.error, AllOf(HasSubstr("whole number"), HasSubstr("unknown key unheard-of"), HasSubstr("configuration-file"),
                             HasSubstr("--moriio-write-mode"), HasSubstr("wants one of nixlv2")));
  for (const char* bad : {"[1]", "text", "{port: {a: 1}}", "{a: [", "{[1]: 2}", "{\"a=b\": 1}", "{enable-tls: [[1]]}"}) {
    EXPECT_NE(Parsed({"--configuration", bad}).error, "") << bad;
  }
  EXPECT_EQ(Parsed({"--configuration="}).error, "");
}

// RFC 7693 appendix B has BLAKE2s-256("abc") = 508c5e8c327c14e2..., that is 0x508c5e8c327c14e2 = 5804045842914235618.
TEST(Moriio, RankIsBlake2s) {
  constexpr uint64_t kHead = 0x508c5e8c327c14e2;
  for (int size : {2, 3, 7, 8, 1000}) EXPECT_EQ(moriio_rank("abc", size), static_cast<int>(kHead % static_cast<uint64_t>(size)));
  EXPECT_EQ(moriio_rank("abc", 1), 0);
  EXPECT_EQ(moriio_rank("abc", 0), 0);
}

TEST(Connectors, NamesAreUnique) {
  for (const ConnectorRow& row : connectors()) {
    EXPECT_EQ(find_connector(row.name), &row);
    if (!row.instead_of.empty()) EXPECT_NE(find_connector(row.instead_of), nullptr);
  }
  EXPECT_EQ(find_connector(""), nullptr);
}

TEST(Chunked, EndsWhereNothingComes) {
  std::string body = R"({"messages":[]})";
  auto root = parse_json(body);
  auto chunks = ChunkedAnswer::plan(body, *root, 8);
  ASSERT_TRUE(chunks.has_value());
  EXPECT_FALSE(chunks->take("{}").has_value());
  EXPECT_TRUE(chunks->take(R"({"choices":[{"message":{"content":null},"finish_reason":"length"}]})").has_value());
  EXPECT_FALSE(chunks->more());
  EXPECT_EQ(chunks->whole(), R"({"choices":[{"message":{"content":""},"finish_reason":"length"}],"usage":null})");
}

}  // namespace
}  // namespace baton::sidecar
