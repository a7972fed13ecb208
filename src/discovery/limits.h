#pragma once
// Limits of endpoint discovery; over one the file is refused whole and the last good one stays in force.
#include <cstddef>

namespace baton::discovery {

inline constexpr size_t kFileBytesMax = 1 << 20;  // as llm-d's file-discovery
inline constexpr size_t kMembersMax = 256;        // = route::kEndpointsMax
inline constexpr size_t kLabelsMax = 64;          // per member
inline constexpr size_t kTextBytesMax = 1024;     // per address, name, label key or value

}  // namespace baton::discovery
