#pragma once
// The inside of TlsServer and TlsClient, for the connections of this folder.
#include "net/tls.h"
#include "net/tls_stream.h"

namespace baton::net {

std::unique_ptr<TlsStream> make_stream(TlsServer& server);
std::unique_ptr<TlsStream> make_stream(TlsClient& client, const std::string& server_name);

}  // namespace baton::net
