#include "net/responder.h"


namespace baton::net {
namespace {

bool has_no_body(int status) { return status / 100 == 1 || status == 204 || status == 304; }

asio::const_buffer buffer_of(std::string_view s) { return {s.data(), s.size()}; }

}  // namespace

// Everything but the fields that depend on the framing.
std::string Responder::head(int status, const Headers& headers) {
  if (auto close = headers.get("connection"); close && same_header_name(*close, "close")) keep_alive_ = false;
  if (connection_.draining()) keep_alive_ = false;
  std::string out;
  out.reserve(256);
  append_status_line(out, status);
  append_field(out, "date", connection_.thread().date.now());
  if (const auto& name = connection_.thread().options.server_name; !name.empty()) append_field(out, "server", name);
  append_fields(out, headers);
  return out;
}

Task<Result<>> Responder::send(Response response) {
  if (started_) co_return fail(Code::kFailedPrecondition, "response already started");
  std::string out = head(response.status, response.headers);
  started_ = true;
  bool bodiless = has_no_body(response.status);
  uint64_t length = response.body.size();
  // A proxy passes on the length that a HEAD (or 304) names without having the body.
  if (length == 0 && (head_request_ || response.status == 304)) length = declared_length(response.headers).value_or(0);
  if (response.status != 204 && response.status / 100 != 1) append_field(out, "content-length", std::to_string(length));
  if (!keep_alive_) append_field(out, "connection", "close");
  if (keep_alive_ && http10_) append_field(out, "connection", "keep-alive");
  out += "\r\n";
  std::string_view body = bodiless || head_request_ ? std::string_view() : std::string_view(response.body);
  auto sent = co_await connection_.write({buffer_of(out), buffer_of(body), {}, {}});
  finished_ = sent.has_value();
  co_return sent;
}

Task<Result<>> Responder::begin(int status, Headers headers) {
  if (started_) co_return fail(Code::kFailedPrecondition, "response already started");
  if (connection_.gone()) co_return fail(Code::kCancelled, "client is gone");
  std::string out = head(status, headers);
  started_ = true;
  if (auto length = declared_length(headers)) {
    framing_ = Framing::kLength;
    length_left_ = *length;
    if (status != 204) append_field(out, "content-length", std::to_string(*length));
  } else if (has_no_body(status)) {
    framing_ = Framing::kNone;
  } else if (http10_) {
    framing_ = Framing::kUntilClose;
    keep_alive_ = false;
  } else {
    framing_ = Framing::kChunked;
    append_field(out, "transfer-encoding", "chunked");
  }
  if (head_request_ || has_no_body(status)) framing_ = Framing::kNone;
  if (!keep_alive_) append_field(out, "connection", "close");
  if (keep_alive_ && http10_) append_field(out, "connection", "keep-alive");
  out += "\r\n";
  connection_.cork(std::move(out));
  co_return Result<>();
}

Task<Result<>> Responder::write(std::string_view bytes) {
  if (!started_ || finished_) co_return fail(Code::kFailedPrecondition, "write() outside begin() and finish()");
  if (bytes.empty()) co_return Result<>();  // an empty chunk would end the message
  switch (framing_) {
    case Framing::kNone:
      co_return Result<>();
    case Framing::kLength:
      if (bytes.size() > length_left_) {
        connection_.abort();
        co_return fail(Code::kInternal, "response body is longer than its Content-Length");
      }
      length_left_ -= bytes.size();
      [[fallthrough]];
    case Framing::kUntilClose:
      co_return co_await connection_.write({buffer_of(bytes), {}, {}, {}});
    case Framing::kChunked:
      break;
  }
  ChunkHead chunk(bytes.size());
  co_return co_await connection_.write({buffer_of(chunk.text()), buffer_of(bytes), buffer_of("\r\n"), {}});
}

Task<Result<>> Responder::finish() {
  if (!started_ || finished_) co_return fail(Code::kFailedPrecondition, "finish() outside begin()");
  if (framing_ == Framing::kLength && length_left_ > 0) {
    connection_.abort();
    co_return fail(Code::kInternal, "response body is shorter than its Content-Length");
  }
  std::string_view last = framing_ == Framing::kChunked ? "0\r\n\r\n" : "";
  auto sent = co_await connection_.write({buffer_of(last), {}, {}, {}});
  finished_ = sent.has_value();
  co_return sent;
}

}  // namespace baton::net
