#pragma once
// Moving KV blocks between engines: grants on the producer, fetches on the consumer, over shared memory or TCP.
// Source: facts sheet "kv_transfer" 7 and 8. One TransferNode an engine; it runs one I/O thread of its own.
// The step thread calls offer/release/fetch/cancel and poll(); nothing here blocks it.
// A grant: one-shot, random 128 bit, bound to a prompt digest, leased (renewed by the consumer's heartbeats), with the producer's
// incarnation. A fetched block is handed over only after its chunk checksum and the prompt digest agreed. Peers are connected at
// start and on set_peers(), never on a request's path; a peer that is not connected when fetch() comes is connected in the
// background while that fetch fails at once with kUnavailable, so the caller recomputes.
// Push (docs/adr/0010): a grant may be promised under a token that a third party chose, before its KV exists. Its reader may ask
// even earlier; it is sent each block as soon as progress() says so, and learns what complete() was given.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/sha256.h"
#include "kv/shard.h"

namespace baton::transfer {

struct NodeOptions {
  std::string engine_id;                // uuid of this engine, stable for the process
  std::string host = "127.0.0.1";       // bind and advertised address
  int port = 0;                         // side-channel port; 0 = any
  std::vector<std::string> peers = {};  // "host:port" to connect at start
  std::string transport = "auto";       // auto (shm on one host, else ucx where a device moves memory, else tcp), shm, ucx, tcp
  std::string interface = {};           // network device for UCX, unless UCX_NET_DEVICES says; "" = all
  std::string ucx_primitive = "auto";   // auto (measured), am (active messages), get (one-sided reads)
  std::string fingerprint = {};         // model fingerprint; peers that differ are refused with the reason
  int lease_ms = 30'000;
  int fetch_timeout_ms = 30'000;        // no progress for this long fails a fetch
  size_t chunk_bytes = 1u << 20;        // hashed and then sent: small enough to stay in a core's L2 between the two
  std::string secret = {};              // shared secret of the handshake's HMAC proofs, both ways; "" = none
  std::vector<kv::KvShard> ranks = {};  // what each rank of this engine holds; {} = one rank that holds everything
  int rank = 0;                         // which of them this node is
  Labels metric_labels = {};            // put on the vllm:nixl_* metrics: model_name, engine
};

// Maps a KV pool from a multiple of a huge page's size on, so that it can lie in huge pages: attention reads it in pieces of 2 KiB, and
// with small pages each of them costs a TLB miss. fd -1: memory of this process alone, zeroed. For munmap() by whoever asked.
Result<std::span<std::byte>> map_pool(int fd, size_t bytes, int rights);

// The KV pool's memory. Owner: the engine; outlives Model and TransferNode.
class PoolMemory {
 public:
  class Toucher;
  // Who may map it beside this process. kNobody: plain memory, in huge pages from its first touch. Otherwise a memfd, which most
  // kernels keep in small pages until touch_in_background(). kReaders: what is mapped from now on can only be read (peers on this
  // host). kWriters: until seal(), which who shares the pool between processes of its own calls when they have mapped it.
  enum class Sharing { kNobody, kReaders, kWriters };
  // Zeroed lazily.
  static Result<PoolMemory> create(size_t bytes, const std::string& name, Sharing sharing = Sharing::kReaders);
  Result<> seal();
  PoolMemory(PoolMemory&&) noexcept;
  PoolMemory& operator=(PoolMemory&&) noexcept;
  ~PoolMemory();
  std::span<std::byte> bytes() const { return {data_, size_}; }
  // Has pages made ahead, huge ones where the kernel has some, up to an eighth of the machine's memory, by threads of idle
  // priority, so that no prefill or hand-over pays for first touches. Content is not changed. Ends by itself, early where the
  // machine's memory runs short, and with the PoolMemory.
  void touch_in_background();
  void await_touched();  // until that has ended
  int fd() const { return fd_; }  // -1: shared with nobody

