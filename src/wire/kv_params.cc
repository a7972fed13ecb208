#include "wire/kv_params.h"

#include <charconv>

#include "wire/limits.h"

namespace baton::wire {
namespace {

// Engines differ: an int, or the same int as a string (the TPU connector's port).
std::optional<int64_t> lenient_int(const Json* value) {
  if (!value) return std::nullopt;
  if (!value->is_string()) return value->as_int();
  int64_t n = 0;
  auto [end, problem] = std::from_chars(value->text.data(), value->text.data() + value->text.size(), n);
  if (problem != std::errc{} || end != value->text.data() + value->text.size()) return std::nullopt;
  return n;
}

std::string lenient_text(const Json* value) { return value && value->is_string() ? value->text : std::string(); }

// Flat [1,2] or one list per KV cache group [[1,2]]; we have one group, so groups are simply joined.
Result<> append_blocks(const Json& list, std::vector<int64_t>& out, int depth) {
  for (const Json& item : list.items) {
    if (item.is_array() && depth == 0) {
      BATON_OK(append_blocks(item, out, 1));
      continue;
    }
    auto id = item.as_int();
    if (!id) return fail(Code::kInvalidArgument, "remote_block_ids holds a ", item.kind_name());
    if (out.size() >= kRemoteBlocksMax)
      return fail(Code::kInvalidArgument, "remote_block_ids has more than ", kRemoteBlocksMax, " blocks");
    out.push_back(*id);
  }
  return {};
}

bool is_hex(std::string_view s, size_t digits) {
  return s.size() == digits && s.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Result<XKv> parse_x_kv(const Json& object) {
  XKv x;
  const auto number = [&](std::string_view key, int64_t low) -> Result<int32_t> {
    const Json* value = object.find(key);
    auto n = value ? value->as_int() : std::nullopt;
    if (!n || *n < low || *n > INT32_MAX) return fail(Code::kInvalidArgument, "x_kv.", key, " is missing or out of range");
    return static_cast<int32_t>(*n);
  };
  BATON_TRY(x.version, number("v", 0));
  if (x.version != 1) return fail(Code::kUnimplemented, "x_kv version ", x.version, " is not known here");
  x.grant = lenient_text(object.find("grant"));
  if (!is_hex(x.grant, 32)) return fail(Code::kInvalidArgument, "x_kv.grant is not 32 hex digits");
  const Json* incarnation = object.find("incarnation");
  auto wide = incarnation ? incarnation->as_uint() : std::nullopt;
  if (!wide) return fail(Code::kInvalidArgument, "x_kv.incarnation is missing or out of range");
  x.incarnation = *wide;
  BATON_TRY(x.lease_ms, number("lease_ms", 0));
  BATON_TRY(x.first_token, number("first_token", 0));
  BATON_TRY(x.n_tokens, number("n_tokens", 1));
  x.prompt_digest = lenient_text(object.find("prompt_digest"));
  if (!is_hex(x.prompt_digest, 64)) return fail(Code::kInvalidArgument, "x_kv.prompt_digest is not 64 hex digits");
  x.layout = lenient_text(object.find("layout"));
  const Json* first = object.find("first_token_id");
  if (first && !first->is_null()) {
    BATON_TRY(x.first_token_id, number("first_token_id", 0));
  }
  const auto optional_us = [&](std::string_view key) {
    const Json* value = object.find(key);
    return std::max<int64_t>(0, value ? value->as_int().value_or(0) : 0);
  };
  const Json* can_push = object.find("can_push");
  x.can_push = can_push && can_push->as_bool().value_or(false);
  x.queue_us = optional_us("queue_us");
  x.prefill_us = optional_us("prefill_us");
  return x;
}

}  // namespace

Result<KvParams> parse_kv_params(const Json& object) {
  if (!object.is_object()) return fail(Code::kInvalidArgument, "kv_transfer_params is a ", object.kind_name(), ", not an object");
  KvParams p;
  const auto flag = [&](std::string_view key) {
    const Json* value = object.find(key);
    return value && value->as_bool().value_or(false);
  };
  p.do_remote_prefill = flag("do_remote_prefill");
  p.do_remote_decode = flag("do_remote_decode");
  p.remote_engine_id = lenient_text(object.find("remote_engine_id"));
  p.remote_request_id = lenient_text(object.find("remote_request_id"));
  p.remote_host = lenient_text(object.find("remote_host"));
  p.remote_port = static_cast<int>(lenient_int(object.find("remote_port")).value_or(0));
  if (p.remote_port < 0 || p.remote_port > 65535)
    return fail(Code::kInvalidArgument, "remote_port ", p.remote_port, " is no port");
  const int64_t tokens = lenient_int(object.find("remote_num_tokens")).value_or(0);
  p.remote_num_tokens = tokens > 0 && tokens <= INT32_MAX ? static_cast<int32_t>(tokens) : 0;
  if (const Json* blocks = object.find("remote_block_ids"); blocks && blocks->is_array()) {
    BATON_OK(append_blocks(*blocks, p.remote_block_ids, 0));
  }
  const Json* x = object.find("x_kv");
  if (!x || !x->is_object()) return p;
  const Json* push = x->find("push");
  if (!push) {
    BATON_TRY(p.x_kv, parse_x_kv(*x));
    return p;
  }
  const Json* version = x->find("v");
  if (!version || version->as_int() != 1) return fail(Code::kUnimplemented, "x_kv of a version that is not known here");
  p.push_token = lenient_text(push);
  if (!is_hex(p.push_token, 32)) return fail(Code::kInvalidArgument, "x_kv.push is not 32 hex digits");
  return p;
}

std::string format_kv_params(const KvParams& p) {
  JsonWriter w;
  w.object().field("do_remote_prefill", p.do_remote_prefill).field("do_remote_decode", p.do_remote_decode);
  w.key("remote_block_ids").array().array();
  for (int64_t id : p.remote_block_ids) w.value(id);
  w.end().end();
  w.field("remote_engine_id", p.remote_engine_id).field("remote_request_id", p.remote_request_id);
  w.field("remote_host", p.remote_host).field("remote_port", p.remote_port);
  w.field("tp_size", 1).field("dcp_size", 1).field("pp_size", 1).field("remote_num_tokens", p.remote_num_tokens);
  w.field_null("remote_blocks_expiry_time").field("transfer_mode", "pull").field("remote_prefill_cached_tokens", 0);
  if (!p.push_token.empty()) {
    w.key("x_kv").object().field("v", 1).field("push", p.push_token).end();
  } else if (p.x_kv) {
    const XKv& x = *p.x_kv;
    w.key("x_kv").object().field("v", x.version).field("grant", x.grant).field("incarnation", x.incarnation);
    w.field("lease_ms", x.lease_ms).field("first_token", x.first_token).field("n_tokens", x.n_tokens);
    w.field("prompt_digest", x.prompt_digest).field("layout", x.layout);
    if (x.first_token_id) w.field("first_token_id", *x.first_token_id);
    if (x.can_push) w.field("can_push", true);
    w.field("queue_us", x.queue_us).field("prefill_us", x.prefill_us).end();
  }
  w.end();
  return w.take();
}

std::string push_field(std::string_view token) { return cat(R"("x_kv":{"v":1,"push":")", token, "\"}"); }

std::string push_decode_params(std::string_view token, std::string_view engine_id, std::string_view host, int port) {
  JsonWriter w;
  w.object().field("do_remote_prefill", true).field("do_remote_decode", false).field("remote_engine_id", engine_id);
  w.field_null("remote_block_ids").field("remote_host", host).field("remote_port", port);
  w.key("x_kv").object().field("v", 1).field("push", token).end();
  return w.end().take();
}

}  // namespace baton::wire
