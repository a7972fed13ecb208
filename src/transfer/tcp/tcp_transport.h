#pragma once
// TCP: the chunk's payload is the blocks' bytes, sent from the pool with writev and received into the pool with readv.
#include "transfer/transport.h"

namespace baton::transfer {

std::unique_ptr<Transport> make_tcp_transport(BlockArray pool);

}  // namespace baton::transfer
