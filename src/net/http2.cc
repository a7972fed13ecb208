#include "net/http2.h"

#include "base/clock.h"
#include "base/log.h"
#include "net/http2_stream.h"
#include "wire/errors.h"

namespace baton::net {

Http2Connection::Http2Connection(ServerThread& thread, Channel channel, Event& ended)
    : H2Connection(*thread.h2, std::move(channel),
                   {.streams_max = kHttp2StreamsMax,
                    .window_bytes = 1u << 20,
                    .header_bytes_max = thread.options.header_bytes_max,
                    .resets_burst = kHttp2ResetsBurst,
                    .resets_per_s = kHttp2ResetsPerS},
                   kHttp2UnsentBytesMax),
      thread_(thread),
      ended_(ended),
      sweep_(thread.scope, [this] { sweep(); }),
      active_(std::chrono::steady_clock::now()) {
  sweep_.set(std::min(thread.options.idle_timeout, thread.options.body_timeout));
}

Http2Connection::~Http2Connection() = default;

H2Stream* Http2Connection::make_stream() {
  auto stream = std::make_shared<Http2Stream>(std::static_pointer_cast<Http2Connection>(shared_from_this()));
  stream->live();
  return stream.get();
}

void Http2Connection::on_gone() {
  sweep_.clear();
  ended_.set();
}

// Bodies that make no progress, and a connection without requests.
void Http2Connection::sweep() {
  auto self = shared_from_this();
  for (Http2Stream* s : std::vector(waiting_)) {
    if (s->stalled()) s->refuse(408, "the request did not arrive in time");
  }
  auto now = std::chrono::steady_clock::now();
  if (!session().idle()) active_ = now;
  if (now - active_ >= thread_.options.idle_timeout) return abort();
  sweep_.set(std::min(thread_.options.idle_timeout, thread_.options.body_timeout));
}

void Http2Stream::on_field(std::string_view name, std::string_view value) {
  if (name == ":method") {
    request_.method = value;
  } else if (name == ":path") {
    request_.target = value;
  } else if (name == ":authority") {
    request_.headers.set("host", value);
  } else if (name.starts_with(':')) {
    return;
  } else if (std::ssize(request_.headers.fields()) >= kHeaderFieldsMax) {
    if (!std::exchange(refused_, true)) request_.method.clear();
  } else if (name != "host" || !request_.headers.get("host")) {
    request_.headers.add(name, value);
  }
}

void Http2Stream::on_head() {
  if (head_too_large() || refused_) return refuse(431, "request header fields are too large");
  std::string_view target = request_.target;
  if (request_.method == "CONNECT" || target.empty()) return refuse(501, "CONNECT is not supported");
  size_t question = target.find('?');
  request_.path = target.substr(0, question);
  if (question != std::string_view::npos) request_.query = target.substr(question + 1);
  request_.peer = connection_->peer();
  request_.arrived_ns = SteadyClock().now_ns();
  if (request_ended()) return;
  waiting_ = true;
  connection_->waiting_.push_back(this);
  if (const auto& listen = connection_->thread().options.listen) request_.listener = listen(request_.method, request_.target);
}

void Http2Stream::on_data(std::string_view bytes) {
  if (refused_) return;
  const ServerOptions& options = connection_->thread().options;
  size_t total = request_.body.size() + bytes.size();
  if (total > options.body_bytes_max) {
    return refuse(413, cat("request body is over the limit of ", options.body_bytes_max, " bytes"));
  }
  if (connection_->body_bytes_ + bytes.size() > kHttp2BodiesMax * options.body_bytes_max) {
    return refuse(503, "too many large requests at once on this connection");
  }
  connection_->body_bytes_ += bytes.size();
  request_.body += bytes;
  if (request_.listener) request_.listener->on_body(bytes);
}

bool Http2Stream::stalled() { return request_.body.size() == std::exchange(heard_, request_.body.size() + 1) - 1; }

void Http2Stream::stop_waiting() {
  if (!std::exchange(waiting_, false)) return;
  connection_->body_bytes_ -= request_.body.size();
  std::erase(connection_->waiting_, this);
}

void Http2Stream::on_end() {
  if (refused_) return;
  stop_waiting();
  ++*connection_->thread().in_flight;
  auto keep = [](std::shared_ptr<Http2Stream> self) -> Task<> { co_await self->run(); };
  connection_->thread().scope.spawn(keep(shared_from_this()));
}

Task<> Http2Stream::run() {
  ServerThread& thread = connection_->thread();
  std::string failure;
  try {
    co_await thread.handler(request_, *this);
  } catch (const std::exception& e) {
    failure = e.what();
  }
  if (!failure.empty()) {
    log_error("request handler threw", "method={} path={} what={}", request_.method, request_.path, failure);
  }
  if (!started()) (void)co_await send(Response::json(500, wire::error_json(500, "the server did not answer the request")));
  if (!finished()) connection_->session().reset(*this, kH2InternalError);  // a body that was begun and left
  --*thread.in_flight;
}

void Http2Stream::on_closed() {
  stop_waiting();
  auto self = std::move(self_);
  refused_ = true;
  bool whole = finished() && unsent() == 0;
  if (!whole || !request_ended()) cancel_.cancel();
  if (room_) room_->set();
}

void Http2Stream::on_room() {
  if (room_) room_->set();
}

void Http2Stream::refuse(int status, std::string_view message) {
  log_debug("request refused", "peer={} status={} why={}", connection_->peer(), status, message);
  stop_waiting();
  refused_ = true;
  request_.body = {};
  Response response = Response::json(status, wire::error_json(status, message));
  head(status, response.headers, response.body.size(), false);
  connection_->session().write(*this, response.body);
  connection_->session().finish(*this, {});
}

void Http2Stream::head(int status, const Headers& headers, std::optional<uint64_t> length, bool end) {
  ServerThread& thread = connection_->thread();
  std::string digits = std::to_string(status), length_text = length ? std::to_string(*length) : "";
  std::vector<std::string> names;  // in lower case
  names.reserve(headers.fields().size());
  std::vector<H2Field> fields = {{":status", digits}, {"date", thread.date.now()}};
  if (!thread.options.server_name.empty()) fields.push_back({"server", thread.options.server_name});
  for (const auto& [name, value] : headers.fields()) {
    if (is_hop_by_hop(name) || same_header_name(name, "content-length") || same_header_name(name, "date")) continue;
    std::string& lower = names.emplace_back(name);
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    if (valid_h2_field(lower, value)) fields.push_back({lower, value});
  }
  if (length && status != 204) fields.push_back({"content-length", length_text});
  connection_->session().respond(*this, fields, end);
}

Task<Result<>> Http2Stream::send(Response response) {
  if (started()) co_return fail(Code::kFailedPrecondition, "response already started");
  if (closed()) co_return fail(Code::kCancelled, "client is gone");
  uint64_t length = response.body.size();
  bool bodiless = request_.method == "HEAD" || response.status == 304 || response.status == 204 || response.status / 100 == 1;
  if (length == 0 && bodiless) length = declared_length(response.headers).value_or(0);
  bool end = bodiless || response.body.empty();
  head(response.status, response.headers, length, end);
  if (!end) {
    connection_->session().write(*this, response.body);
    connection_->session().finish(*this, {});
  }
  co_return Result<>();
}

Task<Result<>> Http2Stream::begin(int status, Headers headers) {
  if (started()) co_return fail(Code::kFailedPrecondition, "response already started");
  if (closed()) co_return fail(Code::kCancelled, "client is gone");
  length_left_ = declared_length(headers);
  bool bodiless = request_.method == "HEAD" || status == 304 || status == 204 || status / 100 == 1;
  head(status, headers, length_left_, bodiless);
  if (bodiless) length_left_.reset();
  co_return Result<>();
}

Task<Result<>> Http2Stream::write(std::string_view bytes) {
  if (!started()) co_return fail(Code::kFailedPrecondition, "write() outside begin() and finish()");
  if (closed() || too_slow_) co_return fail(Code::kCancelled, "client is gone");
  if (finished() || bytes.empty()) co_return Result<>();  // HEAD
  if (length_left_ && bytes.size() > *length_left_) {
    connection_->session().reset(*this, kH2InternalError);
    co_return fail(Code::kInternal, "response body is longer than its Content-Length");
  }
  if (length_left_) *length_left_ -= bytes.size();
  connection_->session().write(*this, bytes);
  if (unsent() <= kHttp2QueueBytes) co_return Result<>();
  co_return co_await wait_for_room();
}

Task<Result<>> Http2Stream::wait_for_room() {
  Event room;
  room_ = &room;
  want_room(kHttp2QueueBytes / 2);
  Deadline deadline(connection_->thread().scope, [this] {
    log_warn("client does not read its response, resetting the stream", "peer={}", connection_->peer());
    too_slow_ = true;
    connection_->session().reset(*this, kH2Cancel);
    room_->set();
  });
  deadline.set(connection_->thread().options.write_timeout);
  co_await room.wait();
  room_ = nullptr;
  if (closed() || too_slow_) co_return fail(Code::kCancelled, "client is gone");
  co_return Result<>();
}

Task<Result<>> Http2Stream::finish() {
  if (!started()) co_return fail(Code::kFailedPrecondition, "finish() outside begin()");
  if (closed()) co_return finished() ? Result<>() : fail(Code::kCancelled, "client is gone");
  if (length_left_.value_or(0) > 0) {
    connection_->session().reset(*this, kH2InternalError);
    co_return fail(Code::kInternal, "response body is shorter than its Content-Length");
  }
  connection_->session().finish(*this, {});
  co_return Result<>();
}

}  // namespace baton::net
