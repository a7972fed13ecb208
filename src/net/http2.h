#pragma once
// Http2Connection: the HTTP/2 side of Server: each stream becomes a Request for the same Handler, one coroutine a request. Bodies
// are collected whole, as in HTTP/1.1; write() waits while kHttp2QueueBytes of a stream are unsent. A peer's RST_STREAM, and the
// loss of the connection, fire Cancel. Limits: ServerOptions and net/limits.h. Owner: Connection::run(), which waits for `ended`.
#include "net/encode.h"
#include "net/h2_connection.h"
#include "net/http.h"

namespace baton::net {

struct ServerThread;
class Http2Stream;

class Http2Connection final : public H2Connection {
 public:
  Http2Connection(ServerThread& thread, Channel channel, Event& ended);
  ~Http2Connection() override;
  H2Stream* make_stream() override;
  ServerThread& thread() { return thread_; }

 private:
  friend class Http2Stream;
  void on_gone() override;
  void sweep();

  ServerThread& thread_;
  Event& ended_;
  Deadline sweep_;
  std::vector<Http2Stream*> waiting_;  // for more of their bodies
  std::chrono::steady_clock::time_point active_;
  size_t body_bytes_ = 0;  // of requests that are not complete
};

}  // namespace baton::net
