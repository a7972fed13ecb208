// Any bytes as an endpoints file: an error, or members that are all usable.
#include <cstdint>
#include <cstdlib>

#include "discovery/limits.h"
#include "discovery/members.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto members = baton::discovery::parse_members({reinterpret_cast<const char*>(data), size});
  if (!members) {
    if (members.error().message.empty()) std::abort();
    return 0;
  }
  if (members->size() > baton::discovery::kMembersMax) std::abort();
  for (const auto& member : *members) {
    if (member.host.empty() || member.port < 1 || member.port > 65535) std::abort();
  }
  return 0;
}
