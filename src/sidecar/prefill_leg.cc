// Exchange's prefill leg: one prefiller with its retries, then the next, then what the policy says.
#include <algorithm>

#include "base/log.h"
#include "base/prng.h"
#include "sidecar/connector.h"
#include "sidecar/limits.h"

namespace baton::sidecar {
namespace {

constexpr bool client_mistake(int status) { return status >= 400 && status < 500 && status != 408 && status != 429; }
constexpr bool transient(int status) { return status == 502 || status == 503 || status == 504; }

}  // namespace

net::Task<> Exchange::disaggregate(std::vector<HostPort> hosts) {
  if (config().prefiller_sampling && hosts.size() > 1) {
    std::ranges::rotate(hosts, hosts.begin() + static_cast<int64_t>(secure_random_u64() % hosts.size()));
  }
  if (co_await local_.connector->decode_first(*this)) co_return;
  Prefill done = co_await prefill_at_first_that_can(hosts);
  if (done.ok || answered()) co_return;
  log_warn("prefill failed", "id={} prefiller={} status={} why={}", log_id_, prefiller_, done.status, done.why);
  note(cat("prefill ", done.status));
  bool engine_can = find_connector(config().connector)->engine_reads_prompts;
  if (client_mistake(done.status) || config().on_prefill_failure == "error" || !engine_can) {
    co_return co_await show_failure(std::move(done));
  }
  shared_.metrics.fallback("local");
  count_hand_over("local");
  note("local prefill");
  // parsed before, so it parses; with --kv-params-trust=any there may be some
  if (auto body = without_worker_fields(request_.body, *root_)) request_.body = std::move(*body);
  (void)co_await decode({.body = request_.body});
}

// One prefiller, or with policy "next" one after the other.
net::Task<Prefill> Exchange::prefill_at_first_that_can(const std::vector<HostPort>& hosts) {
  Prefill last{.why = "no usable host in x-prefiller-host-port"};
  if (hosts.empty()) shared_.metrics.prefill_status(last.status);
  bool first = true;
  for (const HostPort& host : hosts) {
    if (!std::exchange(first, false)) {
      if (config().on_prefill_failure != "next" || client_mistake(last.status)) break;
      shared_.metrics.fallback("next");
    }
    prefiller_ = host.text();
    if (shared_.allowed.look_up(host) == AllowList::Answer::kNotKnownYet) {
      last = {.status = 503, .why = "the InferencePool was not read yet"};
      shared_.metrics.prefill_status(last.status);
      continue;
    }
    last = co_await local_.connector->attempt(*this, host);
    if (last.ok || answered()) break;
  }
  co_return last;
}

net::Task<Prefill> Exchange::prefill(const HostPort& host, PrefillAsk ask) {
  net::Cancel& ended = ask.cancel ? *ask.cancel : cancel();
  int64_t start = clock_.now_ns();
  Span span = trace_.leg("prefill", ask.headers);
  span.set("llm_d.pd_proxy.prefill_target", host.text());
  Prefill done;
  for (int retries = 0;; ++retries) {
    done = co_await prefill_once(host, ask);
    if (ended.cancelled()) co_return done;
    shared_.metrics.prefill_status(done.status);
    if (!transient(done.status) || retries >= config().prefill_max_retries) break;
    co_await net::sleep_for(net::Millis(config().prefill_retry_backoff_ms), &ended);
    if (ended.cancelled()) co_return done;
  }
  double ms = ms_since(start);
  span.set("llm_d.pd_proxy.prefill.status_code", done.status);
  span.set("llm_d.pd_proxy.prefill.duration_ms", SpanAttribute::Value(ms));
  if (!done.ok) span.fail(done.why);
  shared_.metrics.seconds("prefill").observe(ms * 1e-3);
  prefill_ms_ += ms;
  ttft_ = fmt::format("{}={:.2f}", done.ok ? "prefill_leg" : "prefill_failed", prefill_ms_);
  co_return done;
}

net::Task<Prefill> Exchange::prefill_once(const HostPort& host, const PrefillAsk& ask) {
  net::Call call;
  call.host = host.host, call.port = host.port, call.tls = shared_.tls.prefiller;
  call.method = request_.method, call.target = request_.target;
  call.headers = headers_for(ask.headers);
  call.body = ask.body;
  call.connect_timeout = kConnectTimeout;
  call.first_byte_timeout = call.idle_timeout = ask.timeout.value_or(net::Millis(config().prefill_timeout_ms));
  call.body_bytes_max = kPrefillResponseBytesMax;
  call.cancel = ask.cancel ? ask.cancel : &cancel();
  Prefill done;
  auto response = co_await client().fetch(call);
  if (!response) {
    done.status = response.error().code == Code::kDeadlineExceeded ? 504 : 502;
    done.why = response.error().message;
    co_return done;
  }
  done.status = response->status;
  if (response->status / 100 != 2) {
    done.why = cat("prefiller answered ", response->status);
    done.response = std::move(*response);
    co_return done;
  }
  done.ok = true;
  if (!ask.reads_reply) co_return done;
  auto reply = read_prefill_reply(*api_, response->body);
  if (reply) {
    done.reply = std::move(*reply);
    co_return done;
  }
  done.ok = false, done.status = 502, done.unreadable = true;
  done.why = reply.error().message;
  co_return done;
}

// The client sees what the prefiller said, or that it said nothing.
net::Task<> Exchange::show_failure(Prefill failed) {
  if (!failed.response) {
    int status = failed.unreadable ? 400 : failed.status;  // llm-d's choice, and this is its mode
    (void)co_await answer(status, error_body(status, cat("prefill failed: ", failed.why)));
    co_return;
  }
  status_ = failed.status;
  (void)co_await writer_.send(std::move(*failed.response));
}

}  // namespace baton::sidecar
