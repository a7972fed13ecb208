// Any bytes as a replica's message: refused, or taken within the limits. The first bytes are made a valid head half of the time.
#include <cstdlib>

#include "picker/replica_ledger.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::picker;
  if (size == 0) return 0;
  std::string message(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) message = std::string("BRD1") + std::string(8, '\0') + std::string(15, '\x01') + message;
  ReplicaLedger ledger("me", 77, "", 1000);
  std::vector<ReplicaPrefix> learnt;
  ReplicaNews news;
  for (int i = 0; i < 2; ++i) (void)ledger.receive(message, i, learnt, &news);
  size_t hashes = 0;
  for (const ReplicaPrefix& p : news.older) hashes += p.hashes.size();
  for (const ReplicaPrefix& p : learnt) hashes += p.hashes.size();
  if (hashes > kReplicaHashesMax || ledger.peers() > 1) std::abort();
  for (const ReplicaCount& c : ledger.totals()) {
    if (c.requests < 0 || c.tokens < 0 || c.address.size() > kReplicaTextBytesMax) std::abort();
  }
  ledger.expire(10'000);
  if (ledger.peers() != 0) std::abort();
  return 0;
}
