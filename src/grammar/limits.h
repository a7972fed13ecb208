#pragma once
// Maxima of what one constraint, which a stranger sends, may cost. Beyond a limit of the text or of what is made of it the
// request gets a 400 that names it; beyond one of the walk the sequence ends with an error. Nothing is cut silently.
#include <cstddef>
#include <cstdint>

namespace baton::grammar {

constexpr size_t kSourceBytesMax = 1u << 20;     // a schema, regex or grammar as it was sent, all choices together
constexpr int kNestingMax = 64;                  // groups in a regex or grammar, schemas in a schema: the readers recurse
constexpr size_t kMarksBytesMax = 1u << 14;      // of the strings that one free text waits for: each byte is a state
constexpr size_t kExprsMax = 1u << 18;           // nodes a front end may make
constexpr size_t kMergedBytesMax = 16u << 20;    // of schemas written into each other by allOf, anyOf and $ref
constexpr int32_t kRepeatMax = 1 << 15;          // of {m,n}, minLength, maxItems and the like
constexpr size_t kNfaStatesMax = 1u << 18;       // of all rules together, repetitions written out
constexpr size_t kStatesMax = 1u << 18;          // after determinisation
constexpr uint64_t kBuildStepsMax = 60'000'000;  // edges looked at while building: some 200 ms
constexpr uint64_t kWarmVisitsMax = 8'000'000;   // nodes of the vocabulary looked at ahead of the first token: some 40 ms
constexpr size_t kWarmBytesMax = 32u << 20;      // and the masks kept of that

constexpr size_t kTokenBytesMax = 64;          // a longer token is never offered: how far ahead two states are told apart
constexpr size_t kStackMax = 256;              // nesting of what is generated: brackets in brackets
constexpr size_t kThreadsMax = 1024;           // readings of one text at a time; an ambiguous grammar loses those beyond it
constexpr uint64_t kMaskWorkMax = 8'000'000;   // steps of one mask, some 50 ms: a grammar that needs more ends its request
constexpr size_t kWalkerBytesMax = 24u << 20;  // what a walker remembers, then it starts afresh
constexpr size_t kWalkersMax = 16;             // grammars a step thread keeps warm beside those in use

}  // namespace baton::grammar
