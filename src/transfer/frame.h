#pragma once
// The wire: frames and their messages (facts sheet "kv_transfer" 8.6). Little-endian, length-prefixed; every length is bounded by
// limits.h.
//
//   frame:  [u32 length][u16 type][u16 0][u64 checksum] body[length]
//   CHUNK:  body = ChunkHead (32 bytes) + payload; the frame's checksum covers the head, the head's own checksum covers the
//   blocks string: [u16 n][n bytes]      list: [u16 n][n items]
//
// The frame checksum is XXH3 of the body seeded with type and length, so no flipped bit can turn one message into another.
// Unknown types are skipped; bytes behind the fields we know are ignored (a later version may append).
// Consumer = the side that dialled; it sends the types marked C, the producer those marked P.
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "base/sha256.h"
#include "kv/shard.h"
#include "transfer/limits.h"

namespace baton::transfer {

constexpr uint64_t kMagic = 0x31564b6e6f746162ULL;  // "batonKV1"
constexpr uint16_t kVersionMin = 3, kVersionMax = 3;
constexpr uint16_t kVersionPush = 2;  // knows AWAIT, COMPLETED and KEEP
constexpr size_t kFrameHeaderBytes = 16;
constexpr size_t kChunkHeadBytes = 32;

enum class FrameType : uint16_t {
  kHello = 1,       // C  who we are, and what we could read
  kAccept = 2,      // P  who it is, and its proof of the shared secret
  kReject = 3,      // P  machine-readable reason; the connection closes
  kAuth = 4,        // C  our proof
  kReady = 5,       // P  where its shared memory is
  kHeartbeat = 6,   // C  renews grants, asks for an echo
  kEcho = 7,        // P
  kProbe = 8,       // C  self-test: so many bytes, please
  kUcx = 9,         // C  our UCX address and the key that messages to it carry
  kFetch = 16,      // C  open a grant for reading
  kOpened = 17,     // P
  kChunk = 18,      // P  some blocks (tcp: their bytes; shm: their numbers)
  kCredit = 19,     // C  so many more bytes may be under way
  kClose = 20,      // C  the reading ended: all verified, or given up; frees the grant
  kFailed = 21,     // P  the reading was refused or revoked
  kDecline = 22,    // C  a grant nobody will fetch
  kAwait = 23,      // C  FETCH of a grant that may not exist yet; its blocks come as they are computed
  kCompleted = 24,  // P  to an AWAIT: everything is computed, and what the prefill worker sampled
  kKeep = 25,       // P  after an ECHO: these readings wait for our computing, not for the wire
};

enum class Path : uint8_t { kTcp = 0, kShm = 1, kUcx = 2, kUcxGet = 3 };
std::string_view path_name(Path p);

enum class Refusal : uint16_t { kNone = 0, kMagic, kVersion, kFingerprint, kLayout, kAuthentication, kSelf, kBusy };
std::string_view refusal_name(Refusal r);

using Token = std::array<uint8_t, 16>;
using Nonce = std::array<uint8_t, 16>;
std::string token_text(const Token& t);
Result<Token> token_from(std::string_view text);  // 32 hex digits

// Bytes that mean something to UCX alone, at most kFabricBlobMax.
struct Blob {
  std::string bytes;
};

// The part of a message that says what a rank's blocks hold, and which of its engine's ranks it is.
struct RankFields {
  kv::KvShard shard;
  uint16_t rank = 0, ranks = 1;
  void fields(this auto&& m, auto& a) {
    auto& l = m.shard.layout;
    a(l.layers, l.kv_heads, l.head_dim, l.block_tokens, l.dtype, l.tile_order, m.shard.layer_first, m.shard.head_first,
      m.shard.model_layers, m.shard.model_heads, m.rank, m.ranks);
  }
};

struct Hello {
  static constexpr auto kType = FrameType::kHello;
  uint64_t magic = kMagic;
  uint16_t version_min = kVersionMin, version_max = kVersionMax;
  std::string engine_id;
  uint64_t incarnation = 0;
  std::string fingerprint, boot_id;
  bool wants_shm = false;
  Nonce nonce{};
  RankFields blocks = {};
  std::string ucx = {};  // version of UCX that we could use; "" = none
  void fields(this auto&& m, auto& a) {
    a(m.magic, m.version_min, m.version_max, m.engine_id, m.incarnation, m.fingerprint, m.boot_id, m.wants_shm, m.nonce);
    m.blocks.fields(a);
    a(m.ucx);
  }
};
struct Accept {
  static constexpr auto kType = FrameType::kAccept;
  uint16_t version = 0;
  std::string engine_id;
  uint64_t incarnation = 0;
  uint32_t lease_ms = 0;
  Nonce nonce{};
  Digest proof{};
  RankFields blocks = {};
  std::string ucx = {};
  void fields(this auto&& m, auto& a) {
    a(m.version, m.engine_id, m.incarnation, m.lease_ms, m.nonce, m.proof);
    m.blocks.fields(a);
    a(m.ucx);
  }
};
struct Reject {
  static constexpr auto kType = FrameType::kReject;
  Refusal reason{};
  std::string detail;
  void fields(this auto&& m, auto& a) { a(m.reason, m.detail); }
};
struct Auth {
  static constexpr auto kType = FrameType::kAuth;
  Digest proof{};
  void fields(this auto&& m, auto& a) { a(m.proof); }
};
struct Ready {
  static constexpr auto kType = FrameType::kReady;
  std::string shm_name;  // abstract unix socket that hands out the pool's descriptor; "" = none
  Nonce shm_key{};
  uint64_t pool_bytes = 0;
  Blob ucx_address, ucx_pool_key;  // "" = none
  uint64_t pool_base = 0;
  void fields(this auto&& m, auto& a) { a(m.shm_name, m.shm_key, m.pool_bytes, m.ucx_address, m.ucx_pool_key, m.pool_base); }
};
struct Ucx {
  static constexpr auto kType = FrameType::kUcx;
  Nonce key{};
  Blob address;
  void fields(this auto&& m, auto& a) { a(m.key, m.address); }
};
struct Heartbeat {
  static constexpr auto kType = FrameType::kHeartbeat;
  uint64_t echo = 0;
  std::vector<Token> grants;
  void fields(this auto&& m, auto& a) { a(m.echo, m.grants); }
};
struct Echo {
  static constexpr auto kType = FrameType::kEcho;
  uint64_t echo = 0;
  uint32_t extended_ms = 0;  // the named grants live at least so long from when the heartbeat was sent; 0 = draining
  void fields(this auto&& m, auto& a) { a(m.echo, m.extended_ms); }
};
struct Probe {
  static constexpr auto kType = FrameType::kProbe;
  uint32_t bytes = 0;
  Path path{};
  void fields(this auto&& m, auto& a) { a(m.bytes, m.path); }
};
struct FetchMsg {
  static constexpr auto kType = FrameType::kFetch;
  uint64_t op = 0;  // chosen by the consumer, rising, > 0
  Token token{};
  uint64_t incarnation = 0;
  Digest digest{};
  int32_t first_token = 0, n_tokens = 0;
  Path path{};
  uint32_t chunk_bytes = 0;
  uint64_t credit = 0;
  uint16_t readers = 1;  // how many ranks of the consumer's engine read from this grant, each once
  int32_t layer_first = 0, layers = 0, head_first = 0, heads = 0;  // what of every block, in the model's numbers
  void fields(this auto&& m, auto& a) {
    a(m.op, m.token, m.incarnation, m.digest, m.first_token, m.n_tokens, m.path, m.chunk_bytes, m.credit, m.readers,
      m.layer_first, m.layers, m.head_first, m.heads);
  }
};
struct Await : FetchMsg {
  static constexpr auto kType = FrameType::kAwait;
};
struct Opened {
  static constexpr auto kType = FrameType::kOpened;
  uint64_t op = 0;
  uint32_t blocks = 0;
  uint32_t read_ms = 0;  // without a renewal the blocks may be reused this long after; what is copied later must be thrown away
  void fields(this auto&& m, auto& a) { a(m.op, m.blocks, m.read_ms); }
};
struct Credit {
  static constexpr auto kType = FrameType::kCredit;
  uint64_t op = 0, bytes = 0;
  void fields(this auto&& m, auto& a) { a(m.op, m.bytes); }
};
struct Close {
  static constexpr auto kType = FrameType::kClose;
  uint64_t op = 0;
  bool complete = false;
  void fields(this auto&& m, auto& a) { a(m.op, m.complete); }
};
struct Failed {
  static constexpr auto kType = FrameType::kFailed;
  uint64_t op = 0;
  uint16_t code = 0;
  std::string message;
  void fields(this auto&& m, auto& a) { a(m.op, m.code, m.message); }
};
struct Decline {
  static constexpr auto kType = FrameType::kDecline;
  Token token{};
  void fields(this auto&& m, auto& a) { a(m.token); }
};
struct Completed {
  static constexpr auto kType = FrameType::kCompleted;
  uint64_t op = 0;
  int32_t first_token = -1;  // -1: none travels
  uint64_t queue_us = 0, prefill_us = 0;
  int32_t cached_tokens = 0;
  void fields(this auto&& m, auto& a) { a(m.op, m.first_token, m.queue_us, m.prefill_us, m.cached_tokens); }
};
struct Keep {
  static constexpr auto kType = FrameType::kKeep;
  std::vector<uint64_t> ops;
  void fields(this auto&& m, auto& a) { a(m.ops); }
};
// First part of a CHUNK. op 0 = self-test, whose payload means nothing.
struct ChunkHead {
  uint64_t op = 0;
  uint32_t first_block = 0, n_blocks = 0;  // counted from the fetch's first block
  uint64_t checksum = 0;                   // of the blocks' bytes
  uint64_t block_bytes = 0;                // bytes of them all, cut to what was asked for
  void fields(this auto&& m, auto& a) { a(m.op, m.first_block, m.n_blocks, m.checksum, m.block_bytes); }
};

struct FrameHeader {
  uint32_t length = 0;
  uint16_t type = 0;
  uint16_t zero = 0;
  uint64_t checksum = 0;
  void fields(this auto&& m, auto& a) { a(m.length, m.type, m.zero, m.checksum); }
};
uint64_t frame_checksum(FrameType type, uint32_t length, std::span<const std::byte> body);

template <class V>
concept WireInteger = std::is_integral_v<V> || std::is_enum_v<V>;

class Encoder {
 public:
  void operator()(const auto&... v) { (put(v), ...); }
  std::string out;

