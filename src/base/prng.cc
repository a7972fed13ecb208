#include "base/prng.h"

#include <sys/random.h>

#include <cerrno>

#include "base/result.h"

namespace baton {

void secure_random_bytes(std::span<unsigned char> out) {
  while (!out.empty()) {
    ssize_t n = getrandom(out.data(), out.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    BATON_CHECK(n > 0);
    out = out.subspan(static_cast<size_t>(n));
  }
}

uint64_t secure_random_u64() {
  uint64_t v;
  secure_random_bytes({reinterpret_cast<unsigned char*>(&v), sizeof v});
  return v;
}

std::string hex(std::span<const unsigned char> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (unsigned char b : bytes) {
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

std::string random_hex(int digits) {
  unsigned char raw[64];
  BATON_CHECK(digits % 2 == 0 && digits <= 128);
  secure_random_bytes({raw, static_cast<size_t>(digits / 2)});
  return hex({raw, static_cast<size_t>(digits / 2)});
}

std::string uuid4() {
  unsigned char raw[16];
  secure_random_bytes(raw);
  raw[6] = static_cast<unsigned char>((raw[6] & 0x0f) | 0x40);
  raw[8] = static_cast<unsigned char>((raw[8] & 0x3f) | 0x80);
  std::string h = hex(raw);
  return h.substr(0, 8) + "-" + h.substr(8, 4) + "-" + h.substr(12, 4) + "-" + h.substr(16, 4) + "-" + h.substr(20);
}

}  // namespace baton
