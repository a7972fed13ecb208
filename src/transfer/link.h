#pragma once
// Link: the consumer's connection to one peer, kept up for as long as the peer is wanted.
//
//   RESOLVING -> CONNECTING -> HELLO -> AUTH -> (MAPPING shared memory) -> PROBING -> CONNECTED
//   any failure: fetches fail at once, then again from the start after a backoff; a refusal is remembered and tried again slowly
//
// The self-test (PROBING) measures round trip and bandwidth once a connection and writes one log line a pair.
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/prng.h"
#include "transfer/context.h"
#include "transfer/fetches.h"
#include "transfer/grant_table.h"
#include "transfer/resolver.h"
#include "transfer/shm/shm_transport.h"
#include "transfer/socket.h"
#include "transfer/ucx/ucx_transport.h"

namespace baton::transfer {

class Link final : public FrameHandler {
 public:
  Link(Context& context, Resolver& resolver, HostPort where, std::function<void()> changed);
  ~Link() override;

  bool connected() const { return state_ == State::kConnected; }
  bool is(const std::string& engine_id, int rank) const {
    return connected() && accept_.engine_id == engine_id && accept_.blocks.rank == rank;
  }
  const PeerStatus& status() const { return status_; }
  int failures() const { return failures_; }  // since it was last connected

  const kv::KvShard& shard() const { return accept_.blocks.shard; }  // connected: what its blocks hold
  void fetch(Fetch fetch, const Token& token, FetchPart part);
  void fetch_when_connected(Fetch fetch, const Token& token);  // a push: its producer computes meanwhile
  bool cancel(uint64_t request);
  void hold(const Token& token) { held_.insert(token); }
  void unhold(const Token& token) { held_.erase(token); }
  void decline(const Token& token);

  Result<> on_frame(FrameType type, std::span<const std::byte> body) override;
  Result<Landing> on_chunk(const ChunkHead& head, size_t payload_bytes) override;
  Result<> on_chunk_end(const ChunkHead& head, std::span<const std::byte> collected) override;
  void on_closed(const Error& why) override { lost(why); }

 private:
  enum class State : uint8_t { kWaiting, kResolving, kConnecting, kHello, kAuth, kMapping, kProbing, kConnected };
  void begin();
  void on_resolved(Result<std::vector<Address>> addresses);
  void on_connecting(uint32_t events);
  Result<> on_accept(const Accept& accept);
  Result<> on_ready(const Ready& ready);
  Result<> on_echo(const Echo& echo);
  void map_pool(const Ready& ready);
  void on_descriptor(uint64_t pool_bytes);
  void no_shm(const Error& why);
  void open_ucx();
  void no_ucx(const Error& why);
  void on_arrival(const ChunkHead& head, ucx::Staging::Ref bytes);
  void probe_ucx(Path path);
  void probe_ucx_done();
  void probe();
  void probe_tcp_done();
  void measure_shm();
  void enter_connected();
  void beat();
  void lost(const Error& why);
  void fail_pending(const Error& why);
  void tear_down();
  void set_status(std::string state, std::string detail);
  int64_t backoff_ms();
  int heartbeat_ms() const;

  Context& context_;
  Resolver& resolver_;
  HostPort where_;
  std::function<void()> changed_;
  PeerStatus status_;
  State state_ = State::kWaiting;
  Prng jitter_;
  int failures_ = 0;
  bool refused_ = false;
  size_t next_address_ = 0;
  uint64_t resolve_ticket_ = 0;

  Fd connecting_, unix_;
  uint64_t connecting_watch_ = 0, unix_watch_ = 0;
  Loop::TimerId timer_{};  // handshake deadline, heartbeat or reconnect
  Hello hello_;
  Accept accept_;
  Ready ready_;
  std::optional<PeerPool> peer_pool_;
  std::optional<ucx::Channel> channel_;  // outlives fetches_, which reads through it
  Path ucx_path_{};                      // the one under test, then the one in use
  double ucx_am_speed_ = 0;
  int ucx_passes_ = 0;
  Loop::TimerId ucx_timer_{};
  std::unique_ptr<Conn> conn_;
  std::unique_ptr<Fetches> fetches_;
  int64_t connected_ms_ = 0;
  int echoes_ = 0;
  int64_t probe_ns_ = 0;
  size_t probe_left_ = 0;
  std::unordered_set<Token, TokenHash> held_;
  std::vector<Token> declines_;  // to send once connected
  std::vector<std::pair<Fetch, Token>> pending_;
};

}  // namespace baton::transfer
