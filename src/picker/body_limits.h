#pragma once
// Limits of what the picker reads of bodies and answers, and what happens at each.
#include <cstddef>

#include "base/json.h"

namespace baton::picker {

// JSON of a request: 400 over either. Values cost nothing here (no tree), so the bound is that of time: 16 Mi values of 1 byte
// are 32 MB. bytes_max is BodyOptions', 413.
inline constexpr int kBodyDepthMax = 64;                // as base/json.h
inline constexpr size_t kBodyValuesMax = 16u << 20;
inline constexpr size_t kModelNameBytesMax = 1024;      // 400
inline constexpr size_t kUserBytesMax = 256;            // the rest is cut: it is a label, not a key
inline constexpr size_t kKeyBytesMax = 64;              // longer member names are none of ours
inline constexpr size_t kNumberBytesMax = 64;           // longer numbers are checked, and taken as absent
inline constexpr size_t kAssetsMax = 1024;              // hashes kept; later assets still count as tokens
inline constexpr size_t kRangesMax = 64;                // duplicates of "model" or "kv_transfer_params": 400
inline constexpr size_t kTokenIdsMax = 4u << 20;        // ids kept for the precise index; longer prompts are matched by these

// Tokens an asset is taken for; the engine's own numbers depend on the model. Source: facts sheet "epp" 4.7, estimate mode.
inline constexpr int kImageTokens = 225;                // 640 * 360 / 1024
inline constexpr int kVideoTokens = 4500;               // 10 s * 2 frames/s * 225
inline constexpr int kAudioTokens = 225;

// Answers.
inline constexpr size_t kAnswerLineBytesMax = 64u << 10;  // of an SSE line looked at; the rest passes unseen
inline constexpr size_t kAnswerTailBytesMax = 16u << 10;  // of a JSON answer, where usage lies

}  // namespace baton::picker