 private:
  PoolMemory() = default;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;
  std::unique_ptr<Toucher> toucher_;
};

// What a producer offers and what travels in kv_transfer_params (wire/kv_params.h).
struct Offer {
  uint64_t request = 0;         // the scheduler's RequestId, given back in events
  std::vector<int32_t> blocks;  // block i holds tokens [i * block_tokens, ...); empty in a promise
  int32_t n_tokens = 0;         // tokens whose KV is complete, or will be
  Digest prompt_digest{};       // of the token ids [0, n_tokens)
};
struct Grant {
  std::string token;  // 32 hex digits
  uint64_t incarnation = 0;
  std::string engine_id, host;
  int port = 0;
  int lease_ms = 0;
  int rank = 0;  // of the engine that gave it
};

// What the reader of a promised grant learns beside its blocks.
struct Completion {
  std::optional<int32_t> first_token;    // sampled by the prefill worker, where it may travel
  int64_t queue_us = 0, prefill_us = 0;  // where the prefill leg's time went
  int32_t cached_tokens = 0;             // of the prompt, found in the prefill worker's prefix cache
};

struct Fetch {
  uint64_t request = 0;
  Grant grant;
  std::vector<Grant> more = {};  // of the producer's other ranks, if it has several: all of them, even if one would do
  Digest prompt_digest{};        // computed from our own tokens: another prompt's KV can never be taken
  int32_t first_token = 0;       // multiple of block_tokens
  int32_t n_tokens = 0;
  std::vector<int32_t> blocks;  // destination blocks in our pool; not touched after the fetch's event was polled
  // The grant may not exist yet: wait for it, take its blocks while they are computed. grant.incarnation 0 and engine_id "" mean
  // whatever engine answers at host:port, for the token is of this request alone.
  bool push = false;
};

struct Event {
  enum class Kind : uint8_t {
    kFetched,        // consumer: valid_tokens arrived and verified (all, or a leading part with error set)
    kGrantReleased,  // producer: the consumer has it all, or released it: free the blocks
    kGrantExpired,   // producer: lease ended without a reader: free the blocks
    kPromiseGone,    // producer: blocks were named for a promise that had ended before: free them
    kCompletion,     // consumer, a push: the prompt is computed; comes before kFetched, maybe before the last blocks
  };
  Kind kind{};
  uint64_t request = 0;
  int32_t valid_tokens = 0;  // from first_token on
  std::optional<Error> error;
  size_t bytes = 0;
  double seconds = 0;
  std::string transport;  // "shm", "tcp", "ucx", "ucx_get"
  Completion completion;  // of kCompletion
};

struct PeerStatus {
  std::string address, engine_id, transport, state, detail;  // state: connected, connecting, refused
  double gigabytes_per_s = 0, rtt_us = 0;                    // start-up self-test
};

class TransferNode {
 public:
  static Result<std::unique_ptr<TransferNode>> start(NodeOptions options, kv::KvLayout layout, PoolMemory& pool,
                                                     Metrics& metrics);
  virtual ~TransferNode() = default;  // revokes grants, closes peers, joins the thread
  virtual int port() const = 0;
  virtual uint64_t incarnation() const = 0;
  virtual void set_peers(std::vector<std::string> peers) = 0;

  virtual Grant offer(Offer offer) = 0;
  // Producer, push. promise() and refuse() from any thread. A promise under a token that was used before ends at once, with its
  // event. progress: the KV of the first ready_tokens tokens is in place; blocks only the first time, for the whole prompt.
  // complete: all of it is; from here on the grant is leased like any other.
  virtual Result<Grant> promise(const std::string& token, Offer offer) = 0;
  virtual void progress(uint64_t request, std::vector<int32_t> blocks, int32_t ready_tokens) = 0;
  virtual void complete(uint64_t request, Completion completion) = 0;
  virtual void refuse(const std::string& token, Error why) = 0;  // nothing will ever be promised under it: its reader is told
  virtual void release(
      uint64_t request) = 0;  // producer: revoke and free; an event kGrantReleased follows once no reader is left
  // Consumer: keeps the grant alive from now on (call it when the request arrives, it may queue long) until its fetch ends or
  // decline().
  virtual void hold(const Grant& grant) = 0;
  // Consumer: tells the producer that a grant will never be fetched (rejected, aborted, hit locally). Idempotent, best effort.
  virtual void decline(const Grant& grant) = 0;
  virtual void fetch(Fetch fetch) = 0;        // exactly one kFetched event follows, always
  virtual void cancel(uint64_t request) = 0;  // the kFetched event (kCancelled) comes when no write is in flight any more
  virtual std::vector<Event> poll() = 0;      // step thread
  virtual void set_wakeup(std::function<void()> wakeup) = 0;  // called from the node's thread when poll() has news
  virtual std::vector<PeerStatus> peers() const = 0;
  virtual int grants_live() const = 0;
  virtual void drain() = 0;  // no new grants' leases are extended beyond what was promised; serve until released
};

}  // namespace baton::transfer
