#pragma once
// resolve(): the addresses of a host name, IPv4 first, as the system's resolver gives them. kCancelled if the thread stops.
#include "net/http.h"

namespace baton::net {

Task<Result<std::vector<std::string>>> resolve(std::string host);

}  // namespace baton::net
