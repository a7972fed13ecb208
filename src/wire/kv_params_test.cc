#include "wire/kv_params.h"

#include <gtest/gtest.h>

namespace baton::wire {
namespace {

Result<KvParams> parse(std::string_view text) {
  auto json = parse_json(text);
  EXPECT_TRUE(json.has_value()) << text;
  return parse_kv_params(*json);
}

constexpr std::string_view kHex32 = "0123456789abcdef0123456789abcdef";

std::string x_kv(std::string_view edit_key = "", std::string_view value = "") {
  std::vector<std::pair<std::string, std::string>> fields = {
      {"v", "1"},
      {"grant", cat("\"", kHex32, "\"")},
      {"incarnation", "18446744073709551615"},
      {"lease_ms", "30000"},
      {"first_token", "0"},
      {"n_tokens", "103"},
      {"prompt_digest", cat("\"", kHex32, kHex32, "\"")},
      {"layout", "\"bf16-l30-h3-d64-b16-vnni\""},
  };
  std::string out = "{\"do_remote_prefill\":true,\"x_kv\":{";
  for (size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].first == edit_key && value.empty()) continue;
    if (out.back() != '{') out += ',';
    out += cat("\"", fields[i].first, "\":", fields[i].first == edit_key ? value : std::string_view(fields[i].second));
  }
  return out + "}}";
}

TEST(KvParams, ReadsVllmsObjectAsSeenOnTheWire) {
  auto p = parse(
      R"({"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1]],"remote_engine_id":"7f","remote_request_id":"chatcmpl-x-01234567",
      "remote_host":"127.0.0.1","remote_port":5600,"tp_size":1,"dcp_size":1,"pp_size":1,"remote_num_tokens":103,"remote_blocks_expiry_time":null,
      "transfer_mode":"pull","remote_prefill_cached_tokens":0})");
  ASSERT_TRUE(p.has_value()) << p.error().message;
  EXPECT_TRUE(p->do_remote_prefill);
  EXPECT_FALSE(p->do_remote_decode);
  EXPECT_EQ(p->remote_block_ids, (std::vector<int64_t>{1}));
  EXPECT_EQ(p->remote_host, "127.0.0.1");
  EXPECT_EQ(p->remote_port, 5600);
  EXPECT_EQ(p->remote_num_tokens, 103);
  EXPECT_FALSE(p->x_kv);
}

TEST(KvParams, ReadsTheTpuConnectorsObject) {
  auto p = parse(R"({"remote_block_ids":[5],"remote_host":"10.52.5.4","remote_port":"9100","uuid":1223960640850184400})");
  ASSERT_TRUE(p.has_value());
  EXPECT_EQ(p->remote_port, 9100);
  EXPECT_EQ(p->remote_block_ids, (std::vector<int64_t>{5}));
}

TEST(KvParams, ReadsWhatTheSidecarSends) {
  auto p = parse(
      R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null})");
  ASSERT_TRUE(p.has_value());
  EXPECT_TRUE(p->do_remote_decode);
  EXPECT_TRUE(p->remote_block_ids.empty());
  EXPECT_EQ(p->remote_port, 0);
}

TEST(KvParams, KeepsAll64BitsOfTheIncarnation) {
  auto p = parse(x_kv());
  ASSERT_TRUE(p.has_value()) << p.error().message;
  EXPECT_EQ(p->x_kv->incarnation, UINT64_MAX);
  EXPECT_FALSE(p->x_kv->first_token_id);
}

