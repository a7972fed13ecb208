#include "sidecar/exchange.h"

#include <algorithm>

#include "base/log.h"
#include "base/prng.h"
#include "sidecar/limits.h"
#include "sidecar/p2p.h"
#include "wire/headers.h"
#include "wire/kv_trust.h"

namespace baton::sidecar {

Shared::Shared(SidecarConfig c) : config(std::move(c)), allowed(config), resolver(std::make_unique<Resolver>(config, metrics)) {
  for (int rank = 0; rank < config.data_parallel_size; ++rank) {
    engines.emplace_back().at = {config.model_server_host, config.model_server_port + rank};
  }
}

Result<WorkerTls> make_worker_tls(const SidecarConfig& config) {
  WorkerTls out;
  auto make = [&](const StageTls& stage, std::shared_ptr<net::TlsClient>& client) -> Result<> {
    if (!stage.use) return {};
    BATON_TRY(client, net::TlsClient::make({.verify = stage.verify, .ca_file = config.ca_file}));
    return {};
  };
  BATON_OK(make(config.prefiller_tls, out.prefiller));
  BATON_OK(make(config.decoder_tls, out.decoder));
  BATON_OK(make(config.encoder_tls, out.encoder));
  return out;
}

Exchange::Exchange(Shared& shared, Local& local, net::Request& request, net::ResponseWriter& writer)
    : shared_(shared), local_(local), request_(request), writer_(writer), id_(uuid4()) {
  log_id_ = request.headers.get(wire::kRequestId).value_or(id_).substr(0, kLoggedIdBytesMax);
}

net::Task<> Exchange::run() {
  api_ = intercepted(request_.method, request_.path);
  rank_ = local_.rank;
  if (api_) {
    trace_.begin(shared_.tracer, request_, log_id_, config().connector);
    co_await serve();
    trace_.end({.status = cancelled() ? 499 : status_,
                .prefiller = prefiller_,
                .note = note_,
                .prefill_ms = prefill_ms_,
                .first_byte_ms = first_byte_ms_,
                .total_ms = ms_since(request_.arrived_ns)});
  } else {
    (void)co_await decode({.body = request_.body, .rewrite = false});
  }
  log_done();
}

net::Task<> Exchange::serve() {
  if (!co_await choose_rank() || !co_await read_body()) co_return;
  if (!co_await choose_workers()) co_return;
  if (!encoders_.empty() && !co_await encode(encoders_)) co_return;
  if (prefillers_) co_return co_await disaggregate(std::move(*prefillers_));
  co_await decode_alone();
}

// x-data-parallel-host-port: the gateway's way to name one of our ranks without calling its port. Rank 0 answers for all.
net::Task<bool> Exchange::choose_rank() {
  auto wanted = request_.headers.get(wire::kDataParallelHostPort);
  if (!wanted || trimmed(*wanted).empty() || config().data_parallel_size == 1 || rank_ != 0) co_return true;
  auto at = parse_host_port(*wanted);
  int rank = at ? at->port - shared_.port : -1;
  bool ours = at && (config().pod_ip.empty() || at->host == config().pod_ip) && rank >= 0 && rank < config().data_parallel_size;
  if (ours) {
    rank_ = static_cast<size_t>(rank);
    co_return true;
  }
  status_ = 400;
  note(cat("no such rank: ", *wanted));
  (void)co_await writer_.send({.status = 400, .headers = {}, .body = {}});
  co_return false;
}

// Who else takes part, from the headers, and what the client wrote, parsed where somebody else does.
net::Task<bool> Exchange::read_body() {
  prefillers_ = prefillers(request_.headers);
  if (!config().ec_connector.empty() && api_ == Api::kChat) {
    encoders_ = hosts_in(request_.headers, wire::kEncoderHostsPorts).value_or(std::vector<HostPort>());
  }
  bool pulls = config().connector == "offloading" || config().p2p_pull;
  auto source = pulls ? request_.headers.get(wire::kKvCacheSourceHostPort) : std::nullopt;
  if (source && !trimmed(*source).empty()) {
    kv_source_ = parse_host_port(*source);
    if (!kv_source_) log_info("ignoring a malformed x-kv-cache-source-host-port", "id={}", log_id_);
  }
  bool trusted = config().kv_params_trust == "any";
  std::string wrong;
  if (prefillers_ || !encoders_.empty() || kv_source_) {
    auto read = replace_body(std::move(request_.body));
    auto without = read && !trusted ? without_worker_fields(request_.body, *root_) : std::nullopt;
    if (without) read = replace_body(std::move(*without));
    if (read) co_return true;
    wrong = read.error().message;
  } else if (!trusted) {
    auto body = without_worker_fields(std::move(request_.body));
    if (body) {
      request_.body = std::move(*body);
      co_return true;
    }
    wrong = body.error().message;
  } else {
    co_return true;
  }
  (void)co_await answer(400, error_body(400, wrong));
  co_return false;
}

// Drops whom the allow-list does not have. A request whose prefillers are all refused is refused, as llm-d does: whoever sent it
// tried to make us call somebody. A prefiller that is not known yet is decided when its turn comes.
net::Task<bool> Exchange::choose_workers() {
  auto may_not = [&](const HostPort& host, std::string_view what, bool wait = false) {
    auto may = shared_.allowed.look_up(host);
    if (may == AllowList::Answer::kYes || (wait && may == AllowList::Answer::kNotKnownYet)) return false;
    log_warn("a header names a worker that is not in the allow-list", "id={} {}={} peer={}", log_id_, what, host.text(),
             request_.peer);
    return true;
  };
  std::erase_if(encoders_, [&](const HostPort& host) { return may_not(host, "encoder"); });
  if (kv_source_ && may_not(*kv_source_, "kv_source")) kv_source_.reset();
  if (!prefillers_ || prefillers_->empty()) co_return true;
  std::erase_if(*prefillers_, [&](const HostPort& host) { return may_not(host, "prefiller", true); });
  if (!prefillers_->empty()) co_return true;
  status_ = 403;
  shared_.metrics.prefill_status(403);
  (void)co_await writer_.send(net::Response::text(403, "Forbidden: prefill target not allowed by SSRF protection\n"));
  co_return false;
}

Result<> Exchange::replace_body(std::string body) {
  request_.body = std::move(body);
  BATON_TRY(root_, parse_body(request_.body, encoders_.empty() ? 2 : 8));  // media lies in the messages
  return {};
}

net::Task<> Exchange::decode_alone() {
  bool self = kv_source_ && kv_source_->host == config().pod_ip && kv_source_->port == shared_.port + static_cast<int>(rank_);
  if (kv_source_ && !self) {
    std::string params = cat("{\"remote_kv_source\":", p2p_peer(config(), *kv_source_, uuid4()), '}');
    co_return (void) co_await decode({.body = keep(decode_body(body(), root(), params))});
  }
  (void)co_await decode({.body = request_.body, .rewrite = !encoders_.empty()});
}

net::Headers Exchange::headers_for(const HeaderList& more) const {
  // Host names this proxy; an Expect was answered here; what we may have to read must come uncompressed.
  static constexpr std::string_view kOurs[] = {"accept-encoding",
                                               "host",
                                               "expect",
                                               wire::kPrefillerHostPort,
                                               wire::kPrefillerUrl,
                                               wire::kEncoderHostsPorts,
                                               wire::kDataParallelHostPort,
                                               wire::kKvCacheSourceHostPort,
                                               wire::kKvParamsToken};
  auto ours = std::span(kOurs).subspan(api_ ? 0 : 1);
  net::Headers headers;
  for (const auto& [name, value] : request_.headers.fields()) {
    if (std::ranges::none_of(ours, [&](std::string_view other) { return net::same_header_name(name, other); })) {
      headers.add(name, value);
    }
  }
  if (api_ && !config().kv_params_token.empty()) headers.set(wire::kKvParamsToken, config().kv_params_token);
  if (api_) headers.add(wire::kRequestId, id_);  // added, not set: the client's own comes first
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
