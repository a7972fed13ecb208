#include "net/resolve.h"

#include <algorithm>

#include "net/scope.h"

namespace baton::net {

Task<Result<std::vector<std::string>>> resolve(std::string host) {
  Scope& scope = Scope::here();
  tcp::resolver resolver(scope.context());
  StopHook hook(scope, [&] { resolver.cancel(); });
  ErrorCode ec;
  tcp::resolver::results_type found;
  if (!scope.stopping()) std::tie(ec, found) = co_await resolver.async_resolve(host, "", kAwait);
  if (scope.stopping()) co_return fail(Code::kCancelled, "stopping");
  if (ec) co_return fail(Code::kUnavailable, "cannot resolve ", host, ": ", ec.message());
  std::vector<std::string> v4, v6;
  for (const auto& entry : found) {
    auto address = entry.endpoint().address();
    auto& list = address.is_v4() ? v4 : v6;
    if (std::ranges::find(list, address.to_string()) == list.end()) list.push_back(address.to_string());
  }
  v4.insert(v4.end(), v6.begin(), v6.end());
  co_return v4;
}

}  // namespace baton::net
