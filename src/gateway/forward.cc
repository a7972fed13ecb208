// A request on its way: attempts until a worker answers, the answer, and what happens when it breaks off.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

#include "base/json.h"
#include "base/log.h"
#include "gateway/exchange.h"
#include "gateway/limits.h"
#include "wire/errors.h"
#include "wire/headers.h"

namespace baton::gateway {
namespace {

constexpr std::string_view kClientLeft = "client left";

// Names that a Connection field adds to the hop-by-hop ones.
std::vector<std::string> connection_names(const net::Headers& headers) {
  std::vector<std::string> out;
  for (std::string_view list : headers.get_all("connection")) {
    while (!list.empty()) {
      const size_t comma = std::min(list.find(','), list.size());
      std::string_view name = list.substr(0, comma);
      list.remove_prefix(std::min(comma + 1, list.size()));
      while (name.starts_with(' ')) name.remove_prefix(1);
      while (name.ends_with(' ')) name.remove_suffix(1);
      if (!name.empty()) out.emplace_back(name);
    }
  }
  return out;
}

// What concerns the whole way and not one connection (RFC 9110 7.6.1).
net::Headers end_to_end(const net::Headers& headers) {
  net::Headers out;
  for (const auto& [name, value] : headers.fields()) {
    if (!net::is_hop_by_hop(name)) out.add(name, value);
  }
  for (const std::string& name : connection_names(headers)) out.remove(name);
  return out;
}

double ms_between(int64_t from_ns, int64_t to_ns) { return static_cast<double>(to_ns - from_ns) * 1e-6; }

// The last "completion_tokens" in these bytes, for the access log; `otherwise` if there is none.
int64_t tokens_said(std::string_view bytes, int64_t otherwise) {
  constexpr std::string_view kKey = "\"completion_tokens\":";
  const void* at = ::memmem(bytes.data(), bytes.size(), kKey.data(), kKey.size());
  if (at == nullptr) return otherwise;
  const char* from = static_cast<const char*>(at) + kKey.size();
  int64_t n = otherwise;
  std::from_chars(from, bytes.data() + bytes.size(), n);
  return n;
}

}  // namespace

void Worker::take(Exchange& x, const picker::Choice& choice) {
  x.choice = &choice;
  x.decode = choice.targets.front().address;
  x.prefill = choice.prefill;
  x.why = choice.why;
  counts_.decided(x.pool->spec.name, choice);
}

net::Task<> Worker::forward(Exchange& x) {
  picker::Flight& flight = *x.flight;
  const auto early = std::static_pointer_cast<EarlyBody>(x.request.listener);  // listen_to() made it
  if (auto bad = flight.feed_whole(std::exchange(x.request.body, {}), early ? early->reader.get() : nullptr)) {
    counts_.rejected("bad_request");
    co_return co_await refuse(x, *bad);
  }
  auto picked = co_await decide(x);
  if (!picked) {
    x.status = 499, x.note = kClientLeft;
    if (!x.writer.cancel().cancelled()) co_await send_error(x, 503, "shutting down");
    co_return;
  }
  x.decided_ms = ms_between(x.start_ns, shared_.clock.now_ns());
  const std::string_view model = flight.model();
  x.model = model.empty() ? "-" : x.pool->picker->knows_model(model) ? std::string(model) : "unknown";
  if (!*picked) {
    counts_.rejected(picked->error().status == 400 ? "bad_request" : "refused");
    co_return co_await refuse(x, picked->error());
  }
  if (x.key) x.key->charge(flight.prompt_tokens(), shared_.clock.now_ms());
  for (const picker::Choice* choice = **picked; x.attempts < shared_.config.attempts_max;) {
    take(x, *choice);
    ++x.attempts;
    if (co_await attempt_once(x) == Tried::kDone) co_return;
    const bool blame_prefill = give_up_on(x, x.note);
    auto again = flight.repick(blame_prefill);
    if (!again) break;
    choice = *again;
  }
  if (x.last_failure) co_return co_await send(x, *std::move(x.last_failure));
  co_await send_error(x, 503, "no worker could answer; retry later");
}

net::Call Worker::make_call(const Exchange& x, std::string_view body) {
  const picker::Target& target = x.choice->targets.front();
  net::Call call;
  call.host = target.host;
  call.port = target.port;
  call.method = x.request.method;
  call.target = x.request.target;
  call.headers = end_to_end(x.request.headers);
  for (std::string_view name : {"host", "expect", "content-length"}) call.headers.remove(name);  // about the way to us
  for (std::string_view name : wire::kRoutingHeaders) call.headers.remove(name);
  for (const std::string& name : x.choice->remove_headers) call.headers.remove(name);
  for (const auto& [name, value] : x.choice->set_headers) {
    if (name != wire::kGatewayDestination && !net::same_header_name(name, "content-length")) call.headers.set(name, value);
  }
  call.headers.set(wire::kRequestId, x.id);
  call.body = body;
  call.connect_timeout = net::Millis(shared_.config.connect_timeout_ms);
  call.first_byte_timeout = net::Millis(shared_.config.first_byte_timeout_ms);
  call.idle_timeout = net::Millis(shared_.config.idle_timeout_ms);
  call.body_bytes_max = SIZE_MAX;
  call.cancel = const_cast<net::Cancel*>(&x.stop);
  return call;
}

// True if the prefill worker is to blame. 503 is the decode side's "not ready", 502 may be the prefill side's failure shining
// through (--on-prefill-failure error); a second one is taken as the decode side's own.
bool Worker::give_up_on(Exchange& x, std::string_view reason) {
  counts_.retried(reason);
  log_warn("worker failed before the first byte", "x-request-id={} endpoint={} reason={} attempt={}", x.id, x.decode, reason, x.attempts);
  return reason == "502" && !x.prefill.empty() && !std::exchange(x.prefill_blamed, true);
}

// The request with what makes its stream exact to continue (resume.h); "" = as it is.
std::string Worker::asking_ids(const Exchange& x) const {
  if (!x.generates || !x.flight->stream() || !shared_.config.resume_streams || x.pool->refuses_token_ids) return "";
  return Resume::asking_ids(x.chat ? Resume::Api::kChat : Resume::Api::kCompletions, x.flight->body());
}

net::Task<Worker::Tried> Worker::attempt_once(Exchange& x) {
  std::string asking = asking_ids(x);
  auto opened = co_await client_.open(make_call(x, asking.empty() ? x.flight->body() : asking));
  if (!asking.empty() && opened && ((*opened)->status() == 400 || (*opened)->status() == 422)) {
    asking.clear();  // the client's fault, or a server's that takes no field it does not know
    opened = co_await client_.open(make_call(x, x.flight->body()));
    if (opened && (*opened)->status() == 200 && !x.pool->refuses_token_ids.exchange(true))
      log_warn("a worker refuses return_token_ids; it is not asked for any more", "pool={} endpoint={}", x.pool->spec.name,
               x.decode);
  }
  x.asked_ids = !std::exchange(asking, {}).empty();
  if (x.writer.cancel().cancelled()) {
    x.status = 499, x.note = kClientLeft;
    co_return Tried::kDone;
  }
  if (x.evicted) {
    co_await refuse(x, *x.evicted);
    co_return Tried::kDone;
  }
  if (!opened) {
    // Refused or closed: it is gone until a probe says otherwise.
    if (opened.error().code == Code::kUnavailable) x.pool->picker->report_down(x.decode);
    x.note = code_name(opened.error().code);
    co_return Tried::kNext;
  }
  net::ResponseStream& upstream = **opened;
  if (upstream.status() != 502 && upstream.status() != 503) {
    co_await relay(x, *std::move(opened));
    co_return Tried::kDone;
  }
  net::Response failure;
  failure.status = upstream.status();
  failure.headers = end_to_end(upstream.headers());
  failure.headers.remove("content-length");
  for (;;) {
    auto bytes = co_await upstream.read();
    if (!bytes || bytes->empty() || failure.body.size() + bytes->size() > kFailureBodyBytesMax) break;
    failure.body += *bytes;
  }
  if (!failure.headers.get("retry-after")) failure.headers.set("Retry-After", "1");
  x.note = failure.status == 502 ? "502" : "503";
  x.last_failure = std::move(failure);
  co_return Tried::kNext;
}

net::Headers Worker::answer_headers(Exchange& x, const net::ResponseStream& upstream) {
  net::Headers headers = end_to_end(upstream.headers());
  headers.set(wire::kRequestId, x.id);
  // The sidecar says when the named prefill worker failed it and the decode worker read the prompt itself.
  if (!x.prefill.empty() && headers.get(wire::kTtft).value_or("").find("prefill_failed") != std::string_view::npos) {
    x.pool->picker->report_down(x.prefill);  // until a probe has looked again
    counts_.retried("prefill_failed");
    x.prefill.clear();
  }
  headers.set(wire::kWorker, x.prefill.empty() ? cat("decode=", x.decode) : cat("decode=", x.decode, ",prefill=", x.prefill));
  x.flight->set_served(x.decode);
  x.flight->answer_head(upstream.status(), headers.get("content-type").value_or(""));
  for (const auto& [name, value] : x.flight->answer_headers()) headers.set(name, value);
  if (x.flight->body_changed()) headers.remove("content-length");  // the model's name may be put back, which changes it
  return headers;
}

// From here on the client sees this worker's answer, byte for byte and piece for piece.
net::Task<> Worker::relay(Exchange& x, std::unique_ptr<net::ResponseStream> upstream) {
  net::Headers headers = answer_headers(x, *upstream);
  const bool sse = headers.get("content-type").value_or("").starts_with("text/event-stream");
  x.status = upstream->status();
  x.note.clear();
  if (sse && x.status == 200 && x.generates && x.flight->stream() && shared_.config.resume_streams)
    x.resume.emplace(x.chat ? Resume::Api::kChat : Resume::Api::kCompletions, x.asked_ids);
  if (!co_await x.writer.begin(x.status, std::move(headers))) {
    x.note = kClientLeft;
    co_return;
  }
  for (;;) {
    std::string error;
    const End end = co_await copy(x, *upstream, error);
    if (end == End::kClientLeft) x.note = kClientLeft;
    if (end == End::kWhole && !co_await x.writer.finish()) x.note = kClientLeft;
    if (end != End::kLost) co_return;
    if (x.writer.cancel().cancelled()) {
      x.note = kClientLeft;
      co_return;
    }
    counts_.retried("lost_mid_stream");
    log_warn("worker lost in the middle of an answer", "x-request-id={} endpoint={} error=\"{}\"", x.id, x.decode, error);
    upstream = co_await go_on_elsewhere(x);
    if (!upstream) break;
  }
  if (x.note == "ended") {  // only the end was missing, and it was written
    x.note.clear();
    if (!co_await x.writer.finish()) x.note = kClientLeft;
    co_return;
  }
  co_await broken_stream(x, sse);
}

net::Task<bool> Worker::pass_on(Exchange& x, std::string_view bytes, bool last) {
  if (x.flight->wants_answer() && (!bytes.empty() || last)) bytes = x.flight->answer_bytes(bytes, last);
  if (bytes.empty()) co_return true;
  if (shared_.access_log.on()) {
    x.tokens_out = tokens_said(bytes, x.tokens_out);
    if (const int64_t seen = x.flight->output_tokens(); seen > 0) x.tokens_out = seen;
  }
  x.bytes_out += bytes.size();
  co_return (co_await x.writer.write(bytes)).has_value();
}

net::Task<Worker::End> Worker::copy(Exchange& x, net::ResponseStream& upstream, std::string& error) {
  for (;;) {
    auto bytes = co_await upstream.read();
    if (!bytes) {
      error = std::move(bytes.error().message);
      co_return End::kLost;
    }
    if (x.first_byte_ms == 0) {
      x.first_byte_ms = ms_between(x.start_ns, shared_.clock.now_ns());
      counts_.first_byte(x.model, x.first_byte_ms * 1e-3);
    }
    if (bytes->empty()) {
      // Without its [DONE] the stream was cut off by somebody who could close properly (a proxy whose engine died).
      const std::string_view held = x.resume ? x.resume->flush() : "";
      if (!co_await pass_on(x, held, true)) co_return End::kClientLeft;
      co_return End::kWhole;
    }
    const std::string_view out = x.resume ? x.resume->pass(*bytes) : std::string_view(*bytes);
    if (!co_await pass_on(x, out, false)) co_return End::kClientLeft;
    if (x.resume && x.resume->failed()) {
      error = "the worker ended its stream with an error";
      co_return End::kLost;
    }
  }
}

// What /tokenize or /detokenize of the next worker answers; nullopt if it cannot say.
net::Task<std::optional<Json>> Worker::ask_about_text(Exchange& x, std::string_view path, std::string_view body) {
  net::Call call = make_call(x, body);
  call.target = path;
  call.headers.remove(wire::kPrefillerHostPort);
  call.first_byte_timeout = call.idle_timeout = net::Millis(kTokenizeTimeoutMs);
  call.body_bytes_max = kTokenizeBytesMax;
  const auto answer = co_await client_.fetch(std::move(call));
  if (!answer || answer->status != 200) co_return std::nullopt;
  auto root = parse_json(answer->body);
  co_return root ? std::optional(*std::move(root)) : std::nullopt;
}

// Asks the next worker how many tokens the client has: by their ids, where these are known and read back as the text that was
// sent, else by that text. nullopt if it cannot say.
net::Task<std::optional<Resume::Count>> Worker::count_sent(Exchange& x, const Resume::Question& question) {
  if (question.with.empty()) co_return std::nullopt;
  for (const bool spoken : {false, true}) {
    const Resume::Question ids = x.resume->ask_ids(x.flight->body(), spoken);
    if (ids.with.empty()) continue;
    const auto with = co_await ask_about_text(x, "/detokenize", ids.with);
    const auto without = with ? co_await ask_about_text(x, "/detokenize", ids.without) : std::nullopt;
    const Json *all = with ? with->find("prompt") : nullptr, *before = without ? without->find("prompt") : nullptr;
    if (all != nullptr && before != nullptr) {
      if (const auto count = x.resume->count_ids(all->text, before->text)) co_return count;
    }
  }
  int64_t counts[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    const auto answer = co_await ask_about_text(x, "/tokenize", i == 0 ? question.with : question.without);
    const Json* count = answer ? answer->find("count") : nullptr;
    if (count == nullptr || !count->as_int()) co_return std::nullopt;
    counts[i] = *count->as_int();
  }
  co_return Resume::Count{.prompt = counts[1], .sent = counts[0] - counts[1]};
}

// The rest of the stream from another worker. nullptr: there is none (x.note says why), or nothing but the end was missing
// (x.note is "ended").
net::Task<std::unique_ptr<net::ResponseStream>> Worker::go_on_elsewhere(Exchange& x) {
  x.note = "worker lost";
  if (!x.resume || x.evicted) co_return nullptr;
  const auto question = x.resume->ask(x.flight->body());
  if (!question) {
    counts_.resumed("unfit");
    log_info("stream cannot go on elsewhere", "x-request-id={} why=\"{}\"", x.id, question.error().message);
    co_return nullptr;
  }
  std::optional<Resume::Next> next;
  for (int attempt = 0; attempt < shared_.config.attempts_max; ++attempt) {
    const auto picked = x.flight->repick(false);
    if (!picked) break;
    take(x, **picked);
    if (!next) {
      next = x.resume->next(x.flight->body(), co_await count_sent(x, *question));
      x.resumed_body = next->body;
      if (next->body.empty()) {
        if (co_await pass_on(x, next->tail, true)) x.note = "ended";
        counts_.resumed("ended");
        co_return nullptr;
      }
    }
    auto opened = co_await client_.open(make_call(x, x.resumed_body));
    if (x.stop.cancelled()) co_return nullptr;
    if (!opened && opened.error().code == Code::kUnavailable) x.pool->picker->report_down(x.decode);
    const int status = opened ? (*opened)->status() : 0;
    if (opened && status == 200) {
      ++x.legs;
      x.note.clear();
      counts_.resumed("resumed");
      log_info("stream goes on elsewhere", "x-request-id={} endpoint={} prefill={} leg={}", x.id, x.decode, x.prefill, x.legs);
      co_return *std::move(opened);
    }
    log_warn("stream does not go on here", "x-request-id={} endpoint={} status={} error=\"{}\"", x.id, x.decode, status,
             opened ? "" : opened.error().message);
    if (status >= 400 && status < 500) break;  // it would be the same anywhere
  }
  counts_.resumed("failed");
  co_return nullptr;
}

// The worker died in the middle and nobody could go on. An event stream ends with an error event, as vLLM ends its own; any other
// body is cut off, which HTTP shows to the client because its length or last chunk is missing.
net::Task<> Worker::broken_stream(Exchange& x, bool sse) {
  if (x.writer.cancel().cancelled()) {
    x.note = kClientLeft;
    co_return;
  }
  x.note = x.evicted ? "evicted" : "worker lost";
  if (!sse) co_return;
  // Blank lines first: the last event may be half written.
  std::string event;
  if (x.evicted)
    event = cat("\n\ndata: ", wire::error_json(x.evicted->status, x.evicted->message), "\n\ndata: [DONE]\n\n");
  else if (x.resume && x.resume->failed())
    event = cat(x.resume->failure(), "data: [DONE]\n\n");
  else
    event = cat("\n\ndata: ", wire::error_json(502, "the worker was lost in the middle of the answer"), "\n\ndata: [DONE]\n\n");
  if (co_await x.writer.write(event)) (void)co_await x.writer.finish();
}

}  // namespace baton::gateway
