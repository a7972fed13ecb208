#include "transfer/auth.h"

namespace baton::transfer {

Digest hmac_sha256(std::string_view key, std::string_view message) {
  std::array<uint8_t, 64> block{};
  if (key.size() > block.size()) {
    auto d = Sha256().update(key).finish();
    std::copy(d.begin(), d.end(), block.begin());
  } else {
    std::copy(key.begin(), key.end(), block.begin());
  }
  auto inner = block, outer = block;
  for (auto& b : inner) b ^= 0x36;
  for (auto& b : outer) b ^= 0x5c;
  auto digest = Sha256().update(inner).update(message).finish();
  return Sha256().update(outer).update(digest).finish();
}

Digest handshake_proof(std::string_view secret, Prover who, const Hello& hello, const Accept& accept) {
  auto unproven = accept;
  unproven.proof = {};
  return hmac_sha256(secret, cat(who == Prover::kProducer ? "producer" : "consumer", encode_body(hello), encode_body(unproven)));
}

bool equal_constant_time(const Digest& a, const Digest& b) {
  unsigned different = 0;
  for (size_t i = 0; i < a.size(); ++i) different |= static_cast<unsigned>(a[i] ^ b[i]);
  return different == 0;
}

}  // namespace baton::transfer
