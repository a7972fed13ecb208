#include "wire/embeddings.h"

#include <bit>

#include "wire/fields.h"
#include "wire/limits.h"

namespace baton::wire {
namespace {

std::vector<int32_t> ids_of(Fields& f, const Json& list) {
  std::vector<int32_t> out;
  out.reserve(list.items.size());
  for (const Json& item : list.items) {
    const auto id = item.as_int();
    f.require(id && *id >= 0 && *id <= INT32_MAX, At{"input"}, "Input should be a valid token id");
    out.push_back(static_cast<int32_t>(id.value_or(0)));
  }
  f.require(!out.empty(), At{"input"}, "List should have at least 1 item after validation, not 0");
  return out;
}

void read_input(Fields& f, EmbeddingRequest& r) {
  const Json* input = f.get("input");
  f.require(input != nullptr, At{"input"}, "Field required");
  if (f.error()) return;
  f.require(input->is_string() || input->is_array(), At{"input"},
            "Input should be a valid string, list of strings or list of token ids");
  if (input->is_string()) {
    r.inputs.emplace_back(input->text);
  } else if (!input->items.empty() && input->items[0].is_number()) {
    r.inputs.emplace_back(ids_of(f, *input));
  } else {
    f.require(!input->items.empty(), At{"input"}, "List should have at least 1 item after validation, not 0");
    f.require(input->items.size() <= static_cast<size_t>(kEmbeddingInputsMax), At{"input"}, "List should have at most ",
              kEmbeddingInputsMax, " items, not ", input->items.size());
    for (const Json& item : input->items) {
      f.require(item.is_string() || item.is_array(), At{"input"}, "Input should be a valid string or list of token ids");
      if (f.error()) return;
      if (item.is_string())
        r.inputs.emplace_back(item.text);
      else
        r.inputs.emplace_back(ids_of(f, item));
    }
  }
}

std::string base64(std::span<const float> values) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  static_assert(std::endian::native == std::endian::little);
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  const size_t n = values.size_bytes();
  std::string out;
  out.reserve((n + 2) / 3 * 4);
  for (size_t i = 0; i < n; i += 3) {
    uint32_t three = 0;
    for (size_t k = 0; k < 3; ++k) three = three << 8 | (i + k < n ? bytes[i + k] : 0);
    for (size_t k = 0; k < 4; ++k) out += i + k > n ? '=' : kDigits[three >> (18 - 6 * k) & 63];
  }
  return out;
}

}  // namespace

Result<EmbeddingRequest> parse_embedding_request(const Json& body) {
  if (!body.is_object()) return refuse(At{}, "Input should be a valid dictionary, got ", body.kind_name());
  Fields f(body);
  EmbeddingRequest r;
  f.text("model", r.model, 1024);
  if (f.has("messages")) {
    BATON_TRY(r.chat, parse_chat_request(body));
    r.chat->add_generation_prompt = body.find("add_generation_prompt") && r.chat->add_generation_prompt;
    r.add_special_tokens = false;
  } else {
    read_input(f, r);
  }
  std::string encoding = "float";
  f.text("encoding_format", encoding, 64);
  f.require(encoding == "float" || encoding == "base64", At{"encoding_format"}, "Input should be 'float' or 'base64'");
  r.base64 = encoding == "base64";
  f.integer("dimensions", r.dimensions);
  f.require(r.dimensions.value_or(1) > 0, "Dimensions must be greater than 0");
  f.require(!f.has("normalize"), About{"normalize"}, "Parameter `normalize` was removed; use `use_activation` instead.");
  if (f.has("use_activation")) f.flag("use_activation", r.use_activation.emplace());
  f.flag("add_special_tokens", r.add_special_tokens);
  f.integer("truncate_prompt_tokens", r.fields.truncate_prompt_tokens);
  f.require(r.fields.truncate_prompt_tokens.value_or(-1) == -1 || *r.fields.truncate_prompt_tokens >= 1,
            "truncate_prompt_tokens must be >= 1, got ", r.fields.truncate_prompt_tokens.value_or(0));
  std::string side = "right", type = "float32", order = "native";
  f.text("truncation_side", side, 16);
  f.require(side == "left" || side == "right", At{"truncation_side"}, "Input should be 'left' or 'right'");
  r.fields.truncate_left = side == "left";
  f.text("embed_dtype", type, 16);
  f.text("endianness", order, 16);
  f.integer("priority", r.fields.priority);
  f.text("cache_salt", r.fields.cache_salt, kCacheSaltBytesMax);
  f.text("request_id", r.fields.request_id, kRequestIdBytesMax);
  if (f.error()) return std::unexpected(*f.error());
  if (r.base64 && (type != "float32" || order == "big"))
    return fail(Code::kUnimplemented, "base64 is of little-endian float32 alone: embed_dtype and endianness are not supported");
  return r;
}

std::string embedding_response(const Head& head, std::span<const std::vector<float>> embeddings, bool as_base64,
                               const Usage& usage, bool pooling) {
  JsonWriter w;
  w.object().field("id", head.id).field("object", "list").field("created", head.created).field("model", head.model);
  w.key("data").array();
  for (size_t i = 0; i < embeddings.size(); ++i) {
    w.object().field("index", i).field("object", pooling ? "pooling" : "embedding").key(pooling ? "data" : "embedding");
    if (as_base64) {
      w.value(base64(embeddings[i]));
    } else {
      w.array();
      for (const float value : embeddings[i]) w.value(static_cast<double>(value));
      w.end();
    }
    w.end();
  }
  w.end().key("usage").object().field("prompt_tokens", usage.prompt_tokens).field("total_tokens", usage.prompt_tokens);
  w.field("completion_tokens", 0).field_null("prompt_tokens_details").field_null("completion_tokens_details").end().end();
  return w.take();
}

}  // namespace baton::wire
