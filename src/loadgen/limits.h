#pragma once
// Limits of the load generator; over one it stops with an error, because a benchmark that quietly does less lies.
#include <cstddef>
#include <cstdint>

namespace baton::loadgen {

inline constexpr size_t kDatasetBytesMax = 1u << 30;
inline constexpr size_t kAnswerBytesMax = 64u << 20;         // of one request's answer
inline constexpr size_t kErrorTextMax = 500;                 // of a failed answer, kept for the report
inline constexpr int64_t kRequestTimeoutMs = 6 * 3'600'000;  // as vllm bench serve: a benchmark may queue for hours
inline constexpr int kAlignConcurrency = 16;                 // /tokenize calls at a time while prompts are made
inline constexpr int kAlignRoundsMax = 4;                    // cutting text at a token can change the tokens before the cut
inline constexpr size_t kDistinctErrorsShown = 5;

}  // namespace baton::loadgen
