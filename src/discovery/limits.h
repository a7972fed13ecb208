#pragma once
// Limits of endpoint discovery, and what happens at each.
#include <cstddef>

namespace baton::discovery {

// Files: over one the file is refused whole and the last good one stays in force.
inline constexpr size_t kFileBytesMax = 1 << 20;  // as llm-d's file-discovery
inline constexpr size_t kMembersMax = 1024;       // = route::kEndpointsMax
inline constexpr size_t kLabelsMax = 64;          // per member
inline constexpr int kRankMax = 1023;             // data-parallel rank
inline constexpr size_t kTextBytesMax = 1024;     // per address, name, label key or value

// Credentials: over one, start() fails or the refresh is refused and the old credential stays.
inline constexpr size_t kKubeconfigBytesMax = 1 << 20;
inline constexpr size_t kKubeconfigFilesMax = 16;
inline constexpr size_t kTokenBytesMax = 64 << 10;      // a JWT with many groups is some KiB
inline constexpr size_t kExecOutputBytesMax = 1 << 20;  // of a credential plugin

// API server. A list page over its limit is asked for again with half as many objects; a single object over it, or a watch event,
// ends the attempt as an error (etcd refuses objects over 1.5 MiB, so neither is real).
inline constexpr int kPageObjects = 500;  // as client-go
inline constexpr size_t kPageBytesMax = 32u << 20;
inline constexpr size_t kWatchEventBytesMax = 4u << 20;
inline constexpr size_t kAnswerBytesMax = 4u << 20;  // of any other request
// Objects kept per kind, each some hundred bytes; more are counted, logged once and ignored. Kubernetes supports 5,000 nodes.
inline constexpr size_t kPodsMax = 20'000;
inline constexpr size_t kNodesMax = 20'000;
inline constexpr size_t kObjectsMax = 2'000;
inline constexpr size_t kClusterMembersMax = 4'096;  // in one ClusterState, by name; more are logged and ignored
inline constexpr size_t kTargetPortsMax = 8;         // of a pool, by its schema
inline constexpr size_t kRewriteItemsMax = 256;      // rules of a rewrite, models and targets of a rule: the rest is ignored
inline constexpr int kPagesMax = 1'000;              // of one list: an error beyond it

}  // namespace baton::discovery
