#pragma once
// ClientConnection: one TCP connection to an upstream. Any wait on it ends when abort() closes the socket; the first reason given
// is the error that the wait returns. AbortGuard lends a call's Cancel and the thread's stop to it. Pool keeps idle ones per
// host:port, TLS identity included. One thread only.
#include <deque>
#include <unordered_map>

#include "net/buffer.h"
#include "net/channel.h"
#include "net/scope.h"

namespace baton::net {

class ClientConnection final {
 public:
  ClientConnection(Scope& scope, std::string key);
  // tls: nullptr = plaintext. name: SNI and what is verified.
  Task<Result<>> connect(const std::string& host, int port, Millis timeout, std::shared_ptr<TlsClient> tls,
                         const std::string& name);
  Task<Result<>> write(std::string_view head, std::string_view body);
  Task<Result<size_t>> receive();  // appends to input(); 0 at the upstream's end of stream
  void abort(Code code, std::string_view why);
  bool aborted() const { return aborted_.has_value(); }
  void deadline(Millis from_now, const char* why);  // abort then; 0 = none
  bool fresh() const;                               // idle, and the upstream has neither closed it nor sent anything
  auto idle_since() const { return idle_since_; }
  void idle_since_now() { idle_since_ = std::chrono::steady_clock::now(); }
  const std::string& key() const { return key_; }
  Buffer& input() { return input_; }
  void rest() { input_.lend_to(scope_.spare()); }  // it goes into the pool

 private:
  Task<Result<>> handshake(const std::string& name, std::string_view where);
  Task<Result<size_t>> receive_secure();
  std::unexpected<Error> failed(Code code, std::string_view what, const ErrorCode& ec) const;

  Scope& scope_;
  std::string key_;  // "host port"
  Channel channel_;
  std::shared_ptr<TlsClient> tls_;  // held, so that its address in the pool's key stays its own
  tcp::resolver resolver_;
  Deadline deadline_;
  const char* deadline_why_ = "";
  Code deadline_code_ = Code::kDeadlineExceeded;
  Buffer input_;
  bool more_ = false;  // the last read took all there was room for
  std::optional<Error> aborted_;
  std::chrono::steady_clock::time_point idle_since_;
};

class AbortGuard {
 public:
  AbortGuard(std::shared_ptr<ClientConnection> connection, Cancel* cancel);
  void release() {
    cancel_.reset();
    stop_.reset();
  }

 private:
  std::shared_ptr<void> cancel_;
  std::optional<StopHook> stop_;
};

class Pool {
 public:
  explicit Pool(int idle_max) : idle_max_(idle_max) {}
  std::shared_ptr<ClientConnection> take(const std::string& key);  // the most recently used that is still fresh, or null
  void put(std::shared_ptr<ClientConnection> connection);

 private:
  void follow(Scope& scope);
  void drop_oldest();
  int idle_max_;
  int idle_ = 0;
  std::unordered_map<std::string, std::deque<std::shared_ptr<ClientConnection>>> idle_by_key_;
  Scope* scope_ = nullptr;
  std::optional<StopHook> stop_;  // sockets must not outlive the loop they belong to
};

}  // namespace baton::net
