#include "sidecar/encoder.h"

#include <deque>
#include <set>

#include "base/log.h"
#include "net/all.h"
#include "sidecar/exchange.h"
#include "sidecar/limits.h"
#include "wire/headers.h"

namespace baton::sidecar {
namespace {

constexpr std::string_view kMediaTypes[] = {"image_url", "audio_url", "video_url", "input_audio"};

}  // namespace

std::vector<std::string> encoder_connectors() { return {"", "ec-example", "ec-nixl"}; }

std::vector<std::string_view> media_items(std::string_view body, const Json& root) {
  std::vector<std::string_view> items;
  std::set<std::string_view> urls;
  const Json* messages = root.find("messages");
  if (!messages || !messages->is_array()) return items;
  for (const Json& message : messages->items) {
    const Json* content = message.find("content");
    if (!content || !content->is_array()) continue;
    for (const Json& part : content->items) {
      const Json* type = part.find("type");
      if (!type || !type->is_string() || std::ranges::find(kMediaTypes, type->text) == std::end(kMediaTypes)) continue;
      const Json* url = part.find_path({type->text, "url"});
      if (url && url->is_string() && !urls.insert(url->raw(body)).second) continue;
      items.push_back(part.raw(body));
    }
  }
  return items;
}

std::string encoder_body(std::string_view body, const Json& root, std::string_view item) {
  wire::Splice edit(body, root);
  edit.set({"messages"}, cat(R"([{"role":"user","content":[)", item, "]}]"));
  ask_for_no_stream(edit);
  ask_for_one_token(edit, Api::kChat, root, OneToken::kAsClient);
  return edit.text();
}

// One request an item, dealt out to the encoders in turn; the first that fails ends the others.
net::Task<bool> Exchange::encode(const std::vector<HostPort>& encoders) {
  const std::vector<std::string_view> items = media_items(body(), root());
  if (items.size() > kEncoderItemsMax) {
    (void)co_await answer(
        400, error_body(400, cat("the request has ", items.size(), " images and the like, ", kEncoderItemsMax, " are allowed")));
    co_return false;
  }
  net::Cancel ends;
  auto client_left = cancel().on_cancel([&] { ends.cancel(); });
  std::vector<std::string> answers(items.size());
  std::string failed;
  auto encode_one = [&](size_t i) -> net::Task<> {
    const HostPort& host = encoders[i % encoders.size()];
    std::string text = encoder_body(body(), root(), items[i]);
    net::Call call;
    call.host = host.host, call.port = host.port, call.tls = shared_.tls.encoder;
    call.method = "POST", call.target = "/v1/chat/completions";
    call.headers = headers_for({{std::string(wire::kRequestId), cat(id_, "-enc-", i)}});
    call.body = text;
    call.connect_timeout = kConnectTimeout;
    call.first_byte_timeout = call.idle_timeout = net::Millis(config().prefill_timeout_ms);
    call.body_bytes_max = kEncoderAnswerBytesMax;
    call.cancel = &ends;
    auto response = co_await client().fetch(call);
    if (response && response->status / 100 == 2) {
      answers[i] = std::move(response->body);
      co_return;
    }
    if (failed.empty()) {
      failed = cat("encoder ", host.text(), ": ", response ? cat("status ", response->status) : response.error().message);
    }
    ends.cancel();
  };
  int64_t start = clock_.now_ns();
  std::vector<net::Task<>> tasks;
  for (size_t i = 0; i < items.size(); ++i) tasks.push_back(encode_one(i));
  co_await net::all(std::move(tasks));
  if (!items.empty()) shared_.metrics.seconds("encode").observe(ms_since(start) * 1e-3);
  if (cancelled()) co_return false;
  if (failed.empty()) {
    auto taken = take_encoded(answers);
    if (taken) co_return true;
    failed = cat("what the encoders answered does not fit: ", taken.error().message);
  }
  log_warn("encoding failed", "id={} why={}", log_id_, failed);
  note(failed);
  (void)co_await answer(502, error_body(502, failed));
  co_return false;
}

// ec_transfer_params of all answers into the request; a later one wins, as in llm-d's.
Result<> Exchange::take_encoded(const std::vector<std::string>& answers) {
  wire::Splice edit(body(), root());
  std::deque<Json> replies;  // the edits refer to their keys
  size_t gave = 0;
  for (const std::string& text : answers) {
    auto reply = parse_json(text);
    if (config().ec_connector != "ec-nixl" || !reply) continue;
    const Json* params = replies.emplace_back(std::move(*reply)).find(kEcParams);
    if (!params || !params->is_object()) continue;
    for (size_t i = 0; i < params->items.size(); ++i) {
      edit.set({kEcParams, params->keys[i]}, std::string(params->items[i].raw(text)));
    }
    gave += !params->keys.empty();
  }
  if (config().ec_connector == "ec-nixl" && gave < answers.size()) {
    log_warn("encoders gave no ec_transfer_params", "id={} items={} without={}", log_id_, answers.size(), answers.size() - gave);
  }
  // The prefill must run even where decode has the prompt: it is what reads the encoder's output.
  edit.set({kCacheHitThreshold}, "0");
  return replace_body(edit.text());
}

}  // namespace baton::sidecar
