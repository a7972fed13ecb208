#pragma once
// FrameReader and Conn: frames over one stream socket.
// FrameReader says where the next bytes go, so payloads land in pool blocks without a copy; it does no I/O, which is what the
// fuzzer feeds. Conn sends owned frames and borrowed pool memory (writev), in order. unborrow() ends a borrowing at once: chunks
// not begun are dropped, one that is half sent is finished from a private copy; so blocks can always be freed without waiting for
// a peer. Threads: the loop's. Errors: every failure ends in exactly one on_closed(), never called from inside send().
#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "transfer/frame.h"
#include "transfer/loop.h"

namespace baton::transfer {

// Where a chunk's payload goes.
struct Landing {
  enum class Kind : uint8_t { kDiscard, kCollect, kScatter } kind = Kind::kDiscard;
  bool report = false;  // kDiscard: on_chunk_end() all the same
  size_t collect_max = kControlBodyMax;
  std::vector<iovec> parts;  // kScatter: together exactly the payload
};

class FrameHandler {
 public:
  virtual ~FrameHandler() = default;
  virtual Result<> on_frame(FrameType type, std::span<const std::byte> body) = 0;
  virtual Result<Landing> on_chunk(const ChunkHead& head, size_t payload_bytes) = 0;
  virtual Result<> on_chunk_end(const ChunkHead& head, std::span<const std::byte> collected) = 0;
  virtual void on_drained() {}                   // the send queue fell below kSendQueueBytes
  virtual void on_closed(const Error& why) = 0;  // the Conn may be destroyed only after this returned
};

class FrameReader {
 public:
  explicit FrameReader(FrameHandler& handler);
  std::span<iovec> want();     // never empty
  Result<> got(size_t bytes);  // that many of want()'s bytes were filled
  void drop_landing();         // what is left of the present payload is discarded: its blocks are ours no more
  // Bytes are a sign of life only if they make frames: a corrupt length would have us wait for one that never ends.
  uint64_t frames() const { return frames_; }
  bool in_blocks() const { return state_ == State::kPayload; }

 private:
  enum class State : uint8_t { kHeader, kBody, kChunkHead, kPayload };
  Result<> complete();
  Result<> begin_payload();
  void expect(State state, size_t bytes);
  FrameHandler& handler_;
  State state_{};
  FrameHeader header_;
  ChunkHead chunk_;
  Landing::Kind kind_{};
  bool report_ = false;
  std::vector<std::byte> buffer_;  // header, body, chunk head or collected payload
  std::vector<std::byte> discard_;
  std::vector<iovec> parts_;
  size_t part_ = 0;  // first of parts_ not full
  size_t discard_left_ = 0;
  uint64_t frames_ = 0;  // complete ones
};

class Conn {
 public:
  Conn(Loop& loop, Fd fd, FrameHandler& handler);
  ~Conn();
  void send(std::string frame);
  void send_chunk(std::string head, std::vector<iovec> borrowed, uint64_t tag);
  void unborrow(uint64_t tag);
  void drop_landing() { reader_.drop_landing(); }
  size_t queued_bytes() const { return queued_; }
  void close(Error why);  // on_closed follows when the present callback has returned
  int64_t heard_ms() const { return heard_ms_; }

 private:
  struct Item {
    std::string head;
    std::vector<iovec> parts;
    std::vector<std::byte> owned;  // what parts point to after unborrow()
    uint64_t tag = 0;
    bool begun = false;
  };
  void ready(uint32_t events);
  void receive();
  void flush();
  void sent(size_t bytes);
  void enqueue(Item item);
  Loop& loop_;
  Fd fd_;
  FrameHandler& handler_;
  FrameReader reader_;
  std::deque<Item> queue_;
  size_t queued_ = 0, owned_ = 0;  // bytes waiting; those of them that are in heads
  uint64_t watch_ = 0;
  bool want_write_ = false, broken_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  int64_t heard_ms_ = 0;
};

}  // namespace baton::transfer
