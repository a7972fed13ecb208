#pragma once
// Prng: a seeded generator (splitmix64) whose whole state is one word, so a failure is a seed and a stream can be counter based:
// Prng::at(seed, i) is the i-th draw without the draws before it, which is what lets a decode worker go on where prefill stopped.
// Not for secrets: use secure_random_bytes() for grants and keys. Source: Steele, Lea, Flood, "Fast splittable PRNGs" (2014).
#include <cstdint>
#include <span>
#include <string>

namespace baton {

constexpr uint64_t mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

class Prng {
 public:
  explicit constexpr Prng(uint64_t seed) : state_(seed) {}
  static constexpr uint64_t at(uint64_t seed, uint64_t index) { return mix64(mix64(seed) + (index + 1) * kGolden); }
  constexpr uint64_t next() { return mix64(state_ += kGolden); }
  // Uniform in [0, n), n > 0; the bias is below n / 2^64.
  constexpr uint64_t below(uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64); }
  constexpr int64_t between(int64_t lo, int64_t hi) {
    return lo + static_cast<int64_t>(below(static_cast<uint64_t>(hi - lo + 1)));
  }
  constexpr double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  constexpr bool chance(double p) { return uniform() < p; }

 private:
  static constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  uint64_t state_;
};

void secure_random_bytes(std::span<unsigned char> out);  // getrandom(2); aborts if the kernel has none
uint64_t secure_random_u64();
std::string uuid4();  // "5471a768-14e5-4de7-b2f3-38fe9aa62298"
std::string hex(std::span<const unsigned char> bytes);
std::string random_hex(int digits);  // digits even

}  // namespace baton
