#include "sidecar/exchange.h"

#include <algorithm>

#include "base/log.h"
#include "base/prng.h"
#include "sidecar/limits.h"
#include "wire/headers.h"

namespace baton::sidecar {

Exchange::Exchange(Shared& shared, Local& local, net::Request& request, net::ResponseWriter& writer)
    : shared_(shared), local_(local), request_(request), writer_(writer), id_(uuid4()) {
  log_id_ = request.headers.get(wire::kRequestId).value_or(id_).substr(0, kLoggedIdBytesMax);
}

net::Task<> Exchange::run() {
  api_ = intercepted(request_.method, request_.path);
  auto hosts = api_ ? prefillers(request_.headers) : std::nullopt;
  if (hosts) {
    auto root = parse_body(request_.body);
    if (!root) {
      (void)co_await answer(400, error_body(400, root.error().message));
      co_return log_done();
    }
    root_ = std::move(*root);
    if (config().prefiller_sampling && hosts->size() > 1) {
      std::ranges::rotate(*hosts, hosts->begin() + static_cast<int64_t>(secure_random_u64() % hosts->size()));
    }
    co_await disaggregate(std::move(*hosts));
  } else {
    if (api_ && config().kv_params_trust == "none") {
      auto body = without_kv_params(std::move(request_.body));
      if (!body) {
        (void)co_await answer(400, error_body(400, body.error().message));
        co_return log_done();
      }
      request_.body = std::move(*body);
    }
    (void)co_await decode({.body = request_.body, .rewrite = false});
  }
  log_done();
}

net::Headers Exchange::headers_for(const HeaderList& more) const {
  net::Headers headers = request_.headers;
  // Host names this proxy; an Expect was answered here; what we may have to read must come uncompressed.
  for (std::string_view name :
       {std::string_view("host"), std::string_view("expect"), wire::kPrefillerHostPort, wire::kPrefillerUrl,
        wire::kEncoderHostsPorts, wire::kDataParallelHostPort, wire::kKvCacheSourceHostPort}) {
    headers.remove(name);
  }
  if (api_) {
    headers.remove("accept-encoding");
    headers.add(wire::kRequestId, id_);  // added, not set: the client's own comes first
  }
  for (const auto& [name, value] : more) headers.set(name, value);
  return headers;
}

net::Task<Result<>> Exchange::answer(int status, std::string body) {
  status_ = status;
  net::Response response = net::Response::json(status, std::move(body));
  if (status == 503) response.headers.set("retry-after", "1");
  if (!ttft_.empty()) response.headers.set(wire::kTtft, ttft_);
  co_return co_await writer_.send(std::move(response));
}

void Exchange::log_done() const {
  if (!api_) return;  // probes, scrapes and model lists are no news
  log_info("request", "id={} path={} status={} prefiller={} prefill_ms={:.2f} first_byte_ms={:.2f} total_ms={:.2f}{}{}", log_id_,
           request_.path, cancelled() ? 499 : status_, prefiller_, prefill_ms_, first_byte_ms_, ms_since(request_.arrived_ns),
           note_.empty() ? "" : " note=", note_);
}

}  // namespace baton::sidecar
