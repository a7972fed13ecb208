#pragma once
// UCX, two ways. "ucx": each run of blocks is one active message, which large ones begin with a rendezvous, so the reader decides
// when bytes flow; right where memory access from afar is only emulated, as over TCP. "ucx_get": the chunk's payload is the
// producer's block numbers, as in shared memory, and the consumer reads them itself; right where a device does that. Which of
// them a pair uses is measured when it connects. Either way the blocks arrive in a staging buffer, beside the control connection:
// Fetches::on_arrival().
#include "transfer/transport.h"
#include "transfer/ucx/fabric.h"

namespace baton::transfer::ucx {

// One end of a pair.
class Channel {
 public:
  Channel(Fabric& fabric, std::string address, std::string pool_key, const Nonce& key, Fabric::Lost lost)
      : fabric_(fabric), key_(key), endpoint_(fabric.dial(std::move(address), std::move(pool_key), std::move(lost))) {}
  Channel(const Channel&) = delete;
  ~Channel() {
    fabric_.forget(key_);
    fabric_.hang_up(endpoint_);
  }
  void expect(size_t bytes_max, Fabric::Arrived arrived) { fabric_.expect(key_, bytes_max, std::move(arrived)); }
  void send(const ChunkHead& head, std::vector<iovec> parts) { fabric_.send(endpoint_, key_, head, std::move(parts)); }
  void read(const ChunkHead& head, std::vector<RemotePiece> pieces) { fabric_.read(endpoint_, key_, head, std::move(pieces)); }

 private:
  Fabric& fabric_;
  Nonce key_;
  uint64_t endpoint_;
};

std::unique_ptr<Transport> make_ucx_sender(BlockArray pool, Channel& channel);
// The peer's pool, as its READY said.
struct RemotePool {
  uint64_t base = 0, bytes = 0;
  size_t block_bytes = 0;
};
std::unique_ptr<Transport> make_ucx_receiver(Path path, Channel& channel, const RemotePool& peer);

}  // namespace baton::transfer::ucx
