#pragma once
// H2Connection: an H2Session on a socket, callback style. One recv() and at most one send() a turn of the event loop, whatever
// happened in it: streams queue, the thread's flush at the end of the turn sends. A peer that does not read is closed at
// unsent_bytes_max or after kH2StallTimeout. Owner: shared by the callbacks in flight and H2Loop's list; one thread only.
// Guarantees: every stream has heard on_closed before the connection leaves the list.
#include <functional>

#include "net/channel.h"
#include "net/h2_session.h"
#include "net/scope.h"

namespace baton::net {

class H2Connection;

// What the HTTP/2 connections of one I/O thread share.
struct H2Loop {
  explicit H2Loop(Scope& s) : scope(s) {}
  Scope& scope;
  std::unique_ptr<char[]> input;  // kH2ReadBytes, made with the first connection
  H2Output output;
  std::vector<iovec> iovecs;
  std::vector<std::shared_ptr<H2Connection>> connections;
  std::vector<std::shared_ptr<H2Connection>> dirty;
  bool flush_posted = false;
};

class H2Connection : public std::enable_shared_from_this<H2Connection>, public H2Session::Host {
 public:
  H2Connection(H2Loop& loop, Channel channel, const H2Options& options, size_t unsent_bytes_max);
  ~H2Connection() override;
  void start(std::string_view already_read = {});
  void drain();  // no new streams; closes when the last has ended
  void abort();  // closes now
  bool open() const { return !gone_; }
  H2Session& session() { return session_; }
  const std::string& peer() const { return peer_; }
  void on_output() override;

 protected:
  virtual void on_gone() = 0;  // last call; streams have been told
  void keep_buffers() { channel_.keep_buffers(); }

 private:
  friend struct H2Loop;
  void watch();
  void on_readable(ErrorCode ec);
  bool read_once();
  void on_writable(ErrorCode ec);
  void flush();
  bool send_unsent();
  bool send_gathered();
  void wait_writable();
  void leave(std::string_view why);
  static void flush_all(H2Loop& loop);

  H2Loop& loop_;
  Channel channel_;
  std::string peer_;
  H2Session session_;
  Deadline deadline_;
  size_t unsent_bytes_max_;
  std::string unsent_;  // gathered, not taken by the socket
  size_t unsent_at_ = 0, index_ = 0;
  bool dirty_ = false, writing_ = false, gone_ = false, draining_ = false, feeding_ = false, started_ = false;
};

std::string peer_name(const tcp::socket& socket);  // "127.0.0.1:43210"

}  // namespace baton::net