TEST(KvParams, BothLegsOfAPushNameTheToken) {
  auto prefill = parse(cat(R"({"do_remote_decode":true,)", push_field(kHex32), "}"));
  ASSERT_TRUE(prefill.has_value()) << prefill.error().message;
  EXPECT_TRUE(prefill->do_remote_decode);
  EXPECT_EQ(prefill->push_token, kHex32);
  EXPECT_FALSE(prefill->x_kv);
  auto decode = parse(push_decode_params(kHex32, "e-1", "10.0.0.7", 5600));
  ASSERT_TRUE(decode.has_value()) << decode.error().message;
  EXPECT_TRUE(decode->do_remote_prefill);
  EXPECT_EQ(decode->push_token, kHex32);
  EXPECT_EQ(decode->remote_engine_id, "e-1");
  EXPECT_EQ(decode->remote_host, "10.0.0.7");
  EXPECT_EQ(decode->remote_port, 5600);
  for (const char* bad : {R"({"x_kv":{"v":1,"push":"short"}})", R"({"x_kv":{"v":2,"push":"0123456789abcdef0123456789abcdef"}})",
                          R"({"x_kv":{"v":1,"push":7}})", R"({"x_kv":{"push":"0123456789abcdef0123456789abcdef"}})"}) {
    EXPECT_FALSE(parse(bad).has_value()) << bad;
  }
}

TEST(KvParams, SaysThatItCanPush) {
  auto p = parse(x_kv("first_token", "0"));
  ASSERT_TRUE(p && !p->x_kv->can_push);
  p->x_kv->can_push = true;
  auto again = parse(format_kv_params(*p));
  ASSERT_TRUE(again && again->x_kv);
  EXPECT_TRUE(again->x_kv->can_push);
}

TEST(KvParams, RefusesAnOfferThatCannotBeUsed) {
  const std::pair<const char*, const char*> bad[] = {
      {"v", "2"},           {"v", ""},           {"grant", "\"xyz\""},       {"grant", ""},         {"incarnation", "-1"},
      {"n_tokens", "0"},    {"n_tokens", "1.5"}, {"n_tokens", "4294967296"}, {"first_token", "-1"}, {"prompt_digest", "\"00\""},
      {"lease_ms", "null"},
  };
  for (auto [key, value] : bad) EXPECT_FALSE(parse(x_kv(key, value)).has_value()) << key << "=" << value;
}

TEST(KvParams, RefusesBlockIdsThatAreNone) {
  for (const char* ids : {"[\"a\"]", "[[[1]]]", "[1.5]", "[{}]"}) {
    EXPECT_FALSE(parse(cat("{\"remote_block_ids\":", ids, "}")).has_value()) << ids;
  }
  EXPECT_FALSE(parse("{\"remote_port\":70000}").has_value());
  EXPECT_FALSE(parse("[]").has_value());
}

TEST(KvParams, WritesVllmsKeysInOrderThenOurs) {
  KvParams p{.do_remote_prefill = true,
             .remote_block_ids = {1, 2},
             .remote_engine_id = "e",
             .remote_request_id = "r",
             .remote_host = "h",
             .remote_port = 5600,
             .remote_num_tokens = 20,
             .x_kv = std::nullopt};
  EXPECT_EQ(
      format_kv_params(p),
      R"({"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1,2]],"remote_engine_id":"e","remote_request_id":"r",)"
      R"("remote_host":"h","remote_port":5600,"tp_size":1,"dcp_size":1,"pp_size":1,"remote_num_tokens":20,"remote_blocks_expiry_time":null,)"
      R"("transfer_mode":"pull","remote_prefill_cached_tokens":0})");
}

TEST(KvParams, ComesBackAsItWentOut) {
  KvParams p;
  p.do_remote_prefill = true;
  p.remote_block_ids = {0, 7, INT64_MAX};
  p.remote_host = "::1";
  p.remote_port = 1;
  p.remote_num_tokens = 3;
  p.x_kv = XKv{.grant = std::string(kHex32),
               .incarnation = (1ULL << 63) + 1,
               .lease_ms = 5,
               .first_token = 0,
               .n_tokens = 3,
               .prompt_digest = cat(kHex32, kHex32),
               .layout = "l",
               .first_token_id = 42,
               .queue_us = 1,
               .prefill_us = 2};
  auto back = parse(format_kv_params(p));
  ASSERT_TRUE(back.has_value()) << back.error().message;
  EXPECT_EQ(back->remote_block_ids, p.remote_block_ids);
  EXPECT_EQ(back->x_kv->incarnation, p.x_kv->incarnation);
  EXPECT_EQ(back->x_kv->first_token_id, 42);
  EXPECT_EQ(format_kv_params(*back), format_kv_params(p));
}

}  // namespace
}  // namespace baton::wire
