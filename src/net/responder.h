#pragma once
// Responder: the ResponseWriter of one request. Decides the framing: Content-Length for send(), for begin() the length the
// handler gave, else chunked, or until close for HTTP/1.0. One system call a write(): chunk head, bytes and CRLF leave together,
// and the response head leaves with the first of them when the handler does not suspend in between. Guarantees: what goes out is
// a whole message or a closed connection, never a short body that looks complete.
#include "net/connection.h"

namespace baton::net {

class Responder final : public ResponseWriter {
 public:
  Responder(Connection& connection, bool head_request, bool keep_alive, bool http10)
      : connection_(connection), head_request_(head_request), keep_alive_(keep_alive), http10_(http10) {}

  Task<Result<>> send(Response response) override;
  Task<Result<>> begin(int status, Headers headers) override;
  Task<Result<>> write(std::string_view bytes) override;
  Task<Result<>> finish() override;
  bool started() const override { return started_; }
  Cancel& cancel() override { return connection_.cancel(); }

  bool reusable() const { return finished_ && keep_alive_; }  // the connection may carry another request
  bool finished() const { return finished_; }

 private:
  enum class Framing { kNone, kLength, kChunked, kUntilClose };
  std::string head(int status, const Headers& headers);

  Connection& connection_;
  const bool head_request_;
  bool keep_alive_;
  const bool http10_;
  bool started_ = false, finished_ = false;
  Framing framing_ = Framing::kNone;
  uint64_t length_left_ = 0;
};

}  // namespace baton::net
