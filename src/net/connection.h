#pragma once
// Connection: one client of a Server, on one I/O thread: reads a request, runs the handler, keeps the connection or closes it.
//
//   run():  read_request -> handler -> (keep-alive) read_request ...      one coroutine
//   watch(): waits for readability, also while the handler runs, so that a client that leaves fires Cancel at once; what it
//            sends ahead (pipelining) waits in input_, at most kPipelineBytesMax of it.
//
// HTTP/2 (ALPN, or its preface on plaintext) takes the socket over: run() then only waits for its end.
// A client that shuts down its sending side while it waits for an answer counts as gone, as it does for uvicorn, so for vLLM.
// Owner: shared by run()'s frame and the callbacks in flight; the thread's list (ServerThread) holds a plain pointer for
// draining.
#include <array>
#include <atomic>
#include <list>

#include "net/buffer.h"
#include "net/channel.h"
#include "net/codec.h"
#include "net/encode.h"
#include "net/http2.h"
#include "net/scope.h"

namespace baton::net {

class Connection;

// What the connections of one I/O thread share.
struct ServerThread {
  explicit ServerThread(const ServerOptions& o) : options(o) {}
  const ServerOptions& options;
  Scope scope;
  Handler handler;
  HttpDate date;
  std::list<Connection*> connections;
  bool draining = false;
  std::atomic<int> connection_count{0};  // this thread's, for placing the next one
  std::atomic<int>* in_flight = nullptr;
  std::unique_ptr<H2Loop> h2;  // with the first HTTP/2 connection
};

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  using Buffers = std::array<asio::const_buffer, 4>;

  Connection(ServerThread& thread, Channel channel);
  ~Connection();
  Task<> run();
  Task<> turn_away();  // instead of run(): 503
  void drain();        // close now if idle, else after the answer in flight
  void abort();        // close now; the handler's Cancel fires

  // For the Responder of the request in flight.
  Task<Result<>> write(Buffers buffers);  // everything, or an error once the client is gone or too slow
  void cork(std::string head);            // goes out with the next write, or at the end of this turn of the event loop
  bool gone() const { return gone_; }
  bool draining() const { return thread_.draining; }
  Cancel& cancel() { return *cancel_; }
  ServerThread& thread() { return thread_; }

 private:
  enum class Phase { kIdle, kHead, kBody, kHandler, kLinger };

  Task<bool> handshake();
  Task<> serve_http2();
  bool may_be_http2();
  Task<std::expected<bool, Refusal>> read_request();
  Task<bool> answer(Request& request, bool keep_alive, bool http10);
  Task<> refuse(const Refusal& refusal);
  Task<> linger();
  void hear_body();
  Task<> more_input();
  void watch();
  void on_readable(ErrorCode ec);
  void on_deadline();
  void leave();
  bool try_write(Buffers& buffers, ErrorCode& ec);

  ServerThread& thread_;
  Channel channel_;
  std::string peer_;
  Deadline deadline_;
  Buffer input_;
  RequestDecoder decoder_;
  Event input_event_;
  std::unique_ptr<Cancel> cancel_;
  std::shared_ptr<Http2Connection> http2_;
  std::string corked_;
  std::list<Connection*>::iterator at_;
  Phase phase_ = Phase::kIdle;
  size_t lingered_bytes_ = 0;
  std::shared_ptr<BodyListener> listener_;  // of the request that arrives
  size_t heard_ = 0;                        // of its body
  bool watching_ = false, writing_ = false, handshaking_ = false, first_ = true;
  bool eof_ = false, timed_out_ = false, gone_ = false;
};

}  // namespace baton::net
