#include "sim/profile.h"

#include <array>

namespace baton::sim {
namespace {

constexpr std::array<Profile, 2> kProfiles = {{
    {"h100-llama-3.1-8b",
     "one H100, bf16, 26,250 KV blocks (420k tokens), 400 Gb/s between workers",
     {.prefill = {.fixed_us = 0, .per_token_us = 28.27, .per_ctx_us = 1.085},
      .decode = {.fixed_us = 5'550, .per_token_us = 0, .per_ctx_us = 68.3},
      .kv_bytes_per_token = 131'072},
     {.latency_us = 200, .bytes_per_us = 46'000},
     26'250},
    {"cpu-smollm2-135m",
     "two AVX-512 cores, Q4_1 weights, bf16 KV, shared memory between workers",
     {.prefill = {.fixed_us = 500, .per_token_us = 430, .per_ctx_us = 640},
      .decode = {.fixed_us = 1'700, .per_token_us = 490, .per_ctx_us = 1'070},
      .kv_bytes_per_token = 23'040},
     {.latency_us = 3'000, .bytes_per_us = 5'000},
     4'096},
}};

}  // namespace

std::span<const Profile> profiles() { return kProfiles; }

const Profile* find_profile(std::string_view name) {
  for (const Profile& row : kProfiles) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

}  // namespace baton::sim
