#pragma once
// gRPC server over HTTP/2 (nghttp2 inside): length-prefixed messages, statuses in trailers, nothing of any service.
// Callbacks, not coroutines: a call costs no frame and no wake-up of its own, and everything a call writes during one turn of the
// loop leaves in one send. One io_context a thread; a connection and its calls stay on the thread that accepted them.
// Requires: handlers never block. Guarantees: on_message only between the factory and on_closed; on_closed exactly once, then the
// GrpcCall is gone. Limits: net/limits.h. Source: gRPC over HTTP/2 protocol, RFC 9113; facts sheet "epp" 1.1, 1.7.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http.h"
#include "net/tls.h"

namespace baton::net {

// One call, as the server's side sees it. Its thread only, except post().
class GrpcCall {
 public:
  virtual ~GrpcCall() = default;
  virtual std::string_view path() const = 0;  // "/package.Service/Method"
  virtual std::string_view peer() const = 0;
  void write(std::string_view message) { write_pieces({&message, 1}); }
  virtual void write_pieces(std::span<const std::string_view> pieces) = 0;  // one message: framed, copied and queued
  // Trailers; queued messages go out before. Nothing may be written after it.
  virtual void finish(Code code, std::string_view message = {}) = 0;
  virtual size_t unsent_bytes() const = 0;  // queued and not yet taken by flow control and socket
  // While more than that is unsent: on_room will be called, once, when at most that much is. Who writes much waits for it; who
  // does not is not read on while kH2AnswerBytesMax of his answer are queued.
  virtual void want_room(size_t unsent_bytes_max) = 0;
  // Any thread: runs f on the call's thread; dropped once the call is closed. Keep the returned function, it outlives the call.
  virtual std::function<void(std::move_only_function<void()>)> poster() = 0;
};

class GrpcHandler {
 public:
  virtual ~GrpcHandler() = default;
  virtual void on_message(std::string_view message) = 0;  // one whole message; the view dies with the call to it
  virtual void on_half_close() = 0;                       // the client will send nothing more
  virtual void on_room() {}                               // see want_room()
  virtual void on_closed() = 0;  // finished, reset by the client, or the connection is lost; the last thing heard
};

// nullptr: answered UNIMPLEMENTED.
using GrpcHandlerFactory = std::function<std::unique_ptr<GrpcHandler>(GrpcCall&)>;

struct GrpcServerOptions {
  std::string host = "::";  // dual stack; falls back to 0.0.0.0 where there is no IPv6
  int port = 0;             // 0 = any; port() tells
  int threads = 1;
  std::shared_ptr<TlsServer> tls;          // nullptr: plaintext (prior knowledge)
  size_t message_bytes_max = 4u << 20;     // RESOURCE_EXHAUSTED over it, as grpc-go says it
  int connections_max = 10'000;            // closed at accept over it
  uint32_t streams_max = 100'000;          // a connection (SETTINGS_MAX_CONCURRENT_STREAMS)
  uint32_t window_bytes = 1u << 20;        // a stream's receive window; the connection's is 16 of them
  size_t unsent_bytes_max = 64u << 20;     // a connection whose peer does not read is closed over it
};

class GrpcServer {
 public:
  // make: called once on each I/O thread.
  GrpcServer(GrpcServerOptions options, std::function<GrpcHandlerFactory()> make);
  ~GrpcServer();
  Result<> start();
  int port() const;
  int calls_in_flight() const;  // any thread
  // GOAWAY, no new calls, up to `grace` for those in flight, then close. Idempotent; blocks.
  void stop(Millis grace);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace baton::net