 private:
  template <WireInteger V>
  void put(V v) {
    out.append(reinterpret_cast<const char*>(&v), sizeof v);  // little-endian hosts only, as everything here
  }
  template <size_t N>
  void put(const std::array<uint8_t, N>& v) {
    out.append(reinterpret_cast<const char*>(v.data()), N);
  }
  void put(const std::string& s) {
    auto n = static_cast<uint16_t>(std::min(s.size(), kStringMax));
    put(n);
    out.append(s.data(), n);
  }
  void put(const Blob& b) {
    auto n = static_cast<uint16_t>(std::min(b.bytes.size(), kFabricBlobMax));
    put(n);
    out.append(b.bytes.data(), n);
  }
  template <class V>
  void put(const std::vector<V>& list) {
    put(static_cast<uint16_t>(list.size()));
    for (const auto& v : list) put(v);
  }
};

// Reads past the end give zeros and make ok() false; nothing is ever read or allocated beyond the body.
class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> body) : rest_(body) {}
  void operator()(auto&... v) { (get(v), ...); }
  bool ok() const { return ok_; }

 private:
  bool take(void* to, size_t n) {
    if (!ok_ || rest_.size() < n) return ok_ = false;
    std::memcpy(to, rest_.data(), n);
    rest_ = rest_.subspan(n);
    return true;
  }
  template <WireInteger V>
  void get(V& v) {
    if constexpr (std::is_same_v<V, bool>) {
      uint8_t byte = 0;
      ok_ = take(&byte, 1) && byte <= 1 && ok_;
      v = byte == 1;
    } else {
      take(&v, sizeof v);
    }
  }
  template <size_t N>
  void get(std::array<uint8_t, N>& v) {
    take(v.data(), N);
  }
  void get(std::string& s) { get(s, kStringMax); }
  void get(Blob& b) { get(b.bytes, kFabricBlobMax); }
  void get(std::string& s, size_t max) {
    uint16_t n = 0;
    get(n);
    if (!ok_ || n > max || n > rest_.size()) return void(ok_ = false);
    s.assign(reinterpret_cast<const char*>(rest_.data()), n);
    rest_ = rest_.subspan(n);
  }
  template <class V>
  void get(std::vector<V>& list) {
    uint16_t n = 0;
    get(n);
    if (!ok_ || n > kGrantsPerHeartbeatMax || n * sizeof(V) > rest_.size()) return void(ok_ = false);
    list.resize(n);
    for (auto& v : list) get(v);
  }
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

template <class M>
std::string encode_body(const M& message) {
  Encoder e;
  message.fields(e);
  return std::move(e.out);
}
std::string frame(FrameType type, std::string_view body);
template <class M>
std::string encode(const M& message) {
  return frame(M::kType, encode_body(message));
}
// Header and head of a CHUNK whose payload of payload_bytes follows.
std::string encode_chunk(const ChunkHead& head, size_t payload_bytes);

template <class M>
Result<M> decode(std::span<const std::byte> body) {
  M message;
  Decoder d(body);
  message.fields(d);
  if (!d.ok()) return fail(Code::kInvalidArgument, "malformed frame of type ", static_cast<int>(M::kType));
  return message;
}
Result<FrameHeader> decode_header(std::span<const std::byte> bytes);  // checks the length against limits.h
Result<ChunkHead> decode_chunk_head(const FrameHeader& header, std::span<const std::byte> head);

}  // namespace baton::transfer
