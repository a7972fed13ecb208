#include "deploy/relay.h"

namespace baton::deploy {
namespace {

net::Task<> pass(discovery::KubeClient& client, const std::string& prefix, net::Millis timeout, net::Request& request,
                 net::ResponseWriter& writer) {
  discovery::KubeClient::Ask ask;
  ask.method = request.method;
  ask.target = prefix + request.target;
  ask.body = std::move(request.body);
  ask.answer_timeout = ask.body_timeout = timeout;
  ask.cancel = &writer.cancel();
  auto opened = co_await client.open(ask);
  if (!opened) co_return (void) co_await writer.send(net::Response::text(502, opened.error().message));
  net::Headers headers;
  for (const auto& [name, value] : (*opened)->headers().fields()) {
    if (!net::is_hop_by_hop(name)) headers.add(name, value);
  }
  if (!co_await writer.begin((*opened)->status(), std::move(headers))) co_return;
  for (;;) {
    auto bytes = co_await (*opened)->read();
    if (!bytes) co_return;  // cut short there, cut short here
    if (bytes->empty()) break;
    if (!co_await writer.write(*bytes)) co_return;
  }
  (void)co_await writer.finish();
}

}  // namespace

Relay::Relay(discovery::KubeAccess access, const Clock& clock, std::string ns, std::string service, net::Millis timeout)
    : server_({},
              [access = std::move(access), &clock, prefix = cat("/api/v1/namespaces/", ns, "/services/http:", service, "/proxy"),
               timeout]() -> net::Handler {
                auto client = std::make_shared<discovery::KubeClient>(access, discovery::KubeTiming{}, clock);
                (void)client->check();  // it was checked by whoever made us
                return [client, prefix, timeout](net::Request& request, net::ResponseWriter& writer) {
                  return pass(*client, prefix, timeout, request, writer);
                };
              }) {}

Result<> Relay::start() { return server_.start(); }

}  // namespace baton::deploy
