#include "gateway/request_view.h"

#include <cstring>

#include "base/json.h"
#include "gateway/limits.h"
#include "route/prefix_index.h"
#include "wire/limits.h"
#include "wire/splice.h"

namespace baton::gateway {
namespace {

constexpr std::string_view kKvTransferParams = "kv_transfer_params";
constexpr int kBytesPerToken = 4;

struct Feeder {
  std::string_view source;
  route::ChainHasher hasher;
  int64_t bytes = 0, ids = 0;

  void text(std::string_view s) {
    hasher.feed(s);
    bytes += static_cast<int64_t>(s.size());
  }
  void id(int64_t id) {
    char raw[kBytesPerToken];
    const auto small = static_cast<uint32_t>(id);
    std::memcpy(raw, &small, sizeof raw);
    hasher.feed({raw, sizeof raw});
    ++ids;
  }
  // A prompt: text, token ids, or a list of either.
  void prompt(const Json& value) {
    if (const auto s = value.as_string()) return text(*s);
    for (const Json& item : value.items) {
      if (const auto n = item.as_int())
        id(*n);
      else
        prompt(item);
    }
  }
  void raw(const Json* value) {
    if (value != nullptr && !value->is_null()) text(value->raw(source));
  }
  // The parts of a message that chat templates print, in their order; markup between them is the same for everyone.
  void message(const Json& value) {
    if (const Json* role = value.find("role")) text(role->as_string().value_or(""));
    if (const Json* content = value.find("content")) {
      if (const auto s = content->as_string()) text(*s);
      for (const Json& part : content->items) {
        const Json* s = part.find("text");
        if (s != nullptr && s->is_string())
          text(s->text);
        else
          raw(&part);
      }
    }
    raw(value.find("tool_calls"));
  }
};

}  // namespace

Result<RequestView> read_request(std::string_view body, Api api, uint64_t hash_seed, int block_tokens) {
  BATON_TRY(const Json root, parse_json(body, wire::kRequestJson));
  if (!root.is_object()) return fail(Code::kInvalidArgument, "request body must be a JSON object, not ", root.kind_name());
  RequestView view;
  if (const Json* model = root.find("model"); model != nullptr && !model->is_null()) {
    if (!model->is_string()) return fail(Code::kInvalidArgument, "model must be a string, not ", model->kind_name());
    if (model->text.size() > kModelNameBytesMax) return fail(Code::kInvalidArgument, "model name is too long");
    view.model = model->text;
  }
  if (const Json* stream = root.find("stream")) view.stream = stream->as_bool().value_or(false);
  // Prompts of different salts share no cache, so they share no chain.
  std::string salt = view.model;
  if (const Json* cache_salt = root.find("cache_salt"); cache_salt != nullptr && cache_salt->is_string()) {
    salt += '\0';
    salt += cache_salt->text;
  }
  Feeder feeder{body, route::ChainHasher(hash_seed, salt, static_cast<size_t>(block_tokens) * kBytesPerToken)};
  feeder.raw(root.find("tools"));
  const Json* prompt = root.find(api == Api::kChat ? "messages" : "prompt");
  if (prompt != nullptr && api == Api::kChat) {
    for (const Json& message : prompt->items) feeder.message(message);
  } else if (prompt != nullptr) {
    feeder.prompt(*prompt);
  }
  view.prompt_tokens = std::max<int64_t>(1, feeder.bytes / kBytesPerToken + feeder.ids);
  view.chain = feeder.hasher.chain();
  if (root.find(kKvTransferParams) != nullptr) {
    view.cleaned = wire::Splice(body, root).erase({kKvTransferParams}).text();
    view.cut = true;
  }
  return view;
}

}  // namespace baton::gateway
