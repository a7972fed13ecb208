#pragma once
// Session: one consumer's connection on the producer. HELLO -> ACCEPT -> AUTH -> READY, then heartbeats, declines and reads.
// A read sends its chunks in order, as far as they are computed and the consumer's credit and the send queue allow; reads take
// turns chunk by chunk. An AWAIT whose grant does not exist yet is kept for kAwaitMs.
// Nothing a peer says is used before it was checked; an error closes the connection, which ends its reads.
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "transfer/producer.h"
#include "transfer/ucx/ucx_transport.h"

namespace baton::transfer {

class Session final : public FrameHandler {
 public:
  Session(Context& context, Producer& producer, Fd fd);
  ~Session() override;

  Result<> on_frame(FrameType type, std::span<const std::byte> body) override;
  Result<Landing> on_chunk(const ChunkHead&, size_t) override { return fail(Code::kInvalidArgument, "a consumer sent blocks"); }
  Result<> on_chunk_end(const ChunkHead&, std::span<const std::byte>) override { return {}; }
  void on_drained() override { pump(); }
  void on_closed(const Error& why) override;

  bool owns_key(const Nonce& key) const { return state_ == State::kReady && shm_granted_ && key == shm_key_; }
  void stop_read(uint64_t op);                                   // tells the reader; a path that reads our memory is waited for
  void advance(uint64_t op);                                     // more of the grant is computed
  void answer_await(uint64_t op, std::optional<Error> refused);  // its grant exists now, or never will
  void cut(std::string_view why) { conn_.close({Code::kAborted, std::string(why)}); }

 private:
  enum class State : uint8_t { kHello, kAuth, kReady };
  struct Read {
    Token token{};
    size_t first = 0, total = 0;  // of the grant's blocks
    std::vector<int32_t> blocks;  // those of them that are computed, in order
    Cut cut;
    bool completed_due = false;  // an AWAIT that was not told of the completion yet
    bool computing = false;
    size_t next = 0;  // first block not sent
    size_t chunk_blocks = 1;
    uint64_t credit = 0;
    Transport* transport = nullptr;
    bool stopped = false;  // waiting for the reader's CLOSE
  };
  Result<> on_hello(const Hello& hello);
  Result<> on_auth(const Auth& auth);
  Result<> on_heartbeat(const Heartbeat& beat);
  Result<> on_probe(const Probe& probe);
  Result<> on_ucx(const Ucx& ucx);
  Transport* transport_for(Path path);
  Result<> on_fetch(const FetchMsg& fetch);
  Result<> on_await(const Await& await);
  bool check_fetch(const FetchMsg& fetch);  // false: refused
  void begin_read(const FetchMsg& fetch, bool await);
  void take_ready(uint64_t op, Read& read);
  void forget_await(uint64_t op);
  Result<> on_credit(const Credit& credit);
  Result<> on_close(const Close& close);
  Result<> refuse(Refusal reason, std::string detail);
  void fail_read(uint64_t op, const Error& why);
  void forget(uint64_t op);
  void pump();
  bool send_chunk(uint64_t op, Read& read);
  void watch_silence();

  Context& context_;
  Producer& producer_;
  State state_ = State::kHello;
  Hello hello_;
  Accept accept_;
  Nonce shm_key_{};
  bool shm_granted_ = false, ucx_granted_ = false;
  int ucx_probes_ = 0;
  std::optional<ucx::Channel> channel_;
  std::unique_ptr<Transport> tcp_, shm_, ucx_, ucx_get_;
  struct Waiting {
    Await message;
    Loop::TimerId timer;
  };
  std::unordered_map<uint64_t, Read> reads_;
  std::unordered_map<uint64_t, Waiting> awaits_;
  std::deque<uint64_t> turns_;
  bool pumping_ = false;
  Loop::TimerId timer_{}, pump_timer_{};
  Conn conn_;  // last: nothing is received before the rest exists
};

}  // namespace baton::transfer
