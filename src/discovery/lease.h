#pragma once
// Lease: a coordination.k8s.io/v1 Lease as leader election reads and writes it. Pure. Text other than `spec` survives a rewrite
// byte by byte. Source: Kubernetes API reference, Lease v1.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace baton::discovery {

struct Lease {
  std::string holder;      // "" = nobody
  int64_t duration_s = 0;  // 0 = not said
  int64_t transitions = 0;
  std::string acquired, renewed;  // as written; never compared with a clock, only with themselves
  std::string version;            // metadata.resourceVersion
  bool operator==(const Lease&) const = default;
};

Result<Lease> parse_lease(std::string_view object);
std::string new_lease(std::string_view ns, std::string_view name, const Lease& lease);  // to create one
Result<std::string> with_lease(std::string_view object, const Lease& lease);            // the object with another spec

}  // namespace baton::discovery
