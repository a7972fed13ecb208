#pragma once
// Fabric: UCX for one node: a context and one worker with a thread of its own, endpoints to peers, active messages (rendezvous
// for what is large) and one-sided reads. Every UCX_* variable is UCX's own; defaults of ours are set only where the environment
// says nothing (facts sheet "kv_transfer" 4.4). The library is loaded when the first Fabric opens (library.h). Nothing here is
// authenticated: a message counts only with a key that the handshake on the control connection gave, and what it carries is
// believed only after its checksum. Threads: all of this from the loop's thread; callbacks come there too. UCX itself is touched
// by its own thread alone. Peers that vanish without a word are noticed by the heartbeats of the control connection, which
// hang_up() then.
#include <sys/uio.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transfer/frame.h"
#include "transfer/loop.h"
#include "transfer/ucx/staging.h"

namespace baton::transfer::ucx {

// What a peer needs to know to reach us. Given only after its handshake was accepted.
struct Local {
  std::string address;     // of the worker
  std::string pool_key;    // packed remote key of the pool; "" = the pool cannot be read from outside
  uint64_t pool_base = 0;  // its address here
};

struct RemotePiece {
  uint64_t address = 0;  // over there
  size_t length = 0;
};

class Fabric {
 public:
  using Arrived = std::function<void(const ChunkHead&, Staging::Ref)>;
  using Lost = std::function<void(Error)>;

  // kUnimplemented: built without UCX; kUnavailable: this machine has none, or it does not work here.
  static Result<std::unique_ptr<Fabric>> open(Loop& loop, std::span<std::byte> pool, const std::string& interface);
  virtual ~Fabric() = default;  // ends everything; no callback comes any more
  virtual const Local& local() const = 0;

  // Messages with this key, none larger than bytes_max, until forget().
  virtual void expect(const Nonce& key, size_t bytes_max, Arrived arrived) = 0;
  virtual void forget(const Nonce& key) = 0;

  virtual uint64_t dial(std::string address, std::string pool_key, Lost lost) = 0;
  virtual void hang_up(uint64_t endpoint) = 0;
  // The parts must stay mapped as long as the Fabric is; their bytes are read when UCX comes to it.
  virtual void send(uint64_t endpoint, const Nonce& key, const ChunkHead& head, std::vector<iovec> parts) = 0;
  // Reads the pieces one after the other; they arrive as though the peer had sent them with that key.
  virtual void read(uint64_t endpoint, const Nonce& key, const ChunkHead& head, std::vector<RemotePiece> pieces) = 0;
};

bool built_in();             // false: this program was compiled without UCX's headers; asks for nothing to be loaded
std::string version();       // "1.13": peers must agree, UCX promises no compatibility on the wire; "" = not loaded
bool rdma_device_present();  // a device that moves memory by itself: without one, UCX is our TCP path with another name

}  // namespace baton::transfer::ucx
