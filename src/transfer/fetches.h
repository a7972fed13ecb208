#pragma once
// Fetches: the reads a consumer has open on one connected peer. Checks every chunk against what was asked, verifies it, returns
// credit, and ends each fetch with exactly one kFetched event. After that event no byte of its destination is written any more:
// what is still on the way is discarded.
#include <memory>
#include <unordered_map>
#include <vector>

#include "transfer/context.h"
#include "transfer/joint.h"
#include "transfer/placement.h"

namespace baton::transfer {

void emit_fetch_failed(Context& context, const Fetch& fetch, Error why, Joint* joint = nullptr);  // for a fetch that never began

class Fetches {
 public:
  // peer: what its blocks hold.
  Fetches(Context& context, Conn& conn, std::unique_ptr<Transport> transport, const kv::KvShard& peer);
  ~Fetches();

  void start(Fetch fetch, const Token& token, int64_t asked_ms, FetchPart part);
  bool cancel(uint64_t request);
  void fail_all(const Error& why);
  void append_tokens(std::vector<Token>& out) const;
  // The producer keeps every grant until then that append_tokens() gave at asked_ms.
  void renewed(int64_t asked_ms, int64_t until_ms);

  Result<> on_opened(const Opened& opened);
  Result<> on_failed(const Failed& failed);
  Result<> on_completed(const Completed& completed);
  Result<> on_keep(const Keep& keep);
  Result<Landing> on_chunk(const ChunkHead& head, size_t payload_bytes);
  Result<> on_chunk_end(const ChunkHead& head, std::span<const std::byte> collected);
  // A chunk that came beside the connection, so maybe before OPENED or before an earlier chunk: kept until its turn.
  Result<> on_arrival(const ChunkHead& head, ucx::Staging::Ref bytes);
  Path path() const { return transport_->path(); }

 private:
  struct Op {
    Fetch fetch;
    Placement placement;
    std::shared_ptr<Joint> joint;
    Token token{};
    size_t chunk_bytes = 0;
    bool opened = false;
    bool completed = true;  // false: a push whose producer still computes
    size_t announced = 0;   // blocks whose chunks the connection named
    size_t verified = 0;    // leading blocks of the producer's
    int64_t asked_ms = 0, started_ns = 0, progress_ms = 0, read_until_ms = 0;
    Loop::TimerId timer{};
    Destination destination() const { return {fetch.blocks, fetch.first_token, fetch.n_tokens}; }
    Target target(const ChunkHead& head) const;
  };
  using Map = std::unordered_map<uint64_t, Op>;
  Map::iterator find(uint64_t op);
  void finish(Map::iterator it, std::optional<Error> why);
  void finish_if_whole(Map::iterator it);
  Result<> take_arrivals();
  void chunk_here(Map::iterator it, const ChunkHead& head, bool good);
  void give_up(Map::iterator it, Error why);  // finish and tell the producer
  void watch_progress(uint64_t op);

  Context& context_;
  Conn& conn_;
  std::unique_ptr<Transport> transport_;
  kv::KvShard peer_;
  Map ops_;
  uint64_t next_op_ = 1;
  struct Arrival {
    ChunkHead head;
    ucx::Staging::Ref bytes;
  };
  std::vector<Arrival> early_;
  uint64_t landing_op_ = 0;  // whose payload is being received
};

}  // namespace baton::transfer
