#pragma once
// HTTP/1.1 and HTTP/2 server, HTTP/1.1 client, on coroutines; Beast and nghttp2 stay behind this header (a file with Beast
// costs 10 s to compile).
// One io_context a thread, nothing shared between them: a Handler is made once per thread and lives on it, a Client belongs to
// the thread that made it. Every wait has a limit (net/limits.h). Errors are values; nothing is detached: stop() waits for its
// gate.
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace baton::net {

class TlsServer;  // net/tls.h
class TlsClient;

template <class T = void>
using Task = boost::asio::awaitable<T>;
using Millis = std::chrono::milliseconds;

// Header fields in arrival order; names compare without case.
class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<std::pair<std::string, std::string>> fields) : fields_(fields) {}
  std::optional<std::string_view> get(std::string_view name) const;  // first value
  std::vector<std::string_view> get_all(std::string_view name) const;
  void set(std::string_view name, std::string_view value);  // replaces all of that name
  void add(std::string_view name, std::string_view value);
  bool remove(std::string_view name);  // true if there was one
  const std::vector<std::pair<std::string, std::string>>& fields() const { return fields_; }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

// Connection, Keep-Alive, Transfer-Encoding, ...: fields about one hop, which a proxy must not pass on (RFC 9110 section 7.6.1).
// Server and Client drop them from what they are given and write their own.
bool is_hop_by_hop(std::string_view name);
bool same_header_name(std::string_view a, std::string_view b);  // ASCII case ignored

// Cancel: one-shot flag with listeners, for "the client is gone" and deadlines. One thread only (the connection's).
class Cancel {
 public:
  bool cancelled() const { return cancelled_; }
  void cancel();
  // Runs f at once if already cancelled. The returned guard unsubscribes when destroyed.
  [[nodiscard]] std::shared_ptr<void> on_cancel(std::function<void()> f);

 private:
  bool cancelled_ = false;
  std::vector<std::weak_ptr<std::function<void()>>> listeners_;
};

// Hears a body while it arrives. I/O thread of its connection.
class BodyListener {
 public:
  virtual ~BodyListener() = default;
  virtual void on_body(std::string_view bytes) = 0;
};

struct Request {
  std::string method;  // upper case
  std::string target;  // as sent
  std::string path;    // target without the query, not decoded
  std::string query;   // without '?'
  Headers headers;
  std::string body;        // whole; bounded by ServerOptions.body_bytes_max
  std::string peer;        // "127.0.0.1:43210"
  int64_t arrived_ns = 0;  // SteadyClock when the head was read
  std::shared_ptr<BodyListener> listener;  // by ServerOptions::listen; it has heard all of `body`
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;
  static Response text(int status, std::string body);
  static Response json(int status, std::string body);
};

// ResponseWriter: answers one request, once. Either send(), or begin() then write()* then finish() (chunked, or as Content-Length
// says if that header was given). write() returns an error once the client is gone; the same event fires cancel().
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;
  virtual Task<Result<>> send(Response response) = 0;
  virtual Task<Result<>> begin(int status, Headers headers) = 0;
  virtual Task<Result<>> write(std::string_view bytes) = 0;
  virtual Task<Result<>> finish() = 0;
  virtual bool started() const = 0;  // a status line went out
  virtual Cancel& cancel() = 0;      // fires when the client closes, resets, or half-closes, also while nothing is being written
};

using Handler = std::function<Task<>(Request&, ResponseWriter&)>;
// Called once on each I/O thread as it starts; per-thread state (a Client, caches) lives in the closure.
using HandlerFactory = std::function<Handler()>;

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;  // 0 = any; Server::port() tells
  int threads = 1;
  size_t header_bytes_max = 64 << 10;  // 431 over it
  size_t body_bytes_max = 64u << 20;   // 413 over it
  int connections_max = 4096;          // 503 and close over it
  Millis header_timeout{30'000};       // a client that does not finish its head: 408
  Millis body_timeout{60'000};         // no progress on the body
  Millis idle_timeout{300'000};        // keep-alive
  Millis write_timeout{60'000};        // a client that does not read
  std::string server_name;             // Server header, "" = none
  std::shared_ptr<TlsServer> tls;      // nullptr: plaintext; the handshake must end within header_timeout
  // Asked on the I/O thread when a head is complete and its body is not; nullptr: nobody listens.
  std::function<std::shared_ptr<BodyListener>(std::string_view method, std::string_view target)> listen;
  bool http2 = false;                  // also HTTP/2: agreed on by ALPN, or by prior knowledge on plaintext
};

class Server {
 public:
  Server(ServerOptions options, HandlerFactory make_handler);
  ~Server();         // stops
  Result<> start();  // binds, listens (backlog 4096), starts the threads
  int port() const;
  // Stop accepting, answer requests in flight for up to `grace`, close idle connections, then the rest. Idempotent; blocks.
  void stop(Millis grace);
  int in_flight() const;  // requests being answered, any thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct Call {
  std::string host;  // name or address, IPv6 without brackets
  int port = 80;
  std::string method = "GET";
  std::string target = "/";
  Headers headers;        // Host and Content-Length are filled in
  std::string_view body;  // must live until the call ends
  Millis connect_timeout{2'000};
  Millis first_byte_timeout{0};        // until the response head; 0 = no limit
  Millis idle_timeout{0};              // between body bytes; 0 = no limit
  size_t body_bytes_max = 256u << 20;  // of fetch(); a stream's reader bounds itself
  Cancel* cancel = nullptr;            // firing it ends the call with kCancelled and closes the connection
  std::shared_ptr<TlsClient> tls;      // nullptr: plaintext; the handshake counts to connect_timeout
  std::string server_name;             // SNI, and the name that is verified; "" = host
};

// The response body as it arrives. Dropping it unread closes the connection.
class ResponseStream {
 public:
  virtual ~ResponseStream() = default;
  virtual int status() const = 0;
  virtual const Headers& headers() const = 0;
  virtual Task<Result<std::string>> read() = 0;  // the next bytes, as they come; "" at the clean end
};

// Client: keep-alive pools per host:port. Belongs to one thread. A request that fails on a reused connection before any response
// byte is sent again once on a fresh one. Codes: kUnavailable cannot connect / refused / closed before the head,
// kDeadlineExceeded, kCancelled, kDataLoss closed inside the body, kInternal malformed response.
class Client {
 public:
  explicit Client(int idle_connections_max = 1024);
  ~Client();
  Task<Result<Response>> fetch(Call call);                        // whole body
  Task<Result<std::unique_ptr<ResponseStream>>> open(Call call);  // head, then a stream

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Background work on one I/O thread of its own: pollers, the load generator.
class IoThread {
 public:
  // gather: after each wake-up the thread lets so much time pass before it looks what has happened, and then handles it all: for
  // work that is not in a hurry, and comes in a thousand small events a second.
  explicit IoThread(Millis gather = Millis(0));
  ~IoThread();                               // stop()
  void spawn(std::function<Task<>()> make);  // any thread; runs on this thread, counted by the gate
  void post(std::function<void()> f);
  void stop();  // cancels sleeps and calls, waits for every spawned task

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

Task<> sleep_for(Millis duration, Cancel* cancel = nullptr);  // ends early when its thread stops or `cancel` fires
void spawn_here(Task<> task);       // on the current I/O thread, counted by that thread's gate

// Runs one task to its end on a private io_context: command-line tools and tests.
void run_task(std::function<Task<>()> make);

}  // namespace baton::net
