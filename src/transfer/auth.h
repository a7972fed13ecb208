#pragma once
// Proof of the shared secret, both ways: HMAC-SHA256 (RFC 2104) over who proves, both nonces and both identities, so a proof
// recorded on one connection is worth nothing on another, and neither side can be made to answer its own challenge. With an empty
// secret proofs are still exchanged and must match: they then only tie the two ends of the handshake together.
#include <string_view>

#include "base/sha256.h"
#include "transfer/frame.h"

namespace baton::transfer {

Digest hmac_sha256(std::string_view key, std::string_view message);

enum class Prover : uint8_t { kProducer, kConsumer };
Digest handshake_proof(std::string_view secret, Prover who, const Hello& hello, const Accept& accept);
bool equal_constant_time(const Digest& a, const Digest& b);

}  // namespace baton::transfer
