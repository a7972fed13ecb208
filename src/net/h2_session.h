#pragma once
// H2Session: the server's side of one HTTP/2 connection, in memory: bytes in by feed(), bytes out by gather(). nghttp2 does
// frames, HPACK and flow control; here are the streams' queues, the limits on what a peer may do, and the order of events.
// Requires: one thread; feed() and gather() are not called from a stream's callbacks, everything else may be. Guarantees:
// on_field*, on_head, on_data*, on_end in this order, on_closed exactly once and last (it may delete the stream), and only from
// feed(), reap() or the destructor; pieces given out by gather() stay valid until reap(). Receive windows open as data is
// delivered; that of a stream whose answer the peer does not take stays shut: at most kH2AnswerBytesMax and what the handlers
// make of one window are queued.
// Source: RFC 9113, RFC 7541.
#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/limits.h"

struct nghttp2_session;

namespace baton::net {

struct H2Field {
  std::string_view name, value;  // name in lower case
};

struct H2Options {
  uint32_t streams_max = 256;
  uint32_t window_bytes = 1u << 20;  // a stream's; the connection's is kH2WindowStreams of them
  size_t header_bytes_max = 64u << 10;
  int resets_burst = 1'000, resets_per_s = 100;  // by the peer, of streams that had no answer yet
};

// Allows `burst` at once and `per_second` for ever. The clock is asked only when the burst is used up.
class RateLimit {
 public:
  RateLimit(int burst, int per_second) : burst_(burst), per_second_(per_second), left_(burst) {}
  bool take();  // false: over the limit

 private:
  int burst_, per_second_, left_;
  std::chrono::steady_clock::time_point filled_ = std::chrono::steady_clock::now();
};

inline constexpr uint32_t kH2InternalError = 2, kH2Cancel = 8;  // RFC 9113 section 7
// May go out as a field: a token in lower case, and a value without control characters.
bool valid_h2_field(std::string_view name, std::string_view value);

class H2Session;

class H2Stream {
 public:
  virtual ~H2Stream() = default;
  int32_t id() const { return id_; }
  bool closed() const { return closed_; }
  bool request_ended() const { return request_ended_; }
  bool head_too_large() const { return head_too_large_; }  // its fields are not complete
  bool responded() const { return responded_; }
  bool finished() const { return finished_; }
  size_t unsent() const { return out_.size() - out_at_; }

 protected:
  virtual void on_field(std::string_view name, std::string_view value) = 0;
  virtual void on_head() = 0;
  virtual void on_data(std::string_view bytes) = 0;
  virtual void on_end() = 0;
  virtual void on_closed() = 0;
  virtual void on_room() {}  // once, after want_room() while more was unsent: at most that much is now
  void want_room(size_t unsent_bytes) { room_ = unsent_bytes, wants_room_ = true; }

 private:
  friend class H2Session;
  H2Session* session_ = nullptr;
  int32_t id_ = 0;
  bool closed_ = false, request_ended_ = false, head_too_large_ = false, head_done_ = false;
  bool responded_ = false, finished_ = false, deferred_ = false, wants_room_ = false;
  uint32_t uncredited_ = 0;  // delivered, and the peer's window not yet reopened by as much
  size_t head_bytes_ = 0, index_ = 0;
  std::string out_;  // from out_at_ on: queued, not yet framed
  size_t out_at_ = 0, room_ = 0;
  std::vector<std::pair<std::string, std::string>> trailers_;
};

// Frames ready for one send: small ones copied into one block, large payloads where they lie.
class H2Output {
 public:
  void clear() {
    block_.clear();
    pieces_.clear();
    bytes_ = 0;
  }
  bool empty() const { return bytes_ == 0; }
  size_t bytes() const { return bytes_; }
  void copy(const void* data, size_t n);
  void refer(const void* data, size_t n);
  void iovecs(std::vector<iovec>& out) const;

 private:
  struct Piece {
    const char* data;  // nullptr: in block_ at `at`
    size_t at, size;
  };
  std::string block_;
  std::vector<Piece> pieces_;
  size_t bytes_ = 0;
};

class H2Session {
 public:
  class Host {
   public:
    virtual ~Host() = default;
    virtual H2Stream* make_stream() = 0;  // nullptr: refused (REFUSED_STREAM), the peer may try elsewhere
    virtual void on_output() = 0;         // there may be something to gather
  };

  H2Session(Host& host, const H2Options& options);
  ~H2Session();
  H2Session(const H2Session&) = delete;

  bool feed(std::string_view bytes);  // false: the connection is to be closed (after what gather() still gives)
  void gather(H2Output& out, bool copy_all);  // up to kH2SendBytes more
  void reap();                        // after what gather() gave was sent or copied
  bool done() const;                  // nothing more to say or to hear
  bool established() const { return established_; }  // the preface and the peer's SETTINGS have come
  void drain();                       // GOAWAY in two steps, so that no request in flight to us is lost
  bool idle() const { return streams_.empty(); }
  bool draining() const { return draining_; }
  size_t unsent() const { return unsent_; }  // queued by streams, not yet gathered
  std::string_view broken() const { return broken_; }

  // Names and values are copied. end: no body.
  void respond(H2Stream& stream, std::span<const H2Field> fields, bool end);
  void write(H2Stream& stream, std::string_view head, std::span<const std::string_view> pieces = {});
  void finish(H2Stream& stream, std::span<const H2Field> trailers);
  void reset(H2Stream& stream, uint32_t error);
  void close_all();  // the connection is lost: on_closed for every stream

 private:
  struct Callbacks;
  friend struct Callbacks;
  void resume(H2Stream& stream);
  void credit(H2Stream& stream);
  bool owes_credit(const H2Stream& stream) const;
  void stop(std::string_view why);
  void close(H2Stream& stream);

  Host& host_;
  nghttp2_session* session_ = nullptr;
  size_t header_bytes_max_;
  RateLimit resets_, controls_;
  std::vector<H2Stream*> streams_, closed_, drained_;
  H2Output* output_ = nullptr;
  bool copy_all_ = false, full_ = false, draining_ = false, last_goaway_ = false, established_ = false, stopped_ = false;
  size_t unsent_ = 0;
  uint32_t credit_bytes_;      // a stream's window is reopened by at least so many
  uint32_t uncredited_ = 0;    // as H2Stream's, of the connection
  std::string_view broken_;
};

}  // namespace baton::net
